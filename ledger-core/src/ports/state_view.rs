use bytes::Bytes;

use super::StoreError;
use super::state_store::{AppliedState, ScanRange, Table};

/// The content of a [`StateStore`](super::StateStore) at one moment, whatever is committed later (its G8).
///
/// It holds space in the store for as long as it lives: what is overwritten meanwhile is kept for it.
pub trait StateView: Send {
    /// How far the content goes; `None` for an empty store.
    fn applied(&self) -> Option<&AppliedState>;

    /// One row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Rows of a range in ascending key order, handed to `visit` until it returns `false`.
    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}
