//! How much of its past a vault keeps, and dropping the rest.

use super::undo;
use super::{LedgerState, StateError, Vault};
use crate::command::{AdminRefusal, CompactionProgress, Retention, VaultInfo};
use crate::names::{VaultNumber, VaultRef};
use crate::overlay::Overlay;
use crate::ports::Table;
use crate::rows::{self, HorizonRow};

/// Blocks that the block after them drops at most. In the long run each block drops one; after the
/// retention was lowered a busy vault catches up by this many.
const BLOCKS_PER_SEAL: u64 = 16;
/// Blocks that one [`Command::Compact`](crate::command::Command::Compact) drops at most, over all vaults:
/// bounds how long an entry is applied.
const BLOCKS_PER_COMMAND: u64 = 2_048;

impl HorizonRow {
    /// Of a vault that begins.
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, first_body: 0, first_undo: 1 }
    }

    /// Of a vault whose row comes from format 1: its past has bodies but no undo rows.
    pub(super) fn of_format_1(tip: u64) -> Self {
        Self { retention: Retention::Full, first_body: 0, first_undo: tip.saturating_add(1) }
    }

    /// Lowest height whose state can be read.
    pub(super) fn first_height(&self) -> u64 {
        self.first_body.max(self.first_undo.saturating_sub(1))
    }

    /// Blocks that the retention no longer covers but that are still there.
    fn excess(&self, tip: u64) -> u64 {
        self.retention.first_height(tip).saturating_sub(self.first_body)
    }

    /// Drops what the retention no longer covers, the oldest first, at most `blocks_max` blocks.
    pub(super) fn compact(
        &mut self,
        overlay: &mut Overlay,
        number: VaultNumber,
        tip: u64,
        blocks_max: u64,
    ) -> Result<u64, StateError> {
        let count = self.excess(tip).min(blocks_max);
        let end = self.first_body.saturating_add(count);
        for height in self.first_body..end {
            let undo_key = rows::undo_key(number, height);
            if let Some(row) = overlay.get(Table::Undo, &undo_key)? {
                let deleted = undo::decode(&row).flatten().filter(|entry| entry.is_deleted);
                for entry in deleted {
                    overlay.delete(Table::Tombstones, rows::tombstone_key(number, &entry.key_hash, height));
                }
                overlay.delete(Table::Undo, undo_key);
            }
            // The genesis block has no body, and deleting nothing is harmless.
            overlay.delete(Table::Blocks, rows::body_key(number, height));
        }
        self.first_body = end;
        self.first_undo = self.first_undo.max(end);
        Ok(count)
    }
}

impl Vault {
    /// Drops what the newest block pushed out of the retention.
    pub(super) fn compact_after_seal(&mut self, overlay: &mut Overlay) -> Result<(), StateError> {
        self.horizon.compact(overlay, self.number, self.header.height, BLOCKS_PER_SEAL).map(drop)
    }
}

type Answer<T> = Result<Result<T, AdminRefusal>, StateError>;

impl LedgerState {
    pub(super) fn set_retention(&mut self, vault: &VaultRef, retention: Retention) -> Answer<VaultInfo> {
        let missing = || Ok(Err(AdminRefusal::VaultNotFound(vault.clone())));
        let Some(id) = self.vault_id(vault) else { return missing() };
        let Some(found) = self.vaults.get_mut(&id) else { return missing() };
        found.horizon.retention = retention;
        let row = found.row(id, None)?;
        self.overlay.put(Table::Vaults, rows::vault_prefix(found.number), row);
        Ok(Ok(found.info(id)))
    }

    pub(super) fn compact(&mut self) -> Result<CompactionProgress, StateError> {
        let mut progress = CompactionProgress::default();
        // A fenced vault keeps what its recovery needs.
        for (id, vault) in self.vaults.iter_mut().filter(|(_, vault)| vault.fence.is_none()) {
            let tip = vault.header.height;
            let room = BLOCKS_PER_COMMAND.saturating_sub(progress.dropped);
            let dropped = vault.horizon.compact(&mut self.overlay, vault.number, tip, room)?;
            progress.left += vault.horizon.excess(tip);
            if dropped > 0 {
                progress.dropped += dropped;
                let row = vault.row(*id, None)?;
                self.overlay.put(Table::Vaults, rows::vault_prefix(vault.number), row);
            }
        }
        Ok(progress)
    }

    /// Blocks, over all vaults, that retention no longer covers but that are still there.
    pub fn compaction_backlog(&self) -> u64 {
        let served = self.vaults.values().filter(|vault| vault.fence.is_none());
        served.map(|vault| vault.horizon.excess(vault.header.height)).sum()
    }
}
