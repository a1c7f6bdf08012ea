//! Threads over which the connections of a listener are spread.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads with a runtime of their own each. A connection stays on the thread that it was given: its requests wake
/// nobody else, which costs less than threads that steal work from each other.
///
/// Dropping it ends the threads, and what still runs on them.
#[derive(Debug)]
pub struct ServingThreads {
    handles: Vec<Handle>,
    _alive: Vec<oneshot::Sender<()>>,
}

impl ServingThreads {
    /// Starts `count` threads, at least one, named `name`.
    ///
    /// # Errors
    /// The operating system has no more threads or descriptors.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        let (mut handles, mut alive) = (Vec::new(), Vec::new());
        for _ in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let (sender, ended) = oneshot::channel::<()>();
            alive.push(sender);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                // Nothing is ever sent: the sender goes.
                let _ = runtime.block_on(ended);
            })?;
        }
        Ok(Self { handles, _alive: alive })
    }

    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}
