//! Storage ports: what the engine asks of a disk. Each trait has a numbered contract; the suites in
//! `conformance` (a feature) hold every implementation to it.

mod log_extent;
mod log_store;
mod state_install;
mod state_store;
mod state_view;

pub use log_extent::LogExtent;
pub use log_store::{LogChange, LogId, LogKind, LogRecord, LogSnapshot, LogStore, SignedMark, StoredVote};
pub use state_install::{InstallOrder, StateInstall};
pub use state_store::{AppliedState, RowChange, ScanRange, StateBatch, StateStore, Table};
pub use state_view::StateView;

/// A storage engine failed. Whoever gets it must stop writing: what reached the disk is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine or the operating system reported an error.
    #[error("storage failed while it tried to {action}: {source}")]
    Engine {
        /// What was tried, such as `commit the log`.
        action: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row's checksum does not match: the disk returned something that was never written.
    #[error(
        "{table} row {key} is corrupt: its checksum does not match. Restore this node from a backup or a peer"
    )]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key, hexadecimal.
        key: String,
    },
    /// A stored row or file has a format that this program does not know.
    #[error(
        "{what} has format version {found}; this program reads version {known}. Use the release that wrote it"
    )]
    Format {
        /// What was opened.
        what: String,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// The store refused an earlier write and takes no more (see the log for the first error).
    #[error("storage failed before and takes no more writes until the process restarts")]
    Poisoned,
}

/// Why a store refused a batch before it wrote anything: the source of a [`StoreError::Engine`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchRefused {
    /// An append would leave a hole in the log, or write over a record.
    #[error("record {found} cannot be appended: the next record is {expected}")]
    NotNext {
        /// The index that the log takes next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// The rows of a batch do not ascend by table and key.
    #[error("row {position} of the batch, of table {table}, does not come after the row before it")]
    Unordered {
        /// Its place in the batch, from 0.
        position: usize,
        /// Its table.
        table: &'static str,
    },
    /// A row of new content is to be deleted, which it cannot hold.
    #[error("row {position} of the new content, of table {table}, has no value")]
    Deletion {
        /// Its place among the rows that were given together, from 0.
        position: usize,
        /// Its table.
        table: &'static str,
    },
    /// Another replacement of the content is under way.
    #[error("the content is being replaced already: wait for that to end")]
    InstallUnderWay,
    /// New content was given a row, or was sealed, after it was sealed; or it was shown or published before.
    #[error("new content takes rows until it is sealed, and is shown and published afterwards")]
    InstallOutOfTurn,
}
