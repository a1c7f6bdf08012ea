//! What is left to do in `blocks.db` when vaults are dropped.
//!
//! A vault's blocks must not go before `state.db` says that the vault is gone: after a crash between
//! the two the node would find a vault without its blocks. So they go afterwards, and `state.db`
//! remembers, from the transaction that drops the vault to the next, which blocks to remove; opening
//! the store finishes what a crash left undone.

use ledger_core::ports::{StateBatch, Table};

use super::log_row::Fields;

/// Vaults whose rows leave `blocks.db`, and the keys that stay because the same batch wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VaultDrop {
    pub(super) vaults: Vec<u64>,
    pub(super) kept: Vec<(u8, Vec<u8>)>,
}

impl VaultDrop {
    pub(super) fn of(batch: &StateBatch) -> Option<Self> {
        if batch.dropped_vaults.is_empty() {
            return None;
        }
        let dropped =
            |key: &[u8]| batch.dropped_vaults.iter().any(|vault| key.starts_with(&vault.to_be_bytes()));
        let kept = batch.rows.iter().filter(|row| row.table.is_append_only() && row.value.is_some());
        let kept = kept.filter(|row| dropped(&row.key)).map(|row| (row.table as u8, row.key.clone()));
        Some(Self { vaults: batch.dropped_vaults.clone(), kept: kept.collect() })
    }

    pub(super) fn keeps(&self, table: Table, key: &[u8]) -> bool {
        self.kept.iter().any(|(kept_table, kept_key)| *kept_table == table as u8 && kept_key == key)
    }

    /// Number of vaults (u32), the vaults (u64 each), then for each kept key table (u8), length (u32),
    /// key.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = count(self.vaults.len()).to_vec();
        value.extend(self.vaults.iter().flat_map(|vault| vault.to_be_bytes()));
        for (table, key) in &self.kept {
            value.push(*table);
            value.extend_from_slice(&count(key.len()));
            value.extend_from_slice(key);
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let vaults = (0..fields.u32()?).map(|_| fields.u64()).collect::<Option<_>>()?;
        let mut kept = Vec::new();
        while !fields.0.is_empty() {
            let table = fields.u8()?;
            let length = usize::try_from(fields.u32()?).ok()?;
            let (key, rest) = fields.0.split_at_checked(length)?;
            kept.push((table, key.to_vec()));
            fields.0 = rest;
        }
        Some(Self { vaults, kept })
    }
}

/// A batch is held in memory: it has fewer than 2³² vaults and no key of 4 GiB, which redb refuses.
fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}
