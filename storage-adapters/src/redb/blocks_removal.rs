//! What is left to do in `blocks.db` when vaults are dropped or rows are deleted from append-only tables.
//!
//! A vault's blocks must not go before `state.db` says that they may: after a crash between the two the
//! node would find a vault without blocks that it still counts on. So they go afterwards, and `state.db`
//! remembers, from the transaction that drops them to the next, what to remove; opening the store
//! finishes what a crash left undone.

use ledger_core::ports::{StateBatch, Table};

use super::log_row::Fields;

/// Set in a table's number when the key after it is deleted, not kept.
const DELETED: u8 = 0x80;

/// What leaves `blocks.db`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BlocksRemoval {
    /// Vaults whose rows all go.
    pub(super) vaults: Vec<u64>,
    /// Keys of these vaults that stay because the same batch wrote them.
    pub(super) kept: Vec<(u8, Vec<u8>)>,
    /// Single rows that go.
    pub(super) deleted: Vec<(u8, Vec<u8>)>,
}

impl BlocksRemoval {
    /// `None` when nothing goes.
    pub(super) fn of(batch: &StateBatch) -> Option<Self> {
        let dropped =
            |key: &[u8]| batch.dropped_vaults.iter().any(|vault| key.starts_with(&vault.to_be_bytes()));
        let mut removal = Self { vaults: batch.dropped_vaults.clone(), ..Self::default() };
        for row in batch.rows.iter().filter(|row| row.table.is_append_only()) {
            let name = || (row.table as u8, row.key.clone());
            match row.value {
                Some(_) if dropped(&row.key) => removal.kept.push(name()),
                Some(_) => {}
                None => removal.deleted.push(name()),
            }
        }
        (!removal.vaults.is_empty() || !removal.deleted.is_empty()).then_some(removal)
    }

    pub(super) fn keeps(&self, table: Table, key: &[u8]) -> bool {
        self.kept.iter().any(|(kept_table, kept_key)| *kept_table == table as u8 && kept_key == key)
    }

    /// Keys of single rows that go from a table.
    pub(super) fn deleted_from(&self, table: Table) -> impl Iterator<Item = &[u8]> {
        self.deleted.iter().filter(move |(number, _)| *number == table as u8).map(|(_, key)| key.as_slice())
    }

    /// Number of vaults (u32), the vaults (u64 each), then for each kept and each deleted key table (u8,
    /// the highest bit set when deleted), length (u32), key.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = count(self.vaults.len()).to_vec();
        value.extend(self.vaults.iter().flat_map(|vault| vault.to_be_bytes()));
        let kept = self.kept.iter().map(|(table, key)| (*table, key));
        let deleted = self.deleted.iter().map(|(table, key)| (*table | DELETED, key));
        for (table, key) in kept.chain(deleted) {
            value.push(table);
            value.extend_from_slice(&count(key.len()));
            value.extend_from_slice(key);
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let vaults = (0..fields.u32()?).map(|_| fields.u64()).collect::<Option<_>>()?;
        let mut removal = Self { vaults, ..Self::default() };
        while !fields.0.is_empty() {
            let table = fields.u8()?;
            let length = usize::try_from(fields.u32()?).ok()?;
            let (key, rest) = fields.0.split_at_checked(length)?;
            if table & DELETED == 0 {
                removal.kept.push((table, key.to_vec()));
            } else {
                removal.deleted.push((table ^ DELETED, key.to_vec()));
            }
            fields.0 = rest;
        }
        Some(removal)
    }
}

/// A batch is held in memory: it has fewer than 2³² vaults and no key of 4 GiB, which redb refuses.
fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}
