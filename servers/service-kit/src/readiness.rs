//! Where a server stands between its start and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The phases, in the only order in which they can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Opening files, recovering, joining.
    Starting,
    /// Serving.
    Ready,
    /// Still serving, but no longer wanted: load balancers should look elsewhere.
    Draining,
    /// No new connections; finishing what is under way.
    ShuttingDown,
}

impl Phase {
    /// The phase's name in probe bodies.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::ShuttingDown => "shutting down",
        }
    }
}

/// Why a server wants no requests. Prints the phase, then one condition per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The phase it is in.
    pub phase: Phase,
    /// Conditions reported, by name, with their reasons.
    pub obstacles: BTreeMap<&'static str, String>,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phase.name())?;
        self.obstacles.iter().try_for_each(|(name, reason)| write!(f, "\n{name}: {reason}"))
    }
}

impl std::error::Error for NotReady {}

/// The shared state behind the probes. Clones refer to the same state.
///
/// A phase never goes back. Conditions (no leader, a lost peer) come and go; while one is present, a ready server
/// reports that it is not. A notice (a disk so full that the server only reads) is shown and changes nothing: who
/// takes a server out of service for it takes away the reads too.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
    obstacles: Arc<Mutex<BTreeMap<&'static str, String>>>,
    notices: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// A server that is starting.
    pub fn starting() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Starting),
            obstacles: Arc::default(),
            notices: Arc::default(),
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves forward to `phase`. Asking for an earlier phase, or the present one, changes nothing.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    /// Completes when the server has reached `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.subscribe();
        // The sender is `self`: the channel cannot close while this future is polled.
        let _ = receiver.wait_for(|current| *current >= phase).await;
    }

    /// Reports a condition under which the server should get no requests. The name is the condition's identity.
    pub fn report_obstacle(&self, name: &'static str, reason: impl Into<String>) {
        self.obstacles().insert(name, reason.into());
    }

    /// Takes a condition back.
    pub fn clear_obstacle(&self, name: &'static str) {
        self.obstacles().remove(name);
    }

    /// Reports a condition that people should see although the server wants requests, such as that it only reads.
    /// The name is the condition's identity.
    pub fn report_notice(&self, name: &'static str, reason: impl Into<String>) {
        lock(&self.notices).insert(name, reason.into());
    }

    /// Takes a notice back.
    pub fn clear_notice(&self, name: &'static str) {
        lock(&self.notices).remove(name);
    }

    /// The notices now, by name.
    pub fn notices(&self) -> BTreeMap<&'static str, String> {
        lock(&self.notices).clone()
    }

    /// `Ok` when the server wants requests.
    ///
    /// # Errors
    /// The phase and the conditions that speak against it.
    pub fn check(&self) -> Result<(), NotReady> {
        let phase = self.phase();
        let obstacles = self.obstacles();
        if phase == Phase::Ready && obstacles.is_empty() {
            return Ok(());
        }
        Err(NotReady { phase, obstacles: obstacles.clone() })
    }

    fn obstacles(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        lock(&self.obstacles)
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
