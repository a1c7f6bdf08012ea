//! Fenced vaults: what is stored of them does not fit their blocks, so they are neither read nor written
//! until they are recovered, while the others go on.
//!
//! An entry of the log may still carry writes to a fenced vault: the log was ahead of the rows when the
//! misfit was found. They are kept in the order of the log and carried out when the vault is recovered,
//! with the blocks that they would have made.

use std::collections::BTreeMap;

use super::{LedgerState, StateError, Vault};
use crate::codec;
use crate::command::{Fence, Submission, WriteRefusal};
use crate::list_sets::ListSets;
use crate::log_tree::LogTree;
use crate::names::{VaultId, VaultNumber, VaultRef};
use crate::overlay::Overlay;
use crate::ports::{LogId, Table};
use crate::rows::{self, PostponedRow};
use crate::state_tree::StateTree;

impl Fence {
    /// The answer to a write.
    pub fn refusal(&self) -> WriteRefusal {
        WriteRefusal::VaultDiverged {
            height: self.height,
            expected_root: self.expected_root,
            computed_root: self.computed_root,
        }
    }
}

/// The fence that is stored of a vault. It outlives a restart, so that a recovery that was interrupted is
/// not taken for finished.
pub(super) fn stored(overlay: &Overlay, number: VaultNumber) -> Result<Option<Fence>, StateError> {
    let row = overlay.get(Table::Fenced, &rows::vault_prefix(number))?;
    Ok(row.map(|row| codec::decode("a fence", &row)).transpose()?)
}

pub(super) fn store(overlay: &mut Overlay, number: VaultNumber, fence: &Fence) -> Result<(), StateError> {
    overlay.put(Table::Fenced, rows::vault_prefix(number), codec::encode("a fence", fence)?);
    Ok(())
}

impl LedgerState {
    /// Why a vault is fenced; `None` when it is not, or when there is no such vault.
    pub fn fence(&self, id: VaultId) -> Option<&Fence> {
        self.vaults.get(&id)?.fence.as_ref()
    }

    /// The fenced vaults, with why, in the order of their ids.
    pub fn fenced_vaults(&self) -> impl Iterator<Item = (&VaultRef, &Fence)> {
        self.vaults.values().filter_map(|vault| Some((&vault.name, vault.fence.as_ref()?)))
    }

    /// How many vaults are fenced.
    pub fn fenced_count(&self) -> u64 {
        self.vaults.values().filter(|vault| vault.fence.is_some()).count() as u64
    }

    /// Fences a vault; one that is fenced already stays so for its first reason.
    pub fn fence_vault(&mut self, id: VaultId, what: &str) -> Result<(), StateError> {
        let since_ms = self.log_time_ms();
        let Some(vault) = self.vaults.get_mut(&id).filter(|vault| vault.fence.is_none()) else {
            return Ok(());
        };
        let fence = Fence {
            height: vault.header.height,
            expected_root: vault.header.state_root,
            computed_root: None,
            what: what.to_owned(),
            since_ms,
        };
        store(&mut self.overlay, vault.number, &fence)?;
        self.key_count = self.key_count.saturating_sub(vault.key_count());
        vault.tree = StateTree::new();
        vault.lists = ListSets::new();
        vault.log = LogTree::new();
        vault.fence = Some(fence);
        Ok(())
    }

    /// Keeps the writes of one entry to fenced vaults.
    pub(super) fn postpone(
        &mut self,
        at: LogId,
        time_ms: u64,
        by_vault: BTreeMap<VaultId, Vec<Submission>>,
    ) -> Result<(), StateError> {
        for (id, submissions) in by_vault {
            let Some(vault) = self.vaults.get(&id) else { continue };
            let row = PostponedRow { at, time_ms, header_version: self.header_version, submissions };
            let row = codec::encode("postponed writes", &row)?;
            self.overlay.put(Table::Fenced, rows::postponed_key(vault.number, at.index), row);
        }
        Ok(())
    }

    /// The vault that is fenced under this id.
    pub(super) fn fenced(&self, id: VaultId) -> Option<&Vault> {
        self.vaults.get(&id).filter(|vault| vault.fence.is_some())
    }
}
