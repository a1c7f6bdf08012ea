//! What someone with access to the disk can do: rewrite a row, checksum and all.

use std::path::Path;

use bytes::Bytes;
use ledger_core::ports::{RowChange, ScanRange, StateBatch, StateStore, Table};
use storage_adapters::redb::{RedbOptions, RedbStateStore};

use super::failed;
use crate::failure::Failure;

/// Bytes of the vault's number before the key, in a row of entities (docs/formats.md).
const VAULT_NUMBER_BYTES: usize = 8;

/// Changes the last byte of a stored entity through the store, so that no checksum of the storage engine can
/// notice. `row` is what the entity's row holds. Returns what it holds now.
pub fn change_one_byte(directory: &Path, key: &str, row: &[u8]) -> Result<Vec<u8>, Failure> {
    let state = RedbStateStore::open(directory, RedbOptions::default()).map_err(|error| failed(&error))?;
    let row_key = row_key_of(&state, key, row)?;
    let mut changed = row.to_vec();
    if let Some(last) = changed.last_mut() {
        *last ^= 0x01;
    }
    let applied = state.applied().map_err(|error| failed(&error))?;
    let applied = applied.ok_or_else(|| Failure::error("the copy is empty"))?;
    let change =
        RowChange { table: Table::Entities, key: row_key, value: Some(Bytes::from(changed.clone())) };
    let batch = StateBatch { dropped_vaults: Vec::new(), rows: vec![change], applied };
    state.commit(&batch).map_err(|error| failed(&error))?;
    Ok(changed)
}

/// The key of the one row with this entity key and content.
fn row_key_of(state: &dyn StateStore, key: &str, row: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    let mut visit = |row_key: &[u8], content: &[u8]| {
        if row_key.get(VAULT_NUMBER_BYTES..) == Some(key.as_bytes()) && content == row {
            found.push(row_key.to_vec());
        }
        true
    };
    state.scan(Table::Entities, &everything, &mut visit).map_err(|error| failed(&error))?;
    match (found.pop(), found.is_empty()) {
        (Some(row_key), true) => Ok(row_key),
        (Some(_), false) => {
            Err(Failure::error(format!("two vaults hold the same row {key}: name another record with --key")))
        }
        (None, _) => Err(Failure::error(format!("the row of {key} was not found in the copy"))),
    }
}
