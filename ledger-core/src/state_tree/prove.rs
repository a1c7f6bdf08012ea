//! Proofs of presence and absence.

use ledger_verify::Hash;
use ledger_verify::state::StateProof;

use super::arena::{NodeRef, Place};
use super::{StateTree, bit};

impl StateTree {
    /// Proves what [`root`](Self::root) says about `key_hash`: its presence when [`get`](Self::get) finds it,
    /// otherwise its absence, either because the subtree where it would stand is empty or because another leaf is
    /// alone there (`other_leaf`).
    #[must_use]
    pub fn prove(&self, key_hash: &Hash) -> StateProof {
        let mut siblings = Vec::new();
        let terminal = self.descend(key_hash, &mut siblings);
        siblings.reverse();
        let other_leaf = match terminal.place() {
            Place::Leaf(index) => {
                let leaf = self.leaves.at(index);
                (leaf.key_hash != *key_hash).then_some((leaf.key_hash, leaf.value_hash))
            }
            Place::Empty | Place::Inner(_) => None,
        };
        StateProof { siblings, other_leaf }
    }

    /// Walks down to the leaf or empty subtree on the path of `key_hash`, collecting siblings from the top.
    fn descend(&self, key_hash: &Hash, siblings: &mut Vec<Hash>) -> NodeRef {
        let mut node = self.root;
        while let Place::Inner(index) = node.place() {
            let inner = self.inners.at(index);
            let (next, sibling) = if bit(key_hash, siblings.len()) {
                (inner.right, inner.left)
            } else {
                (inner.left, inner.right)
            };
            siblings.push(self.hash_of(sibling));
            node = next;
        }
        node
    }
}
