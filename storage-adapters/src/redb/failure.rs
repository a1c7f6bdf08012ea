//! From what redb reports, panics included, to what the ports promise.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ledger_core::ports::{BatchRefused, StoreError};

use super::format::FileKind;

/// Why a database file was not opened: the source of a [`StoreError::Engine`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is a directory or a device.
    #[error("{} is not a regular file. Move it away, or point to another data directory", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file has no content, and a file of ours is never empty.
    #[error("{} is empty: its content was lost. Restore this node from a backup or a peer", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// Another process, or this one, has the file open.
    #[error("{} is in use by another process. Stop it first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// redb cannot read the file.
    #[error("{} is not a readable database ({reason}). Restore this node from a backup or a peer", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What redb said.
        reason: String,
    },
    /// The file is a database, but not the one that belongs here.
    #[error("{} is not a {expected} of this program: it was copied here from elsewhere", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// The file that belongs there.
        expected: &'static str,
    },
    /// The file has an older format.
    #[error(
        "{} has format {found}; this program works with format {}. Start the server on it once: it copies the \
         directory and brings it up to date", path.display(), super::format::FORMAT_VERSION
    )]
    OlderFormat {
        /// The path.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// One of the three files is gone while another has content.
    #[error("{} is missing while {present} has content. Restore this node from a backup or a peer", path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// A file that is there.
        present: &'static str,
    },
}

impl OpenError {
    pub(super) fn missing(dir: &Path, missing: FileKind, present: FileKind) -> Self {
        Self::Missing { path: dir.join(missing.file_name()), present: present.file_name() }
    }

    pub(super) fn into_store_error(self) -> StoreError {
        StoreError::Engine { action: "open the stores", source: Box::new(self) }
    }
}

/// redb panicked, as it may on a damaged file: the source of a [`StoreError::Engine`].
#[derive(Debug, thiserror::Error)]
#[error(
    "the storage engine panicked: {message}. The file may be damaged: restore this node from a backup or a peer"
)]
struct EnginePanic {
    message: String,
}

/// What went wrong inside a [`guarded`] call.
#[derive(Debug)]
pub(super) enum Failure {
    Redb(::redb::Error),
    Open(OpenError),
    Refused(BatchRefused),
    Random(getrandom::Error),
    Store(StoreError),
}

macro_rules! failure_from {
    ($($source:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$source> for Failure {
            fn from(error: $source) -> Self {
                Self::$variant(error.into())
            }
        })+
    };
}

failure_from! {
    ::redb::StorageError => Redb,
    ::redb::TableError => Redb,
    ::redb::TransactionError => Redb,
    ::redb::CommitError => Redb,
    ::redb::CursorError => Redb,
    ::redb::SetDurabilityError => Redb,
    OpenError => Open,
    BatchRefused => Refused,
    getrandom::Error => Random,
    StoreError => Store,
}

impl Failure {
    fn into_store_error(self, action: &'static str) -> StoreError {
        let source: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::Store(error) => return error,
            Self::Redb(error) => Box::new(error),
            Self::Open(error) => Box::new(error),
            Self::Refused(error) => Box::new(error),
            Self::Random(error) => Box::new(error),
        };
        StoreError::Engine { action, source }
    }
}

/// Runs `work`, and makes of everything that can go wrong in it a [`StoreError`]. Whoever calls it
/// uses nothing that `work` may have left half-done: a failed write ends all writes, and a read leaves
/// nothing behind.
pub(super) fn guarded<T>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|failure| failure.into_store_error(action)),
        Err(payload) => {
            let message = panic_message(payload.as_ref());
            Err(StoreError::Engine { action, source: Box::new(EnginePanic { message }) })
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
