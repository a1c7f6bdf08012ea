//! Lists that are proved complete: all relationships of a resource, or of a resource and a relation.
//!
//! Every resource with relationships has a **set**: a tree of the same hashes as the state tree, over the (relation,
//! subject) pairs of the resource. The state tree holds a leaf with the set's root and count. A **page** shows every
//! member of the set whose key lies in a range, and the hashes of what lies beside the range, so that the set's root
//! can be computed from it; pages that tile all keys of a resource, or those of one relation, are a complete list.

mod json;
mod range;

pub use json::{DOCUMENT_BYTES_MAX, from_json, is_list_document, to_json};
pub use range::{KeyRange, MEMBER, NODE_EMPTY, NODE_INNER, NODE_PRUNED, put_member, verify_range};

use crate::Hash;
use crate::error::{DecodeError, ListFault, ProofError};
use crate::hash::sha256;
use crate::layout::{Reader, put};
use crate::note::VerifierKey;
use crate::proof::{self, Anchor, Evidence, RELATION_BYTES_MAX, RESOURCE_BYTES_MAX};

/// Bytes of an encoded [`ListLeaf`].
pub const LEAF_BYTES: usize = 42;
/// Leading bytes of a member's key that follow from its relation alone.
pub const RELATION_PREFIX_BYTES: usize = 2;
/// Most pages of one list.
pub const PAGES_MAX: usize = 16_384;
/// Most bytes of nodes in all pages of one list (46 MiB: as base64 they fit a document).
pub const NODES_BYTES_MAX: usize = 46 * 1_048_576;

const LEAF_VERSION: u8 = 1;
const LIST: u8 = 3;
const MEMBER_VALUE_TAG: &[u8] = &[0x05];
/// Between relation and subject; neither can contain it.
const SEPARATOR: &[u8] = &[0x00];

/// Path of a resource's list leaf in the state tree: SHA-256(0x03, resource).
pub fn state_key_hash(resource: &str) -> Hash {
    sha256(&[&[LIST], resource.as_bytes()])
}

/// Path of a member in its set: the first bytes of SHA-256(relation), then the first of
/// SHA-256(relation, 0x00, subject).
pub fn member_key(relation: &str, subject: &str) -> Hash {
    let group = sha256(&[relation.as_bytes()]);
    let own = sha256(&[relation.as_bytes(), SEPARATOR, subject.as_bytes()]);
    let bytes = group.into_iter().take(RELATION_PREFIX_BYTES).chain(own);
    let mut key = [0; 32];
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

/// What a set commits to under a member's key: SHA-256(0x05, relation, 0x00, subject).
pub fn member_value_hash(relation: &str, subject: &str) -> Hash {
    sha256(&[MEMBER_VALUE_TAG, relation.as_bytes(), SEPARATOR, subject.as_bytes()])
}

/// What the state tree commits to under a resource's list key. A resource without relationships has no such leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLeaf {
    /// Relationships of the resource, at least 1.
    pub count: u64,
    /// Root of the set.
    pub root: Hash,
}

impl ListLeaf {
    /// The canonical bytes.
    pub fn encode(&self) -> [u8; LEAF_BYTES] {
        let mut out = [0; LEAF_BYTES];
        let mut rest: &mut [u8] = &mut out;
        rest = put(rest, [LEAF_VERSION, LIST]);
        rest = put(rest, self.count.to_be_bytes());
        put(rest, self.root);
        out
    }

    /// Reads the canonical bytes; refuses another size, version or kind, and a count of 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != LEAF_BYTES {
            return Err(DecodeError::Length {
                what: "the leaf of a list",
                expected: LEAF_BYTES,
                given: bytes.len(),
            });
        }
        let mut reader = Reader::new(bytes);
        for (field, known) in [("the leaf version", LEAF_VERSION), ("the leaf kind", LIST)] {
            let given = reader.u8(field)?;
            if given != known {
                return Err(DecodeError::Unknown { field, given: given.into() });
            }
        }
        let leaf = Self { count: reader.u64("the count")?, root: reader.array("the set's root")? };
        if leaf.count == 0 {
            return Err(DecodeError::Unknown { field: "the count", given: 0 });
        }
        Ok(leaf)
    }

    /// SHA-256 of the canonical bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.encode()])
    }
}

/// Which list was asked for. Take it from your own question, never from the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListSubject {
    /// The resource, 1 to 512 bytes.
    pub resource: String,
    /// Only this relation, 1 to 64 bytes; `None` = all.
    pub relation: Option<String>,
}

impl ListSubject {
    /// The keys that a complete list has to cover.
    pub fn range(&self) -> KeyRange {
        self.relation.as_deref().map_or(KeyRange::ALL, KeyRange::of_relation)
    }

    fn check_limits(&self) -> Result<(), ProofError> {
        proof::part("the resource", &self.resource, RESOURCE_BYTES_MAX)?;
        match &self.relation {
            Some(relation) => proof::part("the relation", relation, RELATION_BYTES_MAX),
            None => Ok(()),
        }
    }
}

/// One page of a list. It begins where the page before ended, the first at the first key of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The last key that it covers: that of its last member, or on the last page that of the list's range.
    pub last_key: Hash,
    /// The set's tree as far as the page shows it, see `docs/formats.md`.
    pub nodes: Vec<u8>,
}

/// The parts of a list that proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEvidence {
    /// The list's leaf, or that there is none, up to the signed checkpoint.
    pub head: Evidence,
    /// The pages in order; none when there is no leaf.
    pub pages: Vec<ListPage>,
}

