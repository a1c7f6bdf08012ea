//! A vault of five blocks made by hand, signed with a fixed seed, and a few ways to damage things.

use std::collections::BTreeMap;

use ledger_verify::Hash;
use ledger_verify::hash::{log_leaf, sha256};
use ledger_verify::header::BlockHeader;
use ledger_verify::log::{inclusion_path, root_of};
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey};
use ledger_verify::proof::{Evidence, Subject, log_key_name, log_origin};
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{
    ActionRef, ConditionRef, OperationRef, RESULT_ALREADY_EXISTS, RESULT_CREATED, RESULT_DELETED,
    RESULT_HELD, RESULT_NOT_FOUND, RESULT_UPDATED, RelationshipRef, TransactionHeader, encode_header,
    encode_operation,
};

use crate::state_oracle::StateTree;

pub const LEDGER_ID: [u8; 16] = *b"\x01\x93\x1f\x2e\x4a\x00\x70\x01\x8a\x5b\x10\x20\x30\x40\x50\x60";
pub const VAULT_ID: [u8; 16] = *b"\x01\x93\x1f\x2e\x4b\x11\x72\x34\x9c\x6d\xa1\xb2\xc3\xd4\xe5\xf6";
pub const SEED: [u8; 32] = *b"a seed for golden files only ...";
/// Unix time of the genesis block; each later block is a second after the one before.
pub const GENESIS_TIME_MS: u64 = 1_763_700_000_000;
pub const VIEWER: RelationshipRef<'static> =
    RelationshipRef { resource: "document:42", relation: "viewer", subject: "user:ada" };

