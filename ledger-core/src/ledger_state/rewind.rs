//! Proofs at earlier heights: from the newest state tree back to an earlier one.

use std::collections::HashMap;

use ledger_verify::Hash;
use ledger_verify::state::StateProof;

use super::read::ReadError;
use super::{LedgerState, inconsistent};
use crate::names::VaultId;
use crate::state_tree::StateTree;

/// Most changed keys with which a proof is computed on the newest tree itself, which stays locked
/// meanwhile; beyond that an own copy of the tree goes back.
pub const REWIND_IN_PLACE_MAX: usize = 4_096;

/// The way from the newest state of a vault back to an earlier one: for every key that changed since,
/// what stood there.
#[derive(Debug, Clone)]
pub struct Rewind {
    vault: VaultId,
    height: u64,
    /// The lowest block that is not yet undone.
    next: u64,
    changes: HashMap<Hash, Option<Hash>>,
}

impl Rewind {
    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The height that it leads to.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Keys that changed since.
    pub fn changed_keys(&self) -> usize {
        self.changes.len()
    }

    /// Turns a tree of the state that the way begins at into the earlier one.
    pub fn apply_to(self, tree: &mut StateTree) {
        tree.update(self.changes.into_iter().collect());
    }
}

impl LedgerState {
    /// Begins the way back to `height`.
    pub fn rewind(&self, id: VaultId, height: u64) -> Result<Rewind, ReadError> {
        self.existing(id)?.check_readable(height)?;
        Ok(Rewind { vault: id, height, next: height + 1, changes: HashMap::new() })
    }

    /// Undoes up to `blocks_max` more blocks, none above `through`; answers whether that was the last.
    /// The newest block moves on between two calls: the last call and the use of the way belong under
    /// one lock.
    pub fn rewind_on(&self, way: &mut Rewind, through: u64, blocks_max: u64) -> Result<bool, ReadError> {
        let vault = self.existing(way.vault)?;
        let newest = vault.header.height.min(through);
        let end = newest.min(way.next.saturating_add(blocks_max).saturating_sub(1));
        while way.next <= end {
            for entry in self.undo_entries(vault, way.next)? {
                let before = entry.before.map(|before| before.value_hash);
                // From the oldest block on: what stood there first is what stands at the height.
                way.changes.entry(entry.key_hash).or_insert(before);
            }
            way.next += 1;
        }
        Ok(way.next > newest)
    }

    /// The proof for a key at the height of a complete way, on the newest tree itself.
    pub fn rewound_proof(&self, way: &Rewind, key_hash: &Hash) -> Result<StateProof, ReadError> {
        let vault = self.existing(way.vault)?;
        if way.next != vault.header.height + 1 {
            return Err(inconsistent("a way back does not begin at the newest block").into());
        }
        let mut changes: Vec<(Hash, Option<Hash>)> =
            way.changes.iter().map(|(key, value)| (*key, *value)).collect();
        changes.sort_unstable_by_key(|(key_hash, _)| *key_hash);
        let (root, proof) = vault.tree.prove_changed(&changes, key_hash);
        self.check_root(way.vault, way.height, &root)?;
        Ok(proof)
    }

    /// A copy of the newest state tree, about 125 bytes a key.
    pub fn tree_copy(&self, id: VaultId) -> Result<StateTree, ReadError> {
        Ok(self.existing(id)?.tree.clone())
    }

    /// Compares a computed state root with the header's: nothing is served when they differ.
    pub fn check_root(&self, id: VaultId, height: u64, root: &Hash) -> Result<(), ReadError> {
        let vault = self.existing(id)?;
        let header = self.stored_header(vault, height)?;
        if header.state_root == *root {
            Ok(())
        } else {
            Err(vault.broken(height, "has another state root than its undo rows lead to").into())
        }
    }
}