/// One relationship of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The relation.
    pub relation: String,
    /// The subject.
    pub subject: String,
}

/// What a verified list shows: these members and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListClaim {
    /// The ledger.
    pub ledger_id: [u8; 16],
    /// The vault.
    pub vault_id: [u8; 16],
    /// What the claim is about.
    pub subject: ListSubject,
    /// All members, ordered by relation, then subject.
    pub members: Vec<Member>,
    /// Relationships of the resource, of every relation.
    pub resource_count: u64,
    /// Height of the block whose state is shown.
    pub height: u64,
    /// Log leaf hash of that block's header.
    pub block_hash: Hash,
    /// State root in that header.
    pub state_root: Hash,
    /// Unix time in milliseconds in that header.
    pub time_ms: u64,
    /// Blocks under the checkpoint.
    pub checkpoint_size: u64,
    /// Log root in the checkpoint.
    pub checkpoint_root: Hash,
    /// Origin of the checkpoint.
    pub origin: String,
    /// Name of the trusted key that signed it.
    pub key_name: String,
}

/// Checks a whole list against the keys that the caller trusts and returns all of its members.
///
/// The checkpoint and the header are held to what [`proof::verify`] demands. The header must cover lists; the
/// resource's list leaf, or its absence, must follow from the header's state root; the pages must tile the keys of the
/// subject without a gap or an overlap, lead to the leaf's root each, and, for all relations, hold as many members as
/// the leaf counts. Compare `ledger_id` and `vault_id` of the claim with what you asked.
pub fn verify(
    subject: &ListSubject,
    evidence: &ListEvidence,
    keys: &[VerifierKey],
) -> Result<ListClaim, ProofError> {
    subject.check_limits()?;
    evidence.check_limits()?;
    let Anchor { header, block_hash, checkpoint, key_name } = proof::anchor(&evidence.head, keys)?;
    if !header.covers_lists() {
        return Err(ProofError::ListsNotCovered { given: header.version });
    }
    let key_hash = state_key_hash(&subject.resource);
    let state_proof = &evidence.head.state_proof;
    let (resource_count, members) = match &evidence.head.leaf {
        None => {
            state_proof.verify_absence(&header.state_root, &key_hash)?;
            if !evidence.pages.is_empty() {
                return Err(ProofError::ListIncomplete { fault: ListFault::PagesOfNothing });
            }
            (0, Vec::new())
        }
        Some(bytes) => {
            let leaf = ListLeaf::decode(bytes)?;
            state_proof.verify_presence(&header.state_root, &key_hash, &sha256(&[bytes]))?;
            (leaf.count, verify_pages(subject, &leaf, &evidence.pages)?)
        }
    };
    Ok(ListClaim {
        ledger_id: header.ledger_id,
        vault_id: header.vault_id,
        subject: subject.clone(),
        members,
        resource_count,
        height: header.height,
        block_hash,
        state_root: header.state_root,
        time_ms: header.time_ms,
        checkpoint_size: checkpoint.size,
        checkpoint_root: checkpoint.root,
        origin: checkpoint.origin,
        key_name,
    })
}

fn verify_pages(
    subject: &ListSubject,
    leaf: &ListLeaf,
    pages: &[ListPage],
) -> Result<Vec<Member>, ProofError> {
    let asked = subject.range();
    let mut next = Some(asked.first);
    let mut shown = 0_u64;
    let mut members = Vec::new();
    for (page, content) in pages.iter().enumerate() {
        let refused = |fault| ProofError::ListPage { page, fault };
        let first = next.filter(|first| *first <= content.last_key && content.last_key <= asked.last);
        let first = first.ok_or_else(|| refused(ListFault::Range))?;
        let range = KeyRange { first, last: content.last_key };
        let in_range = verify_range(&leaf.root, &range, &content.nodes).map_err(refused)?;
        // So that a list has one form for each way to divide its members.
        let ends_well = match in_range.last() {
            Some((relation, subject)) => {
                content.last_key == asked.last || content.last_key == member_key(relation, subject)
            }
            None => page == 0 && content.last_key == asked.last,
        };
        if !ends_well {
            return Err(refused(ListFault::End));
        }
        for (relation, subject_of) in in_range {
            shown += 1;
            // Relations may share a prefix; those that were not asked for are not part of the answer.
            if subject.relation.as_deref().is_none_or(|asked| asked == relation) {
                members.push(Member { relation: relation.to_owned(), subject: subject_of.to_owned() });
            }
        }
        next = if content.last_key == asked.last { None } else { successor(&content.last_key) };
    }
    if next.is_some() {
        return Err(ProofError::ListIncomplete { fault: ListFault::Unfinished });
    }
    if shown > leaf.count || (subject.relation.is_none() && shown != leaf.count) {
        return Err(ProofError::ListIncomplete { fault: ListFault::Count { counted: leaf.count, shown } });
    }
    members.sort_unstable();
    Ok(members)
}

/// The key after a key; `None` after the last of all.
pub fn successor(key: &Hash) -> Option<Hash> {
    let mut next = *key;
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

impl ListEvidence {
    fn check_limits(&self) -> Result<(), ProofError> {
        self.head.check_limits()?;
        proof::at_most("the pages", self.pages.len(), PAGES_MAX)?;
        let bytes = self.pages.iter().map(|page| page.nodes.len()).sum();
        proof::at_most("the nodes of all pages", bytes, NODES_BYTES_MAX)
    }
}
