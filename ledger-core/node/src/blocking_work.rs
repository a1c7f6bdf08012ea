//! Work that waits for a disk, away from the tasks that must not.

use std::io;

use tokio::sync::oneshot;

use crate::worker::Threads;

/// The work ended without an answer: it panicked, or the process is ending.
#[derive(Debug, thiserror::Error)]
#[error("work on another thread ended without an answer")]
pub(crate) struct WorkLost;

impl From<WorkLost> for io::Error {
    fn from(error: WorkLost) -> Self {
        Self::other(error)
    }
}

/// Where such work is done: on threads, or inline when the node has none of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BlockingWork(pub Threads);

impl BlockingWork {
    /// Runs work of milliseconds.
    pub async fn short<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkLost> {
        match self.0 {
            Threads::Own => tokio::task::spawn_blocking(work).await.map_err(|_| WorkLost),
            Threads::Inline { .. } => Ok(work()),
        }
    }

    /// Runs work of seconds or minutes, on a thread of its own. It goes on when nobody waits for it any more.
    pub async fn long<T: Send + 'static>(
        self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if let Threads::Inline { .. } = self.0 {
            return Ok(work());
        }
        let (sender, answer) = oneshot::channel();
        let body = move || {
            // Nobody may be waiting any more.
            let _ = sender.send(work());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(answer.await.map_err(|_| WorkLost)?)
    }
}
