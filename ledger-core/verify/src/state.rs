//! The state tree: what its keys and leaves are made of, and proofs of presence and absence.
//!
//! The tree is a binary trie over the 256 bits of the key hash, most significant bit first, in which a subtree
//! with one leaf is that leaf and a subtree without leaves is [`STATE_EMPTY`]. Its roots and proofs are those of
//! the `jmt` crate, version 0.12, and of ICS 23.

use crate::Hash;
use crate::error::{DecodeError, ProofError};
use crate::hash::{STATE_EMPTY, sha256, state_leaf, state_node};
use crate::layout::{Reader, put_text};
use crate::transaction::RelationshipRef;

/// Bytes of a leaf value before the user's value.
pub const LEAF_PREFIX_BYTES: usize = 26;
/// Version of the leaf value's layout.
pub const LEAF_VERSION: u8 = 1;
/// Most siblings of a proof: one per bit of the key hash.
pub const SIBLINGS_MAX: usize = 256;

const ENTITY: u8 = 1;
const RELATIONSHIP: u8 = 2;

/// What a leaf of the state tree is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKey<'a> {
    /// An entity.
    Entity {
        /// Its key.
        key: &'a str,
    },
    /// A relationship.
    Relationship(RelationshipRef<'a>),
}

impl StateKey<'_> {
    /// The key bytes: `0x01` and the entity key, or `0x02` and three texts, each behind its u16 length.
    ///
    /// # Panics
    /// When a part of a relationship is longer than 65,535 bytes (the limits are 512 and 64).
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Entity { key } => {
                let mut out = Vec::with_capacity(1 + key.len());
                out.push(ENTITY);
                out.extend_from_slice(key.as_bytes());
                out
            }
            Self::Relationship(tuple) => {
                let texts = [tuple.resource, tuple.relation, tuple.subject];
                let mut out = Vec::with_capacity(1 + texts.iter().map(|text| 2 + text.len()).sum::<usize>());
                out.push(RELATIONSHIP);
                for text in texts {
                    put_text(&mut out, text);
                }
                out
            }
        }
    }

    /// SHA-256 of the key bytes: the path of the leaf in the tree.
    ///
    /// # Panics
    /// As [`StateKey::encode`].
    pub fn hash(&self) -> Hash {
        sha256(&[&self.encode()])
    }

    /// The kind of leaf that belongs to the key.
    pub fn kind(&self) -> LeafKind {
        match self {
            Self::Entity { .. } => LeafKind::Entity,
            Self::Relationship(_) => LeafKind::Relationship,
        }
    }
}

/// What a leaf holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// An entity's value.
    Entity,
    /// That a relationship exists.
    Relationship,
}

/// What the state tree commits to under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafValue<'a> {
    /// What the leaf holds.
    pub kind: LeafKind,
    /// Height of the block that wrote it last.
    pub modified_height: u64,
    /// Sequence number of the transaction that wrote it last.
    pub version: u64,
    /// Unix time in milliseconds after which it is hidden; 0 = never.
    pub expires_at_ms: u64,
    /// The user's value; empty for a relationship.
    pub value: &'a [u8],
}

