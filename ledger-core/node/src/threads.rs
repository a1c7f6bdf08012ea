//! Where a node's work is done: on threads of its own, or for a simulation as tasks of the runtime that opens it.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use ledger_core::ports::StoreError;
use tokio::task::JoinHandle;

use crate::peers::PeerFuture;
use crate::randomness::Randomness;

/// Where a node's work is done.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Threads {
    /// On threads of its own: one for consensus, one for each store.
    #[default]
    Own,
    /// As tasks of the runtime that opens the ledger, all stores included: whoever drops that runtime crashes the
    /// node. For simulations: time is that runtime's, randomness comes from a seed, and there is no thread left whose
    /// timing could change what happens. Integrity checks, recoveries and proofs of the past still take threads.
    Inline(InlineWork),
}

/// What a node whose work is done inline is given.
#[derive(Debug, Clone)]
pub struct InlineWork {
    /// Everything random in the node comes from this: elections, ids, keys of page tokens.
    pub seed: u64,
    /// How long the disks take.
    pub disks: Arc<dyn DiskTiming>,
}

/// How long the disks of a node take whose stores answer at once.
pub trait DiskTiming: fmt::Debug + Send + Sync + 'static {
    /// Resolves when everything that was committed to the log so far is durable. Nobody is told of a commit before.
    fn log_synced(&self) -> PeerFuture<'_, Result<(), StoreError>>;

    /// Resolves when the disk takes the next commit of the state.
    fn state_ready(&self) -> PeerFuture<'_, ()>;
}

impl Threads {
    pub(crate) fn randomness(&self) -> Randomness {
        match self {
            Self::Own => Randomness::System,
            Self::Inline(work) => Randomness::seeded(work.seed),
        }
    }
}

/// Work that goes on beside the node's, to be waited for when it stops.
pub(crate) enum Running {
    Thread(std::thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

impl Running {
    pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(Self::Thread)
    }

    pub fn task(body: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Task(tokio::spawn(body))
    }

    /// Waits until it has ended. A panic in it was reported by itself.
    pub async fn ended(self) {
        match self {
            Self::Thread(thread) => drop(thread.join()),
            Self::Task(task) => drop(task.await),
        }
    }
}
