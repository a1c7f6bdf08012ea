//! Whole proofs: from a key and its answer to the signed checkpoint of the vault's log, and their JSON documents.

pub(crate) mod json;

use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::error::ProofError;
use crate::hash::sha256;
use crate::header::BlockHeader;
use crate::hex;
use crate::log;
use crate::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use crate::state::{LEAF_PREFIX_BYTES, LeafValue, SIBLINGS_MAX, StateKey, StateProof};
use crate::transaction::RelationshipRef;

pub use json::{DOCUMENT_BYTES_MAX, FORMAT, from_json, to_json};

/// Longest entity key, in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Longest resource, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 512;
/// Longest relation, in bytes.
pub const RELATION_BYTES_MAX: usize = 64;
/// Longest subject of a relationship, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 512;
/// Largest user value, in bytes (1 MiB).
pub const VALUE_BYTES_MAX: usize = 1_048_576;

/// What was asked. Take it from your own question, never from the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Subject {
    /// The entity under a key.
    Entity {
        /// The key, 1 to 1,024 bytes.
        key: String,
    },
    /// Whether a relationship exists.
    Relationship {
        /// The resource, 1 to 512 bytes.
        resource: String,
        /// The relation, 1 to 64 bytes.
        relation: String,
        /// The subject, 1 to 512 bytes.
        subject: String,
    },
}

impl Subject {
    /// The state tree's key.
    pub fn state_key(&self) -> StateKey<'_> {
        match self {
            Self::Entity { key } => StateKey::Entity { key },
            Self::Relationship { resource, relation, subject } => {
                StateKey::Relationship(RelationshipRef { resource, relation, subject })
            }
        }
    }

    fn check_limits(&self) -> Result<(), ProofError> {
        match self {
            Self::Entity { key } => part("the key", key, KEY_BYTES_MAX),
            Self::Relationship { resource, relation, subject } => {
                part("the resource", resource, RESOURCE_BYTES_MAX)?;
                part("the relation", relation, RELATION_BYTES_MAX)?;
                part("the subject", subject, SUBJECT_BYTES_MAX)
            }
        }
    }
}

/// The parts of a verified answer, on the wire or in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The encoded [`LeafValue`]; `None` when the answer is absence.
    pub leaf: Option<Vec<u8>>,
    /// From the leaf, or from where it would stand, to the state root.
    pub state_proof: StateProof,
    /// The encoded block header that holds the state root.
    pub header: Vec<u8>,
    /// From the header to the log root, bottom first.
    pub inclusion_path: Vec<Hash>,
    /// The signed checkpoint that holds the log root.
    pub checkpoint: String,
}

/// What a verified proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The ledger.
    pub ledger_id: [u8; 16],
    /// The vault.
    pub vault_id: [u8; 16],
    /// What the claim is about.
    pub subject: Subject,
    /// Whether the tree has a leaf for the subject.
    pub present: bool,
    /// The user's value; `None` for an absent entity and for every relationship.
    pub value: Option<Vec<u8>>,
    /// Sequence number of the transaction that wrote it last; 0 when absent.
    pub version: u64,
    /// Height of the block that wrote it last; 0 when absent.
    pub modified_height: u64,
    /// Unix time in milliseconds after which it is hidden; 0 = never, and 0 when absent.
    pub expires_at_ms: u64,
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

impl Claim {
    /// Whether the record has an expiry that lies before `now_ms` (Unix time in milliseconds).
    ///
    /// A ledger removes expired records a little later, so a proof can show one that is over.
    pub fn expired_at(&self, now_ms: u64) -> bool {
        self.present && self.expires_at_ms != 0 && self.expires_at_ms < now_ms
    }
}

/// The name that the log key of a ledger must have: `strongroom/<ledger id, 32 hex digits>`.
pub fn log_key_name(ledger_id: &[u8; 16]) -> String {
    format!("strongroom/{}", hex::encode(ledger_id))
}

/// The origin of a vault's checkpoints: the key name, `/` and the vault's hyphenated UUID.
pub fn log_origin(ledger_id: &[u8; 16], vault_id: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i, j, node @ ..] = *vault_id;
    let groups: [&[u8]; 5] = [&[a, b, c, d], &[e, f], &[g, h], &[i, j], &node];
    format!("{}/{}", log_key_name(ledger_id), groups.map(hex::encode).join("-"))
}