/// Flips one bit, counted from the most significant bit of the first byte as the state tree counts.
pub fn flip(hash: &Hash, bit: usize) -> Hash {
    let mut hash = *hash;
    hash[bit / 8] ^= 0x80 >> (bit % 8);
    hash
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn hash_of_hex(text: &str) -> Hash {
    assert_eq!(text.len(), 64);
    std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
}

pub fn log_key() -> SigningKey {
    SigningKey::from_seed(&log_key_name(&LEDGER_ID), &SEED).unwrap()
}

/// Encoded leaf values by key bytes.
type Leaves = BTreeMap<Vec<u8>, Vec<u8>>;

/// The vault: its headers, its final state and what a signer would hand out.
pub struct Vault {
    pub headers: Vec<BlockHeader>,
    pub transactions: Vec<Vec<Vec<u8>>>,
    /// The last state: its tree, and its encoded leaves by key bytes.
    pub tree: StateTree,
    pub leaves: Leaves,
    states: Vec<(StateTree, Leaves)>,
    next_sequence: u64,
}

impl Vault {
    /// Genesis and four blocks that write, relate, change, assert, expire and delete.
    pub fn five_blocks() -> Self {
        let mut vault = Self {
            headers: Vec::new(),
            transactions: Vec::new(),
            tree: StateTree::default(),
            leaves: BTreeMap::new(),
            states: Vec::new(),
            next_sequence: 1,
        };
        vault.seal(&[]);
        vault.seal(&[("user:ada", first_writes())]);
        vault.seal(&[("user:ada", relations()), ("client:ci", repeated_relation())]);
        vault.seal(&[("client:ci", guarded_change()), ("user:ada", missing_delete())]);
        vault.seal(&[(
            "system:gc",
            vec![op(ActionRef::ExpireEntity { key: "session/9" }, None, RESULT_DELETED)],
        )]);
        vault
    }

    fn seal(&mut self, transactions: &[(&str, Vec<OperationRef<'static>>)]) {
        let height = self.headers.len() as u64;
        let first_sequence = self.next_sequence;
        let mut encoded = Vec::new();
        for (actor, operations) in transactions {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let header = TransactionHeader {
                vault_id: VAULT_ID,
                sequence,
                time_ms: GENESIS_TIME_MS + 1_000 * height,
                idempotency_key: sha256(&[b"idempotency", &sequence.to_be_bytes()])[..16].try_into().unwrap(),
                actor,
                operation_count: operations.len() as u16,
            };
            let mut bytes = Vec::new();
            encode_header(&mut bytes, &header);
            for operation in operations {
                encode_operation(&mut bytes, operation);
                self.apply(operation, height, sequence);
            }
            encoded.push(bytes);
        }
        let leaves: Vec<Hash> = encoded.iter().map(|bytes| log_leaf(bytes)).collect();
        self.headers.push(BlockHeader {
            version: 1,
            ledger_id: LEDGER_ID,
            vault_id: VAULT_ID,
            height,
            previous: self.headers.last().map_or([0; 32], BlockHeader::leaf_hash),
            tx_root: root_of(&leaves),
            tx_count: leaves.len() as u32,
            state_root: self.tree.root(),
            time_ms: GENESIS_TIME_MS + 1_000 * height,
            term: 1,
            index: 3 + height,
            first_sequence,
            last_sequence: self.next_sequence - 1,
        });
        self.transactions.push(encoded);
        self.states.push((self.tree.clone(), self.leaves.clone()));
    }

    fn apply(&mut self, operation: &OperationRef<'_>, height: u64, sequence: u64) {
        let (key, leaf) = match operation.action {
            ActionRef::SetEntity { key, value, expires_at_ms } => {
                let kind = LeafKind::Entity;
                let leaf =
                    LeafValue { kind, modified_height: height, version: sequence, expires_at_ms, value };
                (StateKey::Entity { key }, Some(leaf))
            }
            ActionRef::CreateRelationship(tuple) if operation.result == RESULT_CREATED => {
                let leaf = LeafValue {
                    kind: LeafKind::Relationship,
                    modified_height: height,
                    version: sequence,
                    expires_at_ms: 0,
                    value: b"",
                };
                (StateKey::Relationship(tuple), Some(leaf))
            }
            ActionRef::DeleteEntity { key } | ActionRef::ExpireEntity { key } => {
                (StateKey::Entity { key }, None)
            }
            ActionRef::DeleteRelationship(tuple) => (StateKey::Relationship(tuple), None),
            _ => return,
        };
        match leaf {
            Some(leaf) => {
                self.tree.leaves.insert(key.hash(), leaf.hash());
                self.leaves.insert(key.encode(), leaf.encode());
            }
            None => {
                self.tree.leaves.remove(&key.hash());
                self.leaves.remove(&key.encode());
            }
        }
    }

    pub fn log(&self) -> Vec<Hash> {
        self.headers.iter().map(BlockHeader::leaf_hash).collect()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let origin = log_origin(&LEDGER_ID, &VAULT_ID);
        Checkpoint { origin, size: self.headers.len() as u64, root: root_of(&self.log()) }
    }

    /// What a reader gets for a subject at the last block.
    pub fn evidence(&self, subject: &Subject) -> Evidence {
        self.evidence_at(subject, self.headers.len() - 1)
    }

    /// What a reader gets for a subject at an older block, under the newest checkpoint.
    pub fn evidence_at(&self, subject: &Subject, height: usize) -> Evidence {
        let key = subject.state_key();
        let (tree, leaves) = &self.states[height];
        Evidence {
            leaf: leaves.get(&key.encode()).cloned(),
            state_proof: tree.prove(&key.hash()),
            header: self.headers[height].encode().to_vec(),
            inclusion_path: inclusion_path(&self.log(), height).unwrap(),
            checkpoint: SignedCheckpoint::sign(&self.checkpoint(), &log_key()),
        }
    }

    /// A key without a leaf, whose proof ends at another leaf or at an empty place.
    pub fn absent(&self, ends_at_leaf: bool) -> Subject {
        (0..)
            .map(|number| entity(&format!("missing/{number}")))
            .find(|subject| self.tree.prove(&subject.state_key().hash()).other_leaf.is_some() == ends_at_leaf)
            .unwrap()
    }
}

pub fn entity(key: &str) -> Subject {
    Subject::Entity { key: key.to_owned() }
}

pub fn relationship(tuple: &RelationshipRef<'_>) -> Subject {
    Subject::Relationship {
        resource: tuple.resource.to_owned(),
        relation: tuple.relation.to_owned(),
        subject: tuple.subject.to_owned(),
    }
}

fn op(
    action: ActionRef<'static>,
    condition: Option<ConditionRef<'static>>,
    result: u8,
) -> OperationRef<'static> {
    OperationRef { action, condition, result }
}

fn first_writes() -> Vec<OperationRef<'static>> {
    let set = |key, value, expires_at_ms| ActionRef::SetEntity { key, value, expires_at_ms };
    vec![
        op(set("config/limit", b"100", 0), Some(ConditionRef::MustNotExist), RESULT_CREATED),
        op(set("config/region", "Zürich".as_bytes(), GENESIS_TIME_MS + 86_400_000), None, RESULT_CREATED),
        op(set("session/9", b"", GENESIS_TIME_MS + 2_500), None, RESULT_CREATED),
    ]
}

fn relations() -> Vec<OperationRef<'static>> {
    let owner = RelationshipRef { resource: "document:42", relation: "owner", subject: "team:core#member" };
    vec![
        op(ActionRef::CreateRelationship(VIEWER), None, RESULT_CREATED),
        op(ActionRef::CreateRelationship(owner), None, RESULT_CREATED),
        op(ActionRef::DeleteRelationship(owner), Some(ConditionRef::MustExist), RESULT_DELETED),
    ]
}

fn repeated_relation() -> Vec<OperationRef<'static>> {
    vec![op(ActionRef::CreateRelationship(VIEWER), None, RESULT_ALREADY_EXISTS)]
}

fn guarded_change() -> Vec<OperationRef<'static>> {
    let set = ActionRef::SetEntity { key: "config/limit", value: b"250", expires_at_ms: 0 };
    let region = ActionRef::AssertEntity { key: "config/region" };
    vec![
        op(set, Some(ConditionRef::VersionEquals(1)), RESULT_UPDATED),
        op(region, Some(ConditionRef::ValueEquals("Zürich".as_bytes())), RESULT_HELD),
        op(ActionRef::AssertRelationship(VIEWER), Some(ConditionRef::MustExist), RESULT_HELD),
    ]
}

fn missing_delete() -> Vec<OperationRef<'static>> {
    vec![op(ActionRef::DeleteEntity { key: "config/colour" }, None, RESULT_NOT_FOUND)]
}
