use std::path::Path;
use std::sync::Arc;

use ledger_core::ports::{LogSnapshot, LogStore, StoreError};

use super::failure::OpenError;
use super::file::refuse_gaps;
use super::format::FileKind;
use super::log_store::RedbLogStore;
use super::options::RedbOptions;
use super::state_store::RedbStateStore;

/// The stores of one node, in one directory.
#[derive(Debug, Clone)]
pub struct RedbStores {
    /// `raft.db`.
    pub log: Arc<RedbLogStore>,
    /// `state.db` and `blocks.db`.
    pub state: Arc<RedbStateStore>,
}

impl RedbStores {
    /// Opens the three files in `dir`, which must exist; makes those of a new directory.
    ///
    /// # Errors
    ///
    /// As [`RedbLogStore::open`]; also when a file is missing although another has content: a new
    /// file in its place would forget votes or blocks.
    pub fn open(dir: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        refuse_gaps(dir, &[FileKind::Raft, FileKind::Blocks, FileKind::State])?;
        let state_is_missing = !dir.join(FileKind::State.file_name()).exists();
        let log = RedbLogStore::open(dir, options)?;
        // The state's files are made with the log's, before anything is written to any of them.
        if state_is_missing && log.snapshot()? != LogSnapshot::default() {
            return Err(OpenError::missing(dir, FileKind::State, FileKind::Raft).into_store_error());
        }
        let state = RedbStateStore::open(dir, options)?;
        Ok(Self { log: Arc::new(log), state: Arc::new(state) })
    }
}
