use ledger_verify::note::NoteError;

use super::{FORMAT, ROWS_FORMAT};
use crate::codec::CodecError;
use crate::ledger_state::StateError;
use crate::ports::StoreError;

/// A snapshot was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file cannot be written.
    #[error("the snapshot cannot be written: {0}")]
    Io(#[from] std::io::Error),
    /// The header or the trailer does not encode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Something is larger than a reader would take.
    #[error("{what} has {given} bytes; a snapshot holds at most {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its bytes.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// The caller broke it off.
    #[error("the snapshot was broken off")]
    Cancelled,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

/// A snapshot was refused. Nothing of it may be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    Io(std::io::Error),
    /// The file is something else.
    #[error("this is no snapshot of a ledger: it does not begin as one")]
    Foreign,
    /// A newer program wrote it.
    #[error("the snapshot has {what} {found}; this program reads {known}. Use the release that wrote it")]
    Format {
        /// Which version, `format` or `rows of format`.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// The file ends too early.
    #[error("the snapshot ends after {at_byte} bytes, in the middle: take another copy of it")]
    Truncated {
        /// Bytes that are there.
        at_byte: u64,
    },
    /// The file has not the layout of a snapshot.
    #[error("the snapshot is damaged before byte {at_byte} ({what}): take another one")]
    Damaged {
        /// Bytes read when it showed.
        at_byte: u64,
        /// What does not fit.
        what: String,
    },
    /// A length is beyond what a snapshot may hold.
    #[error("the snapshot is refused: {what} has {given} bytes, at most {max} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The length that the file gives.
        given: u64,
        /// The limit.
        max: u64,
    },
    /// The SHA-256 at the end is not that of the content.
    #[error("the snapshot is damaged: its SHA-256 does not match its content. Take another one")]
    Checksum,
    /// Rows contradict each other or the headers.
    #[error(
        "the snapshot contradicts itself: {what}. It was changed, or written by a ledger that was: do not restore it"
    )]
    Inconsistent {
        /// What does not fit.
        what: String,
    },
    /// The content of a vault is not what its headers commit to.
    #[error("vault {vault} of the snapshot is not what its headers commit to: {what}. Do not restore it")]
    Vault {
        /// `NAMESPACE/VAULT`.
        vault: String,
        /// What does not fit.
        what: String,
    },
    /// The checkpoint of a vault is not signed by a key that is trusted.
    #[error("the checkpoint of vault {vault} is refused: {source}")]
    Checkpoint {
        /// `NAMESPACE/VAULT`.
        vault: String,
        /// Why.
        #[source]
        source: NoteError,
    },
    /// A vault has no checkpoint, but keys were given to check it with.
    #[error(
        "vault {vault} of the snapshot has no signed checkpoint: nobody vouches for it. Take a snapshot of a node that signs"
    )]
    Unsigned {
        /// `NAMESPACE/VAULT`.
        vault: String,
    },
    /// Whoever takes the rows failed.
    #[error("the rows cannot be stored: {0}")]
    Sink(#[source] StoreError),
    /// The caller broke it off.
    #[error("reading the snapshot was broken off")]
    Cancelled,
}

impl SnapshotError {
    pub(super) fn inconsistent(what: impl Into<String>) -> Self {
        Self::Inconsistent { what: what.into() }
    }

    pub(super) fn format(found: u32) -> Self {
        Self::Format { what: "format", found, known: FORMAT }
    }

    pub(super) fn rows_format(found: u32) -> Self {
        Self::Format { what: "rows of format", found, known: ROWS_FORMAT }
    }
}