/// Checks a whole proof against the keys that the caller trusts and returns what it shows.
///
/// The checkpoint must be signed by one of `keys`, which must be the log key of the header's ledger, for the
/// header's vault; the header must be the leaf at its own height under the checkpoint; the leaf, or its absence,
/// must follow from the header's state root. Compare `ledger_id` and `vault_id` of the claim with what you asked.
pub fn verify(subject: &Subject, evidence: &Evidence, keys: &[VerifierKey]) -> Result<Claim, ProofError> {
    subject.check_limits()?;
    evidence.check_limits()?;
    let Anchor { header, block_hash, checkpoint, key_name } = anchor(evidence, keys)?;
    let leaf = verify_state(subject, evidence, &header)?;

    Ok(Claim {
        ledger_id: header.ledger_id,
        vault_id: header.vault_id,
        subject: subject.clone(),
        present: leaf.is_some(),
        value: match subject {
            Subject::Entity { .. } => leaf.map(|leaf| leaf.value.to_vec()),
            Subject::Relationship { .. } => None,
        },
        version: leaf.map_or(0, |leaf| leaf.version),
        modified_height: leaf.map_or(0, |leaf| leaf.modified_height),
        expires_at_ms: leaf.map_or(0, |leaf| leaf.expires_at_ms),
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

/// A header that a trusted key answers for.
pub(crate) struct Anchor {
    pub(crate) header: BlockHeader,
    pub(crate) block_hash: Hash,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) key_name: String,
}

/// From the signature to the header: everything of a proof but its state.
pub(crate) fn anchor(evidence: &Evidence, keys: &[VerifierKey]) -> Result<Anchor, ProofError> {
    let header = BlockHeader::decode(&evidence.header)?;
    let signed = SignedCheckpoint::parse(&evidence.checkpoint)?;
    let key = signed.verify(keys)?;
    let checkpoint = signed.checkpoint().clone();
    check_names(&header, key.name(), &checkpoint.origin)?;
    let block_hash = header.leaf_hash();
    let path = &evidence.inclusion_path;
    log::verify_inclusion(&block_hash, header.height, checkpoint.size, path, &checkpoint.root)?;
    Ok(Anchor { header, block_hash, checkpoint, key_name: key.name().to_owned() })
}

fn verify_state<'e>(
    subject: &Subject,
    evidence: &'e Evidence,
    header: &BlockHeader,
) -> Result<Option<LeafValue<'e>>, ProofError> {
    let state_key = subject.state_key();
    let key_hash = state_key.hash();
    match &evidence.leaf {
        Some(bytes) => {
            let leaf = LeafValue::decode(bytes)?;
            if leaf.kind != state_key.kind() {
                return Err(ProofError::KindMismatch);
            }
            evidence.state_proof.verify_presence(&header.state_root, &key_hash, &sha256(&[bytes]))?;
            Ok(Some(leaf))
        }
        None => {
            evidence.state_proof.verify_absence(&header.state_root, &key_hash)?;
            Ok(None)
        }
    }
}

impl Evidence {
    pub(crate) fn check_limits(&self) -> Result<(), ProofError> {
        let leaf_bytes = self.leaf.as_ref().map_or(0, Vec::len);
        at_most("the leaf", leaf_bytes, LEAF_PREFIX_BYTES + VALUE_BYTES_MAX)?;
        at_most("the state proof", self.state_proof.siblings.len(), SIBLINGS_MAX)?;
        at_most("the log path", self.inclusion_path.len(), log::PATH_MAX)
    }
}

fn check_names(header: &BlockHeader, key_name: &str, origin: &str) -> Result<(), ProofError> {
    let expected = log_key_name(&header.ledger_id);
    if key_name != expected {
        return Err(ProofError::KeyName { key_name: key_name.to_owned(), expected });
    }
    let expected = log_origin(&header.ledger_id, &header.vault_id);
    if origin != expected {
        return Err(ProofError::Origin { origin: origin.to_owned(), expected });
    }
    Ok(())
}

pub(crate) fn part(what: &'static str, text: &str, max: usize) -> Result<(), ProofError> {
    if text.is_empty() {
        return Err(ProofError::EmptySubject { what });
    }
    at_most(what, text.len(), max)
}

pub(crate) fn at_most(what: &'static str, given: usize, max: usize) -> Result<(), ProofError> {
    if given <= max { Ok(()) } else { Err(ProofError::TooLarge { what, given, max }) }
}
