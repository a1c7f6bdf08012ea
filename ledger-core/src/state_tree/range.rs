//! Showing a range of a tree: the leaves in it in full, everything beside it as hashes.

use ledger_verify::Hash;
use ledger_verify::hash::{state_leaf, state_node};
use ledger_verify::list::{KeyRange, NODE_EMPTY, NODE_INNER, NODE_PRUNED};

use super::arena::{NodeRef, Place};
use super::{StateTree, bit};

impl StateTree {
    /// Appends the nodes that [`verify_range`](ledger_verify::list::verify_range) reads; `member` appends the node of
    /// the leaf with this key.
    pub(crate) fn put_range(
        &self,
        range: &KeyRange,
        out: &mut Vec<u8>,
        member: &mut dyn FnMut(&Hash, &mut Vec<u8>),
    ) {
        self.put_node(self.root, &KeyRange::ALL, 0, range, out, member);
    }

    /// Recurses at most 256 deep: below that there is one leaf.
    fn put_node(
        &self,
        node: NodeRef,
        keys: &KeyRange,
        depth: usize,
        range: &KeyRange,
        out: &mut Vec<u8>,
        member: &mut dyn FnMut(&Hash, &mut Vec<u8>),
    ) {
        match node.place() {
            Place::Empty => out.push(NODE_EMPTY),
            Place::Inner(_) | Place::Leaf(_) if range.misses(keys) => {
                out.push(NODE_PRUNED);
                out.extend_from_slice(&self.hash_of(node));
            }
            Place::Leaf(index) => member(&self.leaves.at(index).key_hash, out),
            Place::Inner(index) => {
                let inner = self.inners.at(index);
                let (left_keys, right_keys) = keys.halves(depth);
                out.push(NODE_INNER);
                self.put_node(inner.left, &left_keys, depth + 1, range, out, member);
                self.put_node(inner.right, &right_keys, depth + 1, range, out, member);
            }
        }
    }
}

/// The root of the tree of these leaves, ordered by key hash, no key twice: what [`StateTree::from_leaves`] would
/// have, without making it.
pub(crate) fn root_of_sorted(leaves: &[(Hash, Hash)]) -> Hash {
    subtree_root(leaves, 0)
}

fn subtree_root(leaves: &[(Hash, Hash)], depth: usize) -> Hash {
    match leaves {
        [] => ledger_verify::hash::STATE_EMPTY,
        [(key_hash, value_hash)] => state_leaf(key_hash, value_hash),
        _ => {
            let (left, right) =
                leaves.split_at(leaves.partition_point(|(key_hash, _)| !bit(key_hash, depth)));
            state_node(&subtree_root(left, depth + 1), &subtree_root(right, depth + 1))
        }
    }
}
