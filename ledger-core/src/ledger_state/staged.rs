use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::ports::{
    AppliedState, ScanRange, StateBatch, StateInstall, StateStore, StateView, StoreError, Table,
};

/// A view in the place of a store, for as long as a state is loaded from it: it is read and never written.
pub(super) struct StagedContent {
    applied: Option<AppliedState>,
    view: Mutex<Box<dyn StateView>>,
}

impl StagedContent {
    pub(super) fn new(view: Box<dyn StateView>) -> Self {
        Self { applied: view.applied().cloned(), view: Mutex::new(view) }
    }

    fn reader(&self) -> MutexGuard<'_, Box<dyn StateView>> {
        // Reading changes nothing, so a panic leaves the view as it was.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for StagedContent {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        Ok(self.applied.clone())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reader().get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.reader().scan(table, range, visit)
    }

    fn commit(&self, _batch: &StateBatch) -> Result<(), StoreError> {
        Err(StoreError::Poisoned)
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        Err(StoreError::Poisoned)
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        Err(StoreError::Poisoned)
    }
}
