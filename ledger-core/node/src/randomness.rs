//! Where a node's random numbers come from: the operating system, or in a simulation the seed of the node.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::{SmallRng, ThreadRng};
use rand::{Rng, SeedableRng, TryRng};
use uuid::Uuid;

use crate::directory::{DirectoryError, random_bytes};

/// A source of randomness. Clones draw from the same one.
#[derive(Clone, Default)]
pub(crate) enum Randomness {
    #[default]
    System,
    Seeded(Arc<Mutex<SmallRng>>),
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Seeded(_) => "Seeded",
        })
    }
}

impl Randomness {
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], DirectoryError> {
        match self {
            Self::System => random_bytes(),
            Self::Seeded(source) => {
                let mut bytes = [0; N];
                lock(source).fill_bytes(&mut bytes);
                Ok(bytes)
            }
        }
    }

    /// A UUID of version 7 (RFC 9562).
    pub fn uuid_v7(&self, now_ms: u64) -> Result<Uuid, DirectoryError> {
        match self {
            Self::System => Ok(Uuid::now_v7()),
            Self::Seeded(_) => {
                Ok(uuid::Builder::from_unix_timestamp_millis(now_ms, &self.bytes()?).into_uuid())
            }
        }
    }
}

tokio::task_local! {
    /// The seeded source of the node that the running task belongs to.
    static OF_THIS_NODE: Arc<Mutex<SmallRng>>;
}

impl Randomness {
    /// Runs a future, and every task that the engine spawns from it, with this source.
    pub async fn scope<T>(self, body: impl Future<Output = T>) -> T {
        match self {
            Self::System => body.await,
            Self::Seeded(source) => OF_THIS_NODE.scope(source, body).await,
        }
    }

    /// The source of the node that the running task belongs to.
    pub fn of_this_task() -> Self {
        OF_THIS_NODE.try_with(|source| Self::Seeded(Arc::clone(source))).unwrap_or_default()
    }
}

/// The generator that the engine draws from.
pub(crate) enum EngineRng {
    System(ThreadRng),
    Seeded(Arc<Mutex<SmallRng>>),
}

impl EngineRng {
    pub fn of_this_task() -> Self {
        match Randomness::of_this_task() {
            Randomness::System => Self::System(rand::rng()),
            Randomness::Seeded(source) => Self::Seeded(source),
        }
    }
}

impl TryRng for EngineRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(match self {
            Self::System(source) => source.next_u32(),
            Self::Seeded(source) => lock(source).next_u32(),
        })
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(match self {
            Self::System(source) => source.next_u64(),
            Self::Seeded(source) => lock(source).next_u64(),
        })
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::System(source) => source.fill_bytes(bytes),
            Self::Seeded(source) => lock(source).fill_bytes(bytes),
        }
        Ok(())
    }
}

/// Nothing panics while it holds this lock, so a poisoned one guards no broken invariant.
fn lock(source: &Mutex<SmallRng>) -> MutexGuard<'_, SmallRng> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}
