//! A page: every member of a set in a range of keys, and the hashes beside the range.

use crate::Hash;
use crate::error::ListFault;
use crate::hash::{STATE_EMPTY, sha256, state_leaf, state_node};
use crate::layout::{Reader, put_text};
use crate::list::{RELATION_PREFIX_BYTES, member_key, member_value_hash};
use crate::proof::{RELATION_BYTES_MAX, SUBJECT_BYTES_MAX};

/// Node byte: a subtree without members.
pub const NODE_EMPTY: u8 = 0;
/// Node byte: a subtree outside the range, as its hash (32 bytes follow).
pub const NODE_PRUNED: u8 = 1;
/// Node byte: a subtree of one member, whose relation and subject follow.
pub const MEMBER: u8 = 2;
/// Node byte: a subtree of several members; its left half follows, then its right half.
pub const NODE_INNER: u8 = 3;

const KEY_BITS: usize = 256;

/// Appends the node of a member.
///
/// # Panics
/// When a part is longer than 65,535 bytes (the limits are 64 and 512).
pub fn put_member(out: &mut Vec<u8>, relation: &str, subject: &str) {
    out.push(MEMBER);
    put_text(out, relation);
    put_text(out, subject);
}

/// A range of member keys, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub first: Hash,
    /// The last key; not before the first.
    pub last: Hash,
}

impl KeyRange {
    /// Every key.
    pub const ALL: Self = Self { first: [0; 32], last: [0xff; 32] };

    /// The keys of a relation's members. Another relation may have the same range, by chance or by intent.
    pub fn of_relation(relation: &str) -> Self {
        let group = sha256(&[relation.as_bytes()]);
        let mut range = Self::ALL;
        let ends = range.first.iter_mut().zip(range.last.iter_mut());
        for ((first, last), byte) in ends.zip(group).take(RELATION_PREFIX_BYTES) {
            *first = byte;
            *last = byte;
        }
        range
    }

    /// Whether a key lies in the range.
    pub fn contains(&self, key: &Hash) -> bool {
        self.first <= *key && *key <= self.last
    }

    /// Whether every key below a node lies outside of the range.
    pub fn misses(&self, subtree: &Self) -> bool {
        subtree.last < self.first || self.last < subtree.first
    }

    /// The two halves of a subtree's keys at `depth`; both its ends agree on the bits above.
    pub fn halves(&self, depth: usize) -> (Self, Self) {
        let (mut left, mut right) = (*self, *self);
        let mask = 0x80 >> (depth % 8);
        if let (Some(last), Some(first)) = (left.last.get_mut(depth / 8), right.first.get_mut(depth / 8)) {
            *last &= !mask;
            *first |= mask;
        }
        (left, right)
    }
}

/// Checks that `nodes` are the tree with this root and hide nothing in `range`; returns relation and subject of every
/// member in it, in key order.
///
/// There is one form of nodes for a root and a range: what lies outside the range is pruned, what does not is shown.
pub fn verify_range<'a>(
    root: &Hash,
    range: &KeyRange,
    nodes: &'a [u8],
) -> Result<Vec<(&'a str, &'a str)>, ListFault> {
    let mut walk = Walk { reader: Reader::new(nodes), range, members: Vec::new() };
    let computed = walk.node(&KeyRange::ALL, 0)?.hash;
    walk.reader.finish("the page's nodes")?;
    if computed == *root {
        Ok(walk.members)
    } else {
        Err(ListFault::RootMismatch { expected: *root, computed })
    }
}

struct Walk<'a, 'r> {
    reader: Reader<'a>,
    range: &'r KeyRange,
    members: Vec<(&'a str, &'a str)>,
}

/// A subtree that was read.
struct Subtree {
    hash: Hash,
    is_empty: bool,
    is_member: bool,
}

impl<'a> Walk<'a, '_> {
    /// Reads the subtree over `keys`; recursion ends at the last bit of a key.
    fn node(&mut self, keys: &KeyRange, depth: usize) -> Result<Subtree, ListFault> {
        let is_outside = self.range.misses(keys);
        let kind = self.reader.u8("a node of the page")?;
        let (hash, is_empty, is_member) = match kind {
            NODE_EMPTY => (STATE_EMPTY, true, false),
            NODE_PRUNED if !is_outside => return Err(ListFault::Withheld),
            NODE_PRUNED => {
                let hash = self.reader.array("a pruned node")?;
                if hash == STATE_EMPTY {
                    return Err(ListFault::NotCollapsed);
                }
                (hash, false, false)
            }
            MEMBER | NODE_INNER if is_outside => return Err(ListFault::NotPruned),
            MEMBER => (self.member(keys)?, false, true),
            NODE_INNER if depth == KEY_BITS => return Err(ListFault::TooDeep),
            NODE_INNER => {
                let (left_keys, right_keys) = keys.halves(depth);
                let left = self.node(&left_keys, depth + 1)?;
                let right = self.node(&right_keys, depth + 1)?;
                let left_alone = right.is_empty && (left.is_empty || left.is_member);
                let right_alone = left.is_empty && right.is_member;
                if left_alone || right_alone {
                    return Err(ListFault::NotCollapsed);
                }
                (state_node(&left.hash, &right.hash), false, false)
            }
            given => {
                let field = "a node of the page";
                return Err(crate::DecodeError::Unknown { field, given: given.into() }.into());
            }
        };
        Ok(Subtree { hash, is_empty, is_member })
    }

    fn member(&mut self, keys: &KeyRange) -> Result<Hash, ListFault> {
        let relation = self.reader.text("a relation")?;
        let subject = self.reader.text("a subject")?;
        let parts = [("relation", relation, RELATION_BYTES_MAX), ("subject", subject, SUBJECT_BYTES_MAX)];
        for (what, text, bytes_max) in parts {
            // A zero separates the two where they are hashed.
            if text.is_empty() || text.len() > bytes_max || text.contains('\0') {
                return Err(ListFault::Malformed { what });
            }
        }
        let key = member_key(relation, subject);
        if !keys.contains(&key) {
            return Err(ListFault::Misplaced);
        }
        if self.range.contains(&key) {
            self.members.push((relation, subject));
        }
        Ok(state_leaf(&key, &member_value_hash(relation, subject)))
    }
}
