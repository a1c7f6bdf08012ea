//! The state tree: a compact sparse Merkle tree over the live keys of one vault, kept in memory.
//!
//! A key stands at the path that the bits of its 32-byte key hash spell, most significant bit first. A subtree
//! that holds no leaf has the constant hash [`STATE_EMPTY`], a subtree that holds one leaf *is* that leaf, and
//! every other subtree is an inner node over its two halves. Roots and proofs are those of the Jellyfish Merkle
//! tree with SHA-256 (crate `jmt` 0.12), which an ICS23 verifier understands too; the layout in memory is our own.
//!
//! The tree holds hashes only: values, versions and the order of keys belong to the state store, from which the
//! tree is rebuilt with [`StateTree::from_leaves`] when a ledger opens.
//!
//! Cost, for N random keys: about 1.44 N inner nodes of 40 bytes and N leaves of 64 bytes, so some 125 bytes a
//! key; changing k keys hashes each touched node once, about `log2(N) - log2(k) + 2` nodes a key. The memory of
//! deleted keys serves later keys; it is given back when the tree is dropped.

mod arena;
mod changed;
mod prove;
mod range;
mod update;

use std::fmt;

use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, state_leaf};

use self::arena::{Inner, Leaf, NodeRef, Place, Slab};
pub(crate) use self::range::root_of_sorted;

/// A compact sparse Merkle tree from key hashes to value hashes.
///
/// Key hashes must be unpredictable to whoever chooses the keys (SHA-256 of the key): two keys whose hashes share
/// their first `b` bits cost `b` inner nodes.
#[derive(Clone, Default)]
pub struct StateTree {
    root: NodeRef,
    inners: Slab<Inner>,
    leaves: Slab<Leaf>,
}

impl StateTree {
    /// The tree without keys; its root is [`STATE_EMPTY`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the tree of `(key hash, value hash)` leaves, given in any order; of several leaves with one key hash
    /// the last wins.
    #[must_use]
    pub fn from_leaves(leaves: Vec<(Hash, Hash)>) -> Self {
        update::build(leaves)
    }

    /// The root hash; [`STATE_EMPTY`] for a tree without keys.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.hash_of(self.root)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.leaves.len())
    }

    /// True when the tree has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value hash stored under `key_hash`.
    #[must_use]
    pub fn get(&self, key_hash: &Hash) -> Option<Hash> {
        let mut node = self.root;
        let mut depth = 0;
        loop {
            match node.place() {
                Place::Empty => return None,
                Place::Leaf(index) => {
                    let leaf = self.leaves.at(index);
                    return (leaf.key_hash == *key_hash).then_some(leaf.value_hash);
                }
                Place::Inner(index) => {
                    let inner = self.inners.at(index);
                    node = if bit(key_hash, depth) { inner.right } else { inner.left };
                    depth += 1;
                }
            }
        }
    }

    /// Bytes of memory that the tree occupies, unused capacity included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.inners.heap_bytes() + self.leaves.heap_bytes()
    }

    fn hash_of(&self, node: NodeRef) -> Hash {
        match node.place() {
            Place::Empty => STATE_EMPTY,
            Place::Inner(index) => self.inners.at(index).hash,
            // Not stored: 32 more bytes a key would save about one of the twelve hashes of a changed key.
            Place::Leaf(index) => {
                let leaf = self.leaves.at(index);
                state_leaf(&leaf.key_hash, &leaf.value_hash)
            }
        }
    }
}

impl fmt::Debug for StateTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTree")
            .field("len", &self.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish()
    }
}

/// The bit of `key_hash` that chooses the child at `depth`: false left, true right.
///
/// `depth` is below 256 wherever it is asked for: a node that is split holds two different key hashes, which agree
/// on all bits above it and so differ at this depth or below.
#[expect(
    clippy::indexing_slicing,
    reason = "depth < 256 is the invariant stated above; a wrong depth must not pass"
)]
fn bit(key_hash: &Hash, depth: usize) -> bool {
    (key_hash[depth / 8] >> (7 - depth % 8)) & 1 == 1
}
