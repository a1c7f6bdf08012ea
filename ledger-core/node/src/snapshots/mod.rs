//! Snapshots of a node: written beside its work, kept in a folder, restored into an empty directory, and sent to peers
//! that the log does not reach any more.

mod desk;
mod exchange;
mod folder;
mod incoming;
mod install;
mod maker;
mod receiver;
mod restore;
mod sender;

pub(crate) use desk::SnapshotDesk;
pub(crate) use exchange::{ExchangeError, ExpectedBlock, RepairOrder};
pub use folder::{SnapshotFolder, StoredSnapshot};
pub(crate) use install::{InstallError, Installer, PreparedSnapshot};
pub use maker::{SnapshotFailure, SnapshotWork};
pub(crate) use maker::{SnapshotMaker, SnapshotMakerParts};
pub(crate) use receiver::{SnapshotReceiver, SnapshotTaker};
pub use restore::{RestoreError, restore_snapshot};

pub(crate) use sender::{SendError, SnapshotPeer, SnapshotToSend, send};

pub use crate::directory::RestoreTarget;
