use std::path::PathBuf;
use std::sync::Arc;

use auth_core::ports::AuthStoreError;

use super::layout::FORMAT;
use crate::redb::one_file::FileFault;

/// Why a store of records cannot be opened or asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RedbAuthError {
    /// The path is none of a file in a directory.
    #[error("{} names no file: give the path of a file in a directory that exists", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {name}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        name: String,
        /// What it said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process, or this one, has the file open.
    #[error("{name} is in use by another process: stop it first, or give this one a file of its own")]
    InUse {
        /// The file.
        name: String,
    },
    /// The file is none of this kind.
    #[error("{name} is not a file of identity records: give the path of one, or of a new file")]
    Foreign {
        /// The file.
        name: String,
    },
    /// A newer program wrote the file.
    #[error(
        "{name} has format {found}, this program knows {known}: use the newer program, or restore a backup"
    )]
    Format {
        /// The file.
        name: String,
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// What is in the file is not what was written.
    #[error("{name} is damaged ({reason}): restore a backup")]
    Damaged {
        /// The file.
        name: String,
        /// What was found.
        reason: String,
    },
    /// The disk failed a call. The file is opened anew.
    #[error("{name} could not be read or written: {reason}")]
    Failed {
        /// The file.
        name: String,
        /// What the engine said.
        reason: String,
    },
    /// The disk failed to sync. What it has is unknown, also to who reads it through the page cache.
    #[error("{name} could not be synced: {reason}. Check the disk, then restart the program")]
    NotSynced {
        /// The file.
        name: String,
        /// What the engine said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl RedbAuthError {
    /// Nothing was applied, for this reason.
    pub(super) fn unavailable(self) -> AuthStoreError {
        AuthStoreError::Unavailable { source: Box::new(self) }
    }
}

impl From<FileFault> for RedbAuthError {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::NoFile { path } => Self::NoFile { path },
            FileFault::Io { action, name, source } => Self::Io { action, name, source },
            FileFault::InUse { name } => Self::InUse { name },
            FileFault::Foreign { name } => Self::Foreign { name },
            FileFault::Format { name, found } => Self::Format { name, found, known: FORMAT.version },
            FileFault::Damaged { name, reason } => Self::Damaged { name, reason },
        }
    }
}
