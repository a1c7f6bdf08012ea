//! Where the nodes of a state tree live: two slabs addressed by 32-bit references.

use ledger_verify::Hash;

/// Nodes in one chunk of a slab. Growing by chunks wastes at most one chunk and never copies a large slab.
const CHUNK_NODES: usize = 4096;

/// Most nodes in one slab: 31 bits of index, of which the highest value is taken by [`NodeRef::EMPTY`]. A slab of
/// inner nodes would then occupy 80 GiB.
const SLAB_NODES_MAX: u32 = NodeRef::LEAF_BIT - 1;

/// Refers to a node of the tree, or to none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRef(u32);

/// What a [`NodeRef`] refers to; the number is an index into the slab of that kind.
pub(super) enum Place {
    Empty,
    Inner(u32),
    Leaf(u32),
}

impl NodeRef {
    pub(super) const EMPTY: Self = Self(u32::MAX);
    const LEAF_BIT: u32 = 1 << 31;

    pub(super) fn inner(index: u32) -> Self {
        Self(index)
    }

    pub(super) fn leaf(index: u32) -> Self {
        Self(index | Self::LEAF_BIT)
    }

    pub(super) fn place(self) -> Place {
        if self == Self::EMPTY {
            Place::Empty
        } else if self.0 & Self::LEAF_BIT == 0 {
            Place::Inner(self.0)
        } else {
            Place::Leaf(self.0 ^ Self::LEAF_BIT)
        }
    }

    pub(super) fn is_inner(self) -> bool {
        self.0 & Self::LEAF_BIT == 0
    }
}

impl Default for NodeRef {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A subtree of two or more leaves.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    pub(super) left: NodeRef,
    pub(super) right: NodeRef,
    pub(super) hash: Hash,
}

/// A key.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) key_hash: Hash,
    pub(super) value_hash: Hash,
}

/// Nodes of one kind, addressed by index; the places of removed nodes are used again.
///
/// Every index handed to a slab must come from its own `insert` and not have been removed since: the tree keeps
/// exactly one [`NodeRef`] to each node, and drops it when it removes the node.
#[derive(Clone)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    allocated: u32,
    free: Vec<u32>,
}

impl<T: Copy> Slab<T> {
    pub(super) fn len(&self) -> u32 {
        // The free list holds each of the `allocated` indexes at most once.
        self.allocated.saturating_sub(u32::try_from(self.free.len()).unwrap_or(u32::MAX))
    }

    #[expect(clippy::indexing_slicing, reason = "indexes come from insert, see the invariant of Slab")]
    pub(super) fn at(&self, index: u32) -> &T {
        let index = index as usize;
        &self.chunks[index / CHUNK_NODES][index % CHUNK_NODES]
    }

    #[expect(clippy::indexing_slicing, reason = "indexes come from insert, see the invariant of Slab")]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut T {
        let index = index as usize;
        &mut self.chunks[index / CHUNK_NODES][index % CHUNK_NODES]
    }

    pub(super) fn insert(&mut self, node: T) -> u32 {
        if let Some(index) = self.free.pop() {
            *self.at_mut(index) = node;
            return index;
        }
        let index = self.allocated;
        assert!(index < SLAB_NODES_MAX, "a state tree holds at most {SLAB_NODES_MAX} nodes of a kind");
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_NODES => chunk.push(node),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK_NODES);
                chunk.push(node);
                self.chunks.push(chunk);
            }
            // The first chunk grows by doubling: most vaults are small.
            None => self.chunks.push(vec![node]),
        }
        self.allocated += 1;
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let nodes: usize = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum();
        nodes + self.chunks.capacity() * size_of::<Vec<T>>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), allocated: 0, free: Vec::new() }
    }
}
