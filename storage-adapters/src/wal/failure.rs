use std::io;
use std::path::PathBuf;

use ledger_core::ports::StoreError;

/// Why a write-ahead log could not be opened or written: the source of a [`StoreError::Engine`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The operating system refused.
    #[error("cannot {action} {name} of raft.wal: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file; `the directory` for the directory itself.
        name: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The operating system refused something about the log's directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process, or this one, has the log open.
    #[error("{} is in use by another process. Stop it first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is a log already where an import would make one.
    #[error("{} exists: an import makes a new log only. Move it away first", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has no segment.
    #[error("raft.wal has no segment: its content was lost. Restore this node from a backup or a peer")]
    Empty,
    /// A segment that the log needs is not there.
    #[error("segment {segment} of raft.wal is missing. Restore this node from a backup or a peer")]
    MissingSegment {
        /// Its number.
        segment: u64,
    },
    /// A segment is shorter or longer than it was made.
    #[error(
        "segment {segment} of raft.wal has {found} bytes instead of {expected}. Restore this node from a backup or a peer"
    )]
    WrongLength {
        /// Its number.
        segment: u64,
        /// Its length in bytes.
        found: u64,
        /// The length it was made with.
        expected: u64,
    },
    /// A segment of another log.
    #[error("segment {segment} of raft.wal belongs to another log: it was copied here from elsewhere")]
    Foreign {
        /// Its number.
        segment: u64,
    },
    /// A batch whose encoded form cannot be counted in 32 bits.
    #[error("a batch of {bytes} bytes is too large for the log: commit fewer records at a time")]
    BatchTooLarge {
        /// The bytes it would need.
        bytes: u64,
    },
    /// The options make no sense.
    #[error("a segment of {found} bytes is too small: at least {least}")]
    SegmentTooSmall {
        /// The bytes asked for.
        found: u64,
        /// The least that is possible.
        least: u64,
    },
    /// The copy of a log is not what was copied.
    #[error("the imported log differs from its source at record {index}: nothing was changed. Try again")]
    ImportDiffers {
        /// Index of the first record that differs; the end of the log when it is none of them.
        index: u64,
    },
    /// The operating system gave no random bytes.
    #[error("cannot draw an id for the log: {source}")]
    Random {
        /// What it said.
        #[source]
        source: getrandom::Error,
    },
}

impl WalError {
    pub(super) fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let name = name.to_owned();
        move |source| Self::Io { action, name, source }
    }

    pub(super) fn into_store_error(self, action: &'static str) -> StoreError {
        StoreError::Engine { action, source: Box::new(self) }
    }

    /// Whether the disk or the quota is full: the one failure after which a new file may be tried again.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The bytes at this place are not what was written there.
pub(super) fn corrupt(segment: u64, offset: u64) -> StoreError {
    StoreError::Corrupt { table: "raft.wal", key: format!("at segment {segment}, offset {offset}") }
}
