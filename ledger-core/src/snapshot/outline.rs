//! The header of a snapshot, taken from the view whose rows follow it.

use ledger_verify::Hash;
use ledger_verify::hash::log_leaf;
use ledger_verify::header::BlockHeader;

use super::{Header, VaultEntry};
use crate::codec;
use crate::ledger_state::{StateError, inconsistent};
use crate::log_tree::{LogTree, TILE_WIDTH, TileSource};
use crate::names::{LedgerId, VaultNumber};
use crate::ports::{ScanRange, StateView, StoreError, Table};
use crate::rows::{self, LedgerRow, VaultRow};

/// The ledger whose rows a view shows.
///
/// # Errors
///
/// When the view cannot be read or holds no ledger.
pub fn ledger_id(view: &dyn StateView) -> Result<LedgerId, StateError> {
    let row = view.get(Table::Ledger, rows::LEDGER_KEY)?.ok_or(StateError::NotInitialised)?;
    Ok(codec::decode::<LedgerRow>("the ledger row", &row)?.ledger_id)
}

/// The header of a snapshot of `view`, without checkpoints: whoever can sign adds them.
///
/// # Errors
///
/// When the view cannot be read, holds no ledger, or lacks blocks of its vaults.
pub fn outline(view: &dyn StateView, created_at_ms: u64) -> Result<Header, StateError> {
    let ledger_id = ledger_id(view)?;
    let applied = view.applied().ok_or(StateError::NotInitialised)?;
    let mut alive = Vec::new();
    let mut outcome = Ok(());
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    view.scan(Table::Vaults, &everything, &mut |key, row| {
        outcome = decode_vault(key, row).map(|(number, row)| {
            if row.deleted_at_ms.is_none() {
                alive.push((number, row));
            }
        });
        outcome.is_ok()
    })?;
    outcome?;
    let vaults = alive.into_iter().map(|(number, row)| entry(view, number, row)).collect::<Result<_, _>>()?;
    Ok(Header {
        ledger_id,
        created_at_ms,
        applied: applied.last_applied,
        membership: applied.membership.to_vec(),
        vaults,
    })
}

fn decode_vault(key: &[u8], row: &[u8]) -> Result<(VaultNumber, VaultRow), StateError> {
    let number = <[u8; 8]>::try_from(key).map_err(|_| inconsistent("a vault row has no valid number"))?;
    Ok((VaultNumber(u64::from_be_bytes(number)), rows::decode_vault(row)?.0))
}

fn entry(view: &dyn StateView, number: VaultNumber, row: VaultRow) -> Result<VaultEntry, StateError> {
    let label = format!("{}/{}", row.namespace, row.name);
    let tip = BlockHeader::decode(&row.header).map_err(|error| {
        inconsistent(format!("the newest header of vault {label} does not decode: {error}"))
    })?;
    let fenced = view.get(Table::Fenced, &rows::vault_prefix(number))?.is_some();
    let log_root = match log_root(view, number, &label, tip.height + 1) {
        // A fenced vault is carried as it is, readable or not.
        Err(_) if fenced => ledger_verify::hash::log_empty(),
        root => root?,
    };
    Ok(VaultEntry {
        number: number.0,
        id: row.id,
        namespace: row.namespace,
        name: row.name,
        header: row.header,
        log_root,
        checkpoint: None,
        fenced,
    })
}

/// The root over the first `size` headers, from full tiles and the headers after them.
fn log_root(view: &dyn StateView, number: VaultNumber, label: &str, size: u64) -> Result<Hash, StateError> {
    let first = size - size % TILE_WIDTH as u64;
    let mut tail = Vec::new();
    for height in first..size {
        let header = view.get(Table::Blocks, &rows::header_key(number, height))?;
        let header = header.ok_or_else(|| inconsistent(format!("vault {label} has no block {height}")))?;
        tail.push(log_leaf(&header));
    }
    let log = LogTree::restore(size, &ViewTiles { view, number }, &tail)
        .map_err(|error| inconsistent(format!("the log of vault {label} cannot be read: {error}")))?;
    Ok(log.root())
}

struct ViewTiles<'a> {
    view: &'a dyn StateView,
    number: VaultNumber,
}

impl TileSource for ViewTiles<'_> {
    type Error = StoreError;

    fn tile(&self, level: u8, number: u64) -> Result<Vec<Hash>, StoreError> {
        let key = rows::tile_key(self.number, level, number);
        let row = self.view.get(Table::Tiles, &key)?;
        row.as_deref().and_then(rows::decode_tile).ok_or_else(|| StoreError::Corrupt {
            table: Table::Tiles.name(),
            key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}
