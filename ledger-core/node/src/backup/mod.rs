//! Backups: a folder of files that a manifest lists, filled from a running node or from a data directory, verified and
//! restored without either.

mod accept;
mod failure;
mod folder;
mod manifest;
mod offline;
mod plan;
mod restore;
mod source;
mod verify;

pub use failure::BackupFailure;
pub use folder::{BackupFolder, BackupWriter, FileFault, Staged, StagedFile};
pub use manifest::{BackupFile, FileKind, Manifest, ManifestError};
pub use offline::OfflineSource;
pub use plan::{CoveredRange, RestorePlan, RestorePoint};
pub use restore::{RestoredBackup, RestoredVault, restore_backup};
pub(crate) use source::BACKUPS_AT_ONCE;
pub use source::{BackupChunks, CHUNK_BYTES};
pub use verify::{BackupReport, verify_backup, verify_chain};
