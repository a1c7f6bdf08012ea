//! Fail-stop: the first fault of a store or of the engine stops the node, and everyone learns which.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// The part of a node that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedPart {
    /// The replicated log.
    LogStore,
    /// The materialised state.
    StateStore,
    /// Applying a committed entry.
    Apply,
    /// The consensus engine.
    Consensus,
    /// A thread of the node ended by a panic.
    Thread,
    /// The ledger's key, which was rotated elsewhere.
    Key,
}

impl fmt::Display for FailedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogStore => "the log store",
            Self::StateStore => "the state store",
            Self::Apply => "applying the log",
            Self::Consensus => "the consensus engine",
            Self::Thread => "a thread of the node",
            Self::Key => "the check of its key",
        })
    }
}

/// Why a node stopped by itself. What reached the disk is unknown: end the process and start it again.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the node stopped because {part} failed: {source}. Restart it; if it fails again, restore it from a backup"
)]
pub struct NodeFailure {
    /// What failed.
    pub part: FailedPart,
    /// How.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
}

/// Remembers the first failure and wakes those who wait for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailureCell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    failure: OnceLock<NodeFailure>,
    reported: Notify,
}

impl FailureCell {
    /// Records a failure; only the first counts.
    pub fn report(&self, part: FailedPart, source: SharedError) {
        let failure = NodeFailure { part, source };
        tracing::error!(error = %failure, "the node stops");
        if self.0.failure.set(failure).is_ok() {
            self.0.reported.notify_waiters();
        }
    }

    /// The failure, if there was one.
    pub fn get(&self) -> Option<&NodeFailure> {
        self.0.failure.get()
    }

    /// Resolves at the first failure, or at once when it has happened.
    pub async fn wait(&self) -> NodeFailure {
        loop {
            let reported = self.0.reported.notified();
            if let Some(failure) = self.0.failure.get() {
                return failure.clone();
            }
            reported.await;
        }
    }
}

/// An error that several parties learn of.
pub(crate) type SharedError = Arc<dyn Error + Send + Sync>;

pub(crate) fn shared<E: Error + Send + Sync + 'static>(error: E) -> SharedError {
    Arc::new(error)
}

/// A fault that is only a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(pub String);

impl Fault {
    pub fn shared(text: impl Into<String>) -> SharedError {
        Arc::new(Self(text.into()))
    }
}

/// Reports a panic in whatever holds it while it runs.
pub(crate) struct PanicReport(pub FailureCell);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.report(FailedPart::Thread, Fault::shared("it panicked"));
        }
    }
}
