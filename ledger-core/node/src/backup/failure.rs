use std::io;
use std::path::PathBuf;

use ledger_core::backup::BackupError;
use ledger_core::names::{LedgerId, VaultRef};
use ledger_core::ports::StoreError;

use super::folder::FileFault;
use super::manifest::ManifestError;
use super::plan::{CoveredRange, RestorePoint};
use crate::directory::DirectoryError;
use crate::snapshots::{RestoreError, SnapshotFailure};

/// A backup was not made, verified or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupFailure {
    /// The folder holds no backup.
    #[error("{path} holds no backup: it has no manifest")]
    NoBackup {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("{path} holds {found}, but no backup: give a folder that is empty, missing, or holds a backup")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The folder is a part of a data directory: it would be lost with it.
    #[error("{path} is in the data directory {data}: give a folder elsewhere, on another disk or machine")]
    InDataDirectory {
        /// The folder.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// Another process writes into the folder.
    #[error("{path} is in use: another backup is being written into it")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The manifest is none.
    #[error("the manifest in {path} is refused: {source}")]
    Manifest {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// The backup is of another ledger.
    #[error(
        "the folder holds a backup of ledger {folder}; this is ledger {ledger}: give it a folder of its own"
    )]
    OtherLedger {
        /// Whose backup it is.
        folder: LedgerId,
        /// The ledger.
        ledger: LedgerId,
    },
    /// A file was refused.
    #[error("{file}: {source}")]
    File {
        /// Its name.
        file: String,
        /// Why.
        source: BackupError,
    },
    /// A file is not the one that the manifest lists.
    #[error("{file} is not the file that the manifest lists ({what}): take another copy of the backup")]
    OtherFile {
        /// Its name.
        file: String,
        /// What differs.
        what: &'static str,
    },
    /// The part could not be made.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The beginning of a snapshot failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailure),
    /// There is no such snapshot.
    #[error("this node has no snapshot of entry {index}: have it write one, then try again")]
    NoSnapshot {
        /// Index of its last entry.
        index: u64,
    },
    /// As many backups are read as may be at once.
    #[error("another backup is being read from this node: wait for it")]
    InProgress,
    /// The reader took nothing for too long.
    #[error("the backup was broken off: its reader took nothing for {seconds} seconds")]
    Stalled {
        /// How long.
        seconds: u64,
    },
    /// The node stops.
    #[error("the node stops: the backup was broken off")]
    Stopped,
    /// What was received is not whole.
    #[error("what was received is not whole: its SHA-256 does not match. Try again")]
    NotWhole,
    /// No chain covers the point.
    #[error("the backup does not cover {asked}: it covers {}", ranges(covered))]
    NotCovered {
        /// What was asked for.
        asked: RestorePoint,
        /// What can be restored.
        covered: Vec<CoveredRange>,
    },
    /// A file that the point needs is not there.
    #[error("{file} is {fault}: {asked} needs it. What can be restored is {}", ranges(covered))]
    Broken {
        /// Its name.
        file: String,
        /// What is wrong.
        fault: FileFault,
        /// What was asked for.
        asked: RestorePoint,
        /// What can be restored.
        covered: Vec<CoveredRange>,
    },
    /// There is no such vault.
    #[error("the backup does not hold vault {vault}")]
    UnknownVault {
        /// The vault.
        vault: VaultRef,
    },
    /// The base was not restored.
    #[error("{file}: {source}")]
    Restore {
        /// Its name.
        file: String,
        /// Why.
        source: RestoreError,
    },
    /// The stores to restore into fail.
    #[error("what is restored cannot be stored: {0}")]
    Store(#[from] StoreError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file system failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BackupFailure {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// The fault of a part, if it is one.
    pub fn part(&self) -> Option<&BackupError> {
        match self {
            Self::File { source, .. } | Self::Backup(source) => Some(source),
            _ => None,
        }
    }
}

fn ranges(covered: &[CoveredRange]) -> String {
    if covered.is_empty() {
        return "nothing".to_owned();
    }
    let ranges: Vec<String> = covered.iter().map(ToString::to_string).collect();
    ranges.join(", ")
}
