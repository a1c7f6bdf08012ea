use ledger_verify::note::NoteError;

use super::increment::FORMAT;
use crate::codec::CodecError;
use crate::ledger_state::StateError;
use crate::names::VaultId;
use crate::ports::StoreError;
use crate::snapshot::SnapshotError;

/// A part of a backup was not made, or is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The ledger does not hold any more what the increment would need: make a base.
    #[error("the backup cannot go on from entry {after}: {why}. A new base is needed")]
    NeedsBase {
        /// Index that it would have to go on from.
        after: u64,
        /// What is missing.
        why: String,
    },
    /// The ledger is older than the backup.
    #[error(
        "the ledger has applied entry {applied}, the backup goes up to {after}: this is an earlier state of the ledger, or \
         another history. Back it up into a directory of its own"
    )]
    Behind {
        /// Index that the backup goes up to.
        after: u64,
        /// Index that the ledger has applied.
        applied: u64,
    },
    /// A vault is fenced: what is stored of it is not what it should be.
    #[error(
        "vault {vault} is fenced: recover it (`strongroom ledger recover {vault}`), or back up from another member of the \
         cluster"
    )]
    Fenced {
        /// `NAMESPACE/VAULT`.
        vault: String,
    },
    /// The state cannot be read or continued.
    #[error(transparent)]
    State(#[from] StateError),
    /// A row or a header does not encode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The file cannot be read or written.
    #[error("the backup cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The base was refused.
    #[error(transparent)]
    Base(SnapshotError),
    /// The file is something else.
    #[error("this is no increment of a backup: it does not begin as one")]
    Foreign,
    /// A newer program wrote it.
    #[error("the increment has format {found}; this program reads {FORMAT}. Use the release that wrote it")]
    Format {
        /// The version found.
        found: u32,
    },
    /// The file ends too early.
    #[error("the increment ends after {at_byte} bytes, in the middle: take another copy of it")]
    Truncated {
        /// Bytes that are there.
        at_byte: u64,
    },
    /// The file has not the layout of an increment.
    #[error("the increment is damaged before byte {at_byte} ({what}): take another copy of it")]
    Damaged {
        /// Bytes read when it showed.
        at_byte: u64,
        /// What does not fit.
        what: String,
    },
    /// A length is beyond what a file may hold.
    #[error("the increment is refused: {what} has {given} bytes, at most {max} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The length given.
        given: u64,
        /// The limit.
        max: u64,
    },
    /// The SHA-256 at the end is not that of the content.
    #[error("the increment is damaged: its SHA-256 does not match its content. Take another copy of it")]
    Checksum,
    /// Records contradict each other, the header, or the files before.
    #[error("the backup contradicts itself: {what}. It was changed, or made of a ledger that was")]
    Inconsistent {
        /// What does not fit.
        what: String,
    },
    /// The blocks of a vault are not what its headers commit to.
    #[error("vault {vault} of the backup is not what its headers commit to: {what}")]
    Vault {
        /// `NAMESPACE/VAULT`.
        vault: String,
        /// What does not fit.
        what: String,
    },
    /// The history is another one than that of the backup or of a checkpoint.
    #[error("FORK of vault {vault}: {what}. Keep both as evidence")]
    Fork {
        /// `NAMESPACE/VAULT`, or its id.
        vault: String,
        /// What contradicts what.
        what: String,
    },
    /// The backup does not reach a checkpoint that it should extend.
    #[error(
        "the backup does not reach checkpoint {name}: it has {held} blocks of vault {vault}, the checkpoint covers {size}. A \
         newer backup, or the ledger, has the rest"
    )]
    Short {
        /// What the checkpoint is called.
        name: String,
        /// `NAMESPACE/VAULT`.
        vault: String,
        /// Blocks in the backup.
        held: u64,
        /// Blocks under the checkpoint.
        size: u64,
    },
    /// A checkpoint is about a vault that the backup does not hold.
    #[error("checkpoint {name} is about vault {vault}, which the backup does not hold")]
    UnknownVault {
        /// What the checkpoint is called.
        name: String,
        /// The vault.
        vault: VaultId,
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
    #[error("vault {vault} of the backup has no signed checkpoint: nobody vouches for it")]
    Unsigned {
        /// `NAMESPACE/VAULT`.
        vault: String,
    },
    /// Between two points that can be restored lies one that cannot.
    #[error(
        "entry {index} cannot be restored: vault {vault} was deleted at entry {deleted_at} before its last blocks came into a \
         backup. Take a point up to {after} or from {deleted_at}"
    )]
    Lost {
        /// The entry asked for.
        index: u64,
        /// `NAMESPACE/VAULT`.
        vault: String,
        /// The last entry before the gap.
        after: u64,
        /// The first entry after the gap.
        deleted_at: u64,
    },
    /// The caller broke it off.
    #[error("the backup was broken off")]
    Cancelled,
}

impl BackupError {
    pub(super) fn inconsistent(what: impl Into<String>) -> Self {
        Self::Inconsistent { what: what.into() }
    }

    /// A fault of the frames, which increments have in common with snapshots.
    pub(super) fn of_frames(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => Self::Io(error),
            SnapshotError::Truncated { at_byte } => Self::Truncated { at_byte },
            SnapshotError::Damaged { at_byte, what } => Self::Damaged { at_byte, what },
            SnapshotError::TooLarge { what, given, max } => Self::TooLarge { what, given, max },
            SnapshotError::Checksum => Self::Checksum,
            other => Self::Base(other),
        }
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Cancelled => Self::Cancelled,
            other => Self::Base(other),
        }
    }
}
