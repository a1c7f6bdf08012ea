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
    /// called from those tasks. Time is that runtime's clock, and every random number follows from the seed: the same
    /// seed with the same messages in the same order makes the same steps.
    Inline {
        /// What random numbers follow from.
        seed: u64,
    },
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
