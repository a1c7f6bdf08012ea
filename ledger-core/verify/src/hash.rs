//! Hash suite 1: SHA-256 with the domain separation of RFC 6962 and of the state tree.

use sha2::{Digest, Sha256};

use crate::Hash;

/// Number of the one hash suite there is, as headers and transactions state it.
pub const SUITE_SHA256: u16 = 1;
/// The hash of an empty state subtree: these 32 ASCII bytes, not the digest of anything.
pub const STATE_EMPTY: Hash = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

const LOG_LEAF_TAG: &[u8] = &[0x00];
const LOG_NODE_TAG: &[u8] = &[0x01];
const STATE_LEAF_TAG: &[u8] = b"JMT::LeafNode";
/// The spelling is part of the constant: trees that others already verify use it.
const STATE_NODE_TAG: &[u8] = b"JMT::IntrnalNode";

/// SHA-256 over the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Leaf of a log tree: SHA-256(0x00, data). RFC 6962 section 2.1.
pub fn log_leaf(data: &[u8]) -> Hash {
    sha256(&[LOG_LEAF_TAG, data])
}

/// Inner node of a log tree: SHA-256(0x01, left, right). RFC 6962 section 2.1.
pub fn log_node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[LOG_NODE_TAG, left, right])
}

/// Root of a log tree without leaves: SHA-256 of nothing. RFC 6962 section 2.1.
pub fn log_empty() -> Hash {
    sha256(&[])
}

/// Leaf of the state tree: SHA-256("JMT::LeafNode", key hash, value hash).
pub fn state_leaf(key_hash: &Hash, value_hash: &Hash) -> Hash {
    sha256(&[STATE_LEAF_TAG, key_hash, value_hash])
}

/// Inner node of the state tree: SHA-256("JMT::IntrnalNode", left, right).
pub fn state_node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[STATE_NODE_TAG, left, right])
}
