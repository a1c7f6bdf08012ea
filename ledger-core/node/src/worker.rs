//! What keeps a long-lived worker running: a thread of its own, or a task beside the caller's.

use std::io;
use std::thread::JoinHandle;

/// Where a node's workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Threads {
    /// The engine, the log and the state store have threads of their own: for every use but simulation.
    #[default]
    Own,
    /// Everything runs as tasks of the runtime that opens the ledger, which must have one thread, and stores are
    /// called from those tasks. Time is that runtime's clock, and every random number follows from the seed and the
    /// node's number: the same ones with the same messages in the same order make the same steps.
    Inline {
        /// What random numbers follow from.
        seed: u64,
    },
}

impl Threads {
    /// The seed of a node: nodes with one seed draw different numbers.
    pub(crate) fn seed_of(self, node_id: u64) -> Option<u64> {
        match self {
            Self::Own => None,
            Self::Inline { seed } => Some(seed ^ node_id.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }
}

/// A worker that was started.
pub(crate) enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Starts a thread.
    pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(Self::Thread)
    }

    /// Starts a task on the present runtime.
    pub fn task(body: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Task(tokio::spawn(body))
    }

    /// Waits until it has ended. A panic was reported by the worker itself.
    pub async fn join(self) {
        match self {
            Self::Thread(thread) => drop(thread.join()),
            Self::Task(task) => drop(task.await),
        }
    }
}
