//! Proofs in the tree as it would be after some changes, without making them.

use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, state_leaf, state_node};
use ledger_verify::state::StateProof;

use super::arena::{NodeRef, Place};
use super::{StateTree, bit};

type Change = (Hash, Option<Hash>);

/// A subtree as it would be.
#[derive(Clone, Copy)]
enum Subtree {
    Empty,
    Leaf(Hash, Hash),
    Inner(Hash),
}

impl Subtree {
    fn hash(&self) -> Hash {
        match self {
            Self::Empty => STATE_EMPTY,
            Self::Leaf(key_hash, value_hash) => state_leaf(key_hash, value_hash),
            Self::Inner(hash) => *hash,
        }
    }

    /// The subtree over two halves: at most one leaf in all stands alone.
    fn join(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Empty, Self::Empty) => Self::Empty,
            (Self::Empty, leaf @ Self::Leaf(..)) | (leaf @ Self::Leaf(..), Self::Empty) => leaf,
            _ => Self::Inner(state_node(&left.hash(), &right.hash())),
        }
    }
}

/// The way to a key, from the bottom.
struct Way<'a> {
    key_hash: &'a Hash,
    siblings: Vec<Hash>,
    /// What stands at the end of the key's path.
    end: Subtree,
}

impl StateTree {
    /// The root and the proof for a key that the tree would have after `changes`, which ascend by key hash, each
    /// key once. Costs about one hash per changed key and level; the tree stays as it is.
    #[must_use]
    pub fn prove_changed(&self, changes: &[(Hash, Option<Hash>)], key_hash: &Hash) -> (Hash, StateProof) {
        let mut way = Way { key_hash, siblings: Vec::new(), end: Subtree::Empty };
        let root = self.walk(self.root, 0, changes, &mut way);
        let other_leaf = match way.end {
            Subtree::Leaf(leaf, value) if leaf != *key_hash => Some((leaf, value)),
            _ => None,
        };
        (root.hash(), StateProof { siblings: way.siblings, other_leaf })
    }

    /// Computes a subtree on the key's path and notes the siblings below it.
    fn walk(&self, node: NodeRef, depth: usize, changes: &[Change], way: &mut Way<'_>) -> Subtree {
        let Some((left, right)) = self.halves(node, depth, changes) else {
            way.end = self.single(node, changes);
            return way.end;
        };
        let (left_changes, right_changes) = split(changes, depth);
        let (left, right, sibling) = if bit(way.key_hash, depth) {
            let left = self.subtree(left, depth + 1, left_changes);
            (left, self.walk(right, depth + 1, right_changes, way), left)
        } else {
            let right = self.subtree(right, depth + 1, right_changes);
            (self.walk(left, depth + 1, left_changes, way), right, right)
        };
        let joined = Subtree::join(left, right);
        match joined {
            Subtree::Inner(_) => way.siblings.push(sibling.hash()),
            alone => way.end = alone,
        }
        joined
    }

    fn subtree(&self, node: NodeRef, depth: usize, changes: &[Change]) -> Subtree {
        if changes.is_empty() {
            return self.unchanged_subtree(node);
        }
        let Some((left, right)) = self.halves(node, depth, changes) else {
            return self.single(node, changes);
        };
        let (left_changes, right_changes) = split(changes, depth);
        let left = self.subtree(left, depth + 1, left_changes);
        Subtree::join(left, self.subtree(right, depth + 1, right_changes))
    }

    /// The halves of a node; `None` for nothing or one leaf that at most one change, and that its own, meets. Two
    /// different keys part above depth 256.
    fn halves(&self, node: NodeRef, depth: usize, changes: &[Change]) -> Option<(NodeRef, NodeRef)> {
        match (node.place(), changes) {
            (Place::Inner(index), _) => {
                let inner = self.inners.at(index);
                Some((inner.left, inner.right))
            }
            (Place::Empty, [] | [_]) | (Place::Leaf(_), []) => None,
            (Place::Empty, _) => Some((NodeRef::EMPTY, NodeRef::EMPTY)),
            (Place::Leaf(index), _) => {
                let own = self.leaves.at(index).key_hash;
                match changes {
                    [(key_hash, _)] if *key_hash == own => None,
                    _ if bit(&own, depth) => Some((NodeRef::EMPTY, node)),
                    _ => Some((node, NodeRef::EMPTY)),
                }
            }
        }
    }

    /// A node without halves, after its change.
    fn single(&self, node: NodeRef, changes: &[Change]) -> Subtree {
        match changes {
            [(key_hash, Some(value_hash)), ..] => Subtree::Leaf(*key_hash, *value_hash),
            [(_, None), ..] => Subtree::Empty,
            [] => self.unchanged_subtree(node),
        }
    }

    fn unchanged_subtree(&self, node: NodeRef) -> Subtree {
        match node.place() {
            Place::Empty => Subtree::Empty,
            Place::Inner(index) => Subtree::Inner(self.inners.at(index).hash),
            Place::Leaf(index) => {
                let leaf = self.leaves.at(index);
                Subtree::Leaf(leaf.key_hash, leaf.value_hash)
            }
        }
    }
}

fn split(changes: &[Change], depth: usize) -> (&[Change], &[Change]) {
    changes.split_at(changes.partition_point(|(key_hash, _)| !bit(key_hash, depth)))
}
