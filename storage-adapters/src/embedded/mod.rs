//! The storage of one node in one directory: the log in `raft.wal`, the state in redb.

#[cfg(feature = "node")]
mod ledger;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ledger_core::ports::{LogSnapshot, LogStore, StoreError};

use crate::redb::{RedbLogStore, RedbOptions, RedbStateStore};
use crate::wal::{self, WalDirectory, WalLogStore, WalOptions};

#[cfg(feature = "node")]
pub use ledger::{OpenLedgerError, open_ledger};

/// The log of data format 1.
const FORMER_LOG: &str = "raft.db";
const STATE: &str = "state.db";
const BLOCKS: &str = "blocks.db";
const OPEN: &str = "open the stores";

/// The stores of one node, in one directory.
#[derive(Debug, Clone)]
pub struct EmbeddedStores {
    /// `raft.wal`.
    pub log: Arc<WalLogStore>,
    /// `state.db` and `blocks.db`.
    pub state: Arc<RedbStateStore>,
}

/// Part of a directory's content is gone.
#[derive(Debug, thiserror::Error)]
#[error(
    "{missing} is missing in the data directory while {present} has content. Restore this node from a backup or a peer"
)]
struct PartMissing {
    missing: &'static str,
    present: &'static str,
}

impl PartMissing {
    fn into_store_error(self) -> StoreError {
        StoreError::Engine { action: OPEN, source: Box::new(self) }
    }
}

impl EmbeddedStores {
    /// Opens what is in `dir`, which must exist; makes the parts of a new directory. A `raft.db` of data format 1 is
    /// copied into `raft.wal`, and removed once that is durable.
    ///
    /// # Errors
    ///
    /// When a part is damaged, of a newer format or in use; also when one is missing although another has content: a
    /// new one in its place would forget votes or blocks.
    pub fn open(dir: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
        let state_is_missing = !is_there(STATE);
        if !WalDirectory::is_in(dir) {
            if is_there(FORMER_LOG) {
                wal::import(&RedbLogStore::open(dir, options)?, dir, WalOptions::default())?;
            } else if let Some(present) = [STATE, BLOCKS].into_iter().find(|name| is_there(name)) {
                return Err(PartMissing { missing: wal::DIRECTORY, present }.into_store_error());
            }
        }
        if is_there(FORMER_LOG) {
            remove_former_log(dir)?;
        }
        let log = WalLogStore::open(dir, WalOptions::default())?;
        // The state's files are made with the log, before anything is written to any of them.
        if state_is_missing && log.snapshot()? != LogSnapshot::default() {
            return Err(PartMissing { missing: STATE, present: wal::DIRECTORY }.into_store_error());
        }
        let state = RedbStateStore::open(dir, options)?;
        Ok(Self { log: Arc::new(log), state: Arc::new(state) })
    }
}

/// `raft.wal` is whole: a log that goes on without the other one would make that one's content wrong.
fn remove_former_log(dir: &Path) -> Result<(), StoreError> {
    let failed = |source: std::io::Error| StoreError::Engine {
        action: "remove raft.db, which raft.wal replaces",
        source: Box::new(source),
    };
    std::fs::remove_file(dir.join(FORMER_LOG)).map_err(failed)?;
    File::open(dir).and_then(|directory| directory.sync_all()).map_err(failed)
}
