//! The leaves of a vault's state tree, collected from its rows in the order of a snapshot.

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::hash::sha256;
use ledger_verify::header::BlockHeader;
use ledger_verify::state::{LeafValue, StateKey};

use crate::ledger_state::{ListRows, with_lists};
use crate::list_sets::ListSets;
use crate::rows;
use crate::state_tree::StateTree;

/// Leaves so far. Rows come in key order: all entities, then all relationships.
#[derive(Default)]
pub(super) struct LeafCollector {
    leaves: Vec<(Hash, Hash)>,
    lists: ListRows,
}

impl LeafCollector {
    /// Adds the leaf of an entity; `None` when key or value is none. Returns the key's text and expiry.
    pub(super) fn entity(&mut self, key: &[u8], value: &[u8]) -> Option<u64> {
        let entity = rows::entity_of(key)?;
        let leaf = LeafValue::decode(value).ok()?;
        self.leaves.push((StateKey::Entity { key: entity.as_str() }.hash(), sha256(&[value])));
        Some(leaf.expires_at_ms)
    }

    /// Adds the leaf of a relationship; `None` when key or value is none.
    pub(super) fn relationship(&mut self, key: &[u8], value: &Bytes) -> Option<()> {
        let tuple = rows::relationship_of(key)?;
        LeafValue::decode(value).ok()?;
        self.leaves.push((StateKey::Relationship(tuple.as_ref()).hash(), sha256(&[value])));
        self.lists.push(&tuple);
        Some(())
    }

    /// The tree over all of them, as the newest header's version has it, and the lists of the resources.
    pub(super) fn finish(self, tip: &BlockHeader) -> (StateTree, ListSets) {
        let lists = self.lists.finish();
        (StateTree::from_leaves(with_lists(self.leaves, &lists, tip)), lists)
    }
}
