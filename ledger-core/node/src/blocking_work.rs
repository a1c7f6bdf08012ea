//! Work that waits for a disk, away from the tasks that must not.

use std::io;

use tokio::sync::oneshot;

/// The work ended without an answer: it panicked, or the process is ending.
#[derive(Debug, thiserror::Error)]
#[error("work on another thread ended without an answer")]
pub(crate) struct WorkLost;

/// Runs work of milliseconds.
pub(crate) async fn short<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkLost> {
    tokio::task::spawn_blocking(work).await.map_err(|_| WorkLost)
}

/// Runs work of seconds or minutes on a thread of its own. It goes on when nobody waits for it any more.
pub(crate) async fn long<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Result<T, WorkLost>> {
    let (sender, answer) = oneshot::channel();
    let body = move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(answer.await.map_err(|_| WorkLost))
}
