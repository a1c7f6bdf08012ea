//! Snapshots of a node: written beside its work, kept in a folder, restored into an empty directory.

mod folder;
mod maker;
mod restore;

pub use folder::{SnapshotFolder, StoredSnapshot};
pub use maker::{SnapshotFailure, SnapshotWork};
pub(crate) use maker::{SnapshotMaker, SnapshotMakerParts};
pub use restore::{RestoreError, restore_snapshot};

pub use crate::directory::RestoreTarget;
