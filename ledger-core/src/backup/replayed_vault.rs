//! One vault of a chain: its trees, brought on block by block.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::StateKey;
use ledger_verify::transaction::{self, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED};
use ledger_verify::{Hash, hash, log};

use crate::ledger_state::{list_leaves, written};
use crate::list_sets::{ListChange, ListSets};
use crate::log_tree::LogTree;
use crate::snapshot::KeptVault;
use crate::state_tree::StateTree;

/// What does not fit.
type Fault = String;

pub(super) struct ReplayedVault {
    pub label: String,
    pub tip: BlockHeader,
    tree: StateTree,
    lists: ListSets,
    pub log: LogTree,
    /// Sizes of the log whose root is asked for.
    asked: BTreeSet<u64>,
    /// Roots at those sizes.
    pub roots: BTreeMap<u64, Hash>,
}

impl ReplayedVault {
    pub(super) fn of_base(label: String, kept: KeptVault, asked: BTreeSet<u64>) -> Self {
        let KeptVault { tip, tree, lists, log, roots } = kept;
        Self { label, tip, tree, lists, log, asked, roots }
    }

    /// A vault that begins with this block.
    pub(super) fn begin(label: String, header: &BlockHeader, asked: BTreeSet<u64>) -> Result<Self, Fault> {
        let tree = StateTree::new();
        let begins = header.height == 0
            && header.previous == [0; 32]
            && header.tx_count == 0
            && header.tx_root == hash::log_empty()
            && header.first_sequence == 1
            && header.last_sequence == 0
            && header.state_root == tree.root();
        if !begins {
            return Err(format!("its block {} is no first block", header.height));
        }
        let lists = ListSets::new();
        let (log, roots) = (LogTree::new(), BTreeMap::new());
        let mut vault = Self { label, tip: *header, tree, lists, log, asked, roots };
        vault.extend_log(header);
        Ok(vault)
    }

    pub(super) fn keys(&self) -> u64 {
        let lists = if self.tip.covers_lists() { self.lists.len() } else { 0 };
        self.tree.len().saturating_sub(lists)
    }

    /// Brings the vault on by a block, which must be what its header commits to.
    pub(super) fn block(&mut self, header: &BlockHeader, transactions: &[Bytes]) -> Result<(), Fault> {
        let height = header.height;
        let follows = Some(height) == self.tip.height.checked_add(1)
            && header.previous == self.tip.leaf_hash()
            && header.ledger_id == self.tip.ledger_id
            && header.vault_id == self.tip.vault_id
            && header.time_ms >= self.tip.time_ms
            && header.index > self.tip.index
            && Some(header.first_sequence) == self.tip.last_sequence.checked_add(1);
        if !follows {
            return Err(format!("block {height} does not continue the block before it"));
        }
        let leaves: Vec<Hash> = transactions.iter().map(|transaction| hash::log_leaf(transaction)).collect();
        let last = header.first_sequence.saturating_add(leaves.len() as u64).saturating_sub(1);
        let committed = log::root_of(&leaves) == header.tx_root
            && leaves.len() == header.tx_count as usize
            && last == header.last_sequence;
        if !committed {
            return Err(format!(
                "the transactions of block {height} are not those that its header commits to"
            ));
        }
        self.apply(header, transactions)?;
        if self.tree.root() != header.state_root {
            return Err(format!(
                "the transactions of block {height} do not lead to the state root of its header"
            ));
        }
        self.extend_log(header);
        self.tip = *header;
        Ok(())
    }

    fn apply(&mut self, header: &BlockHeader, transactions: &[Bytes]) -> Result<(), Fault> {
        let mut changes: BTreeMap<Hash, Option<Hash>> = BTreeMap::new();
        let mut list_changes = Vec::new();
        for bytes in transactions {
            let view = transaction::decode(bytes)
                .map_err(|error| format!("a transaction of block {}: {error}", header.height))?;
            for effect in &view.operations {
                let sequence = view.header.sequence;
                let Some((key, leaf)) = written(&effect.action, header.height, sequence) else { continue };
                let after = match effect.result {
                    RESULT_CREATED | RESULT_UPDATED => Some(hash::sha256(&[&leaf.encode()])),
                    RESULT_DELETED => None,
                    _ => continue,
                };
                changes.insert(key.hash(), after);
                if let StateKey::Relationship(tuple) = key {
                    let changed = if after.is_some() { ListChange::created } else { ListChange::deleted };
                    list_changes.push(changed(&tuple));
                }
            }
        }
        changes.extend(list_leaves(&mut self.lists, list_changes, Some(&self.tip), header));
        self.tree.update(changes.into_iter().collect());
        Ok(())
    }

    fn extend_log(&mut self, header: &BlockHeader) {
        // Full tiles are not needed: roots are asked for when the log has their size.
        let _tiles = self.log.append(header.leaf_hash());
        if self.asked.contains(&self.log.size()) {
            self.roots.insert(self.log.size(), self.log.root());
        }
    }
}