impl<'a> LeafValue<'a> {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEAF_PREFIX_BYTES + self.value.len());
        out.extend_from_slice(&self.prefix());
        out.extend_from_slice(self.value);
        out
    }

    /// Reads the canonical bytes; refuses unknown numbers and a relationship with a value.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("the leaf version")?;
        if version != LEAF_VERSION {
            return Err(DecodeError::Unknown { field: "the leaf version", given: version.into() });
        }
        let kind = match reader.u8("the leaf kind")? {
            ENTITY => LeafKind::Entity,
            RELATIONSHIP => LeafKind::Relationship,
            given => return Err(DecodeError::Unknown { field: "the leaf kind", given: given.into() }),
        };
        let leaf = Self {
            kind,
            modified_height: reader.u64("the modified height")?,
            version: reader.u64("the version")?,
            expires_at_ms: reader.u64("the expiry")?,
            value: reader.remainder(),
        };
        if kind == LeafKind::Relationship && !leaf.value.is_empty() {
            return Err(DecodeError::RelationshipValue { given: leaf.value.len() });
        }
        Ok(leaf)
    }

    /// SHA-256 of the canonical bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.prefix(), self.value])
    }

    fn prefix(&self) -> [u8; LEAF_PREFIX_BYTES] {
        let kind = match self.kind {
            LeafKind::Entity => ENTITY,
            LeafKind::Relationship => RELATIONSHIP,
        };
        let mut out = [0; LEAF_PREFIX_BYTES];
        let mut rest = crate::layout::put(&mut out, [LEAF_VERSION, kind]);
        for field in [self.modified_height, self.version, self.expires_at_ms] {
            rest = crate::layout::put(rest, field.to_be_bytes());
        }
        out
    }
}

/// The way from the node where a key's path ends up to the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateProof {
    /// From the bottom: first the sibling of the end node, last the child of the root; at most 256.
    pub siblings: Vec<Hash>,
    /// Absence only: (key hash, value hash) of the leaf in whose place the key's leaf would stand.
    pub other_leaf: Option<(Hash, Hash)>,
}

impl StateProof {
    /// Checks that the tree with this root has a leaf with exactly this key and value.
    pub fn verify_presence(&self, root: &Hash, key_hash: &Hash, value_hash: &Hash) -> Result<(), ProofError> {
        if self.other_leaf.is_some() {
            return Err(ProofError::NotPresence);
        }
        self.verify_end(state_leaf(key_hash, value_hash), root, key_hash)
    }

    /// Checks that the tree with this root has no leaf with this key.
    pub fn verify_absence(&self, root: &Hash, key_hash: &Hash) -> Result<(), ProofError> {
        let end = match &self.other_leaf {
            None => STATE_EMPTY,
            Some((other_key, other_value)) => {
                if other_key == key_hash {
                    return Err(ProofError::KeyIsPresent);
                }
                let shared_bits = shared_prefix_bits(other_key, key_hash);
                if shared_bits < self.siblings.len() {
                    return Err(ProofError::OtherBranch { shared_bits, depth: self.siblings.len() });
                }
                state_leaf(other_key, other_value)
            }
        };
        self.verify_end(end, root, key_hash)
    }

    /// Folds the siblings over the end node along the key's bits, deepest first.
    fn verify_end(&self, end: Hash, root: &Hash, key_hash: &Hash) -> Result<(), ProofError> {
        let depth = self.siblings.len();
        if depth > SIBLINGS_MAX {
            return Err(ProofError::TooLarge { what: "the state proof", given: depth, max: SIBLINGS_MAX });
        }
        // A leaf or nothing beside nothing is a subtree with at most one leaf: it would stand one level higher.
        if self.siblings.first() == Some(&STATE_EMPTY) {
            return Err(ProofError::NotCollapsed);
        }
        let computed = self.siblings.iter().zip((0..depth).rev()).fold(end, |node, (sibling, level)| {
            if bit(key_hash, level) { state_node(sibling, &node) } else { state_node(&node, sibling) }
        });
        if computed == *root {
            Ok(())
        } else {
            Err(ProofError::RootMismatch { tree: "state", expected: *root, computed })
        }
    }
}

/// Bit `position` of a hash, 0 = most significant bit of the first byte; beyond the end: false.
fn bit(hash: &Hash, position: usize) -> bool {
    hash.get(position / 8).is_some_and(|byte| byte & (0x80 >> (position % 8)) != 0)
}

/// How many leading bits two hashes share, 0 to 256.
fn shared_prefix_bits(a: &Hash, b: &Hash) -> usize {
    let mut shared = 0;
    for (a, b) in a.iter().zip(b) {
        let difference = a ^ b;
        shared += difference.leading_zeros() as usize;
        if difference != 0 {
            break;
        }
    }
    shared
}
