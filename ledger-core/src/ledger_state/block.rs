//! Blocks: collecting the transactions of one log entry for one vault, and sealing them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use ledger_verify::transaction::{
    ActionRef, ConditionRef, OperationRef, RelationshipRef, TransactionHeader, encode_header,
    encode_operation,
};
use ledger_verify::{Hash, hash, log};

use super::idempotency::{KeyDigest, RememberedBlock, payload_digest};
use super::undo::{self, Before, Change};
use super::write::StagedLeaf;
use super::{LedgerState, StateError, Vault, inconsistent, lists};
use crate::codec;
use crate::command::OperationResult;
use crate::list_sets::ListChange;
use crate::names::{VaultId, VaultNumber};
use crate::overlay::Overlay;
use crate::ports::{LogId, Table};
use crate::relationship::Relationship;
use crate::rows::{self, ClientRow, IdempotencyRecord, IdempotencyRow};
use crate::transaction::{Action, Actor, AssertTarget, Condition, IdempotencyKey, Operation, Transaction};

/// The transactions of one vault in the entry that is being applied.
pub(super) struct OpenBlock {
    id: VaultId,
    number: VaultNumber,
    height: u64,
    first_sequence: u64,
    transactions: Vec<Bytes>,
    changes: HashMap<Hash, Change>,
    list_changes: Vec<ListChange>,
    records: Vec<IdempotencyRecord>,
    positions: HashMap<KeyDigest, u32>,
    last_by_actor: BTreeMap<Actor, (u32, IdempotencyKey)>,
}

/// A finished block, as far as receipts need it.
pub(super) struct Sealed {
    pub height: u64,
    pub first_sequence: u64,
    pub block_hash: Hash,
    pub results: Vec<Vec<OperationResult>>,
}

impl OpenBlock {
    pub(super) fn new(id: VaultId, vault: &Vault) -> Self {
        Self {
            id,
            number: vault.number,
            height: vault.header.height + 1,
            first_sequence: vault.header.last_sequence + 1,
            transactions: Vec::new(),
            changes: HashMap::new(),
            list_changes: Vec::new(),
            records: Vec::new(),
            positions: HashMap::new(),
            last_by_actor: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    pub(super) fn height(&self) -> u64 {
        self.height
    }

    /// The sequence number that the next transaction gets.
    pub(super) fn next_version(&self) -> u64 {
        self.first_sequence + self.transactions.len() as u64
    }

    /// What this block already did to a key; the inner `None` = deleted it.
    pub(super) fn change(&self, key_hash: &Hash) -> Option<Option<Hash>> {
        self.changes.get(key_hash).map(|change| change.after)
    }

    /// A transaction of this block by the digest of its idempotency key.
    pub(super) fn record(&self, digest: &KeyDigest) -> Option<(u32, &IdempotencyRecord)> {
        let position = *self.positions.get(digest)?;
        Some((position, self.records.get(position as usize)?))
    }

    /// Adds an evaluated transaction and returns its index in the block.
    pub(super) fn push(
        &mut self,
        actor: &Actor,
        transaction: &Transaction,
        time_ms: u64,
        digest: KeyDigest,
        results: Vec<OperationResult>,
        leaves: HashMap<Hash, StagedLeaf>,
    ) -> u32 {
        let position = self.transactions.len() as u32;
        let key = transaction.idempotency_key();
        let operations = encode_operations(transaction.operations(), &results);
        let header = TransactionHeader {
            vault_id: self.id.0,
            sequence: self.next_version(),
            time_ms,
            idempotency_key: *key.as_bytes(),
            actor: actor.as_str(),
            operation_count: transaction.operations().len() as u16,
        };
        let mut encoded = Vec::with_capacity(operations.len() + 256);
        encode_header(&mut encoded, &header);
        encoded.extend_from_slice(&operations);
        self.transactions.push(encoded.into());
        for (key_hash, staged) in leaves {
            let after = staged.leaf.map(|leaf| hash::sha256(&[&leaf]));
            let first = Change { before: staged.before, after };
            self.changes.entry(key_hash).and_modify(|change| change.after = after).or_insert(first);
        }
        self.list_changes.extend(lists::changes_of(transaction.operations(), &results));
        let payload = payload_digest(&operations);
        self.records.push(IdempotencyRecord { digest, key_ms: key.unix_ms(), payload, results });
        self.positions.insert(digest, position);
        self.last_by_actor.insert(actor.clone(), (position, key));
        position
    }
}

/// The operations as they stand in a canonical transaction.
pub(super) fn encode_operations(operations: &[Operation], results: &[OperationResult]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(64 * operations.len());
    for (operation, result) in operations.iter().zip(results) {
        let condition = operation.condition.as_ref().map(|condition| match condition {
            Condition::MustNotExist => ConditionRef::MustNotExist,
            Condition::MustExist => ConditionRef::MustExist,
            Condition::VersionEquals(version) => ConditionRef::VersionEquals(*version),
            Condition::ValueEquals(value) => ConditionRef::ValueEquals(value.as_bytes()),
        });
        let action = match &operation.action {
            Action::SetEntity { key, value, expires_at_ms } => ActionRef::SetEntity {
                key: key.as_str(),
                value: value.as_bytes(),
                expires_at_ms: *expires_at_ms,
            },
            Action::DeleteEntity { key } => ActionRef::DeleteEntity { key: key.as_str() },
            Action::ExpireEntity { key } => ActionRef::ExpireEntity { key: key.as_str() },
            Action::CreateRelationship(tuple) => ActionRef::CreateRelationship(tuple.as_ref()),
            Action::DeleteRelationship(tuple) => ActionRef::DeleteRelationship(tuple.as_ref()),
            Action::Assert(AssertTarget::Entity(key)) => ActionRef::AssertEntity { key: key.as_str() },
            Action::Assert(AssertTarget::Relationship(tuple)) => {
                ActionRef::AssertRelationship(tuple.as_ref())
            }
        };
        encode_operation(&mut encoded, &OperationRef { action, condition, result: *result as u8 });
    }
    encoded
}

impl Relationship {
    /// The tuple as the canonical encodings take it.
    pub fn as_ref(&self) -> RelationshipRef<'_> {
        RelationshipRef {
            resource: self.resource.as_str(),
            relation: self.relation.as_str(),
            subject: self.subject.as_str(),
        }
    }
}

impl LedgerState {
    /// Makes the block: state root, header, log tree, rows.
    pub(super) fn seal(&mut self, at: LogId, time_ms: u64, block: OpenBlock) -> Result<Sealed, StateError> {
        let vault = self.vaults.get_mut(&block.id).ok_or_else(|| inconsistent("a block has no vault"))?;
        let OpenBlock {
            id,
            number,
            height,
            first_sequence,
            transactions,
            mut changes,
            list_changes,
            records,
            last_by_actor,
            ..
        } = block;
        put_tombstones(&mut self.overlay, number, height, &changes);
        for (key_hash, after) in vault.change_lists(list_changes, self.header_version) {
            // Derived from the relationships: nobody asks when it was written.
            let before =
                vault.tree.get(&key_hash).map(|value_hash| Before { value_hash, modified_height: 0 });
            changes.insert(key_hash, Change { before, after });
        }
        let changes = undo::in_key_order(changes);
        self.overlay.put(Table::Undo, rows::undo_key(number, height), undo::encode(&changes));
        vault.tree.update(changes.iter().map(|(key_hash, change)| (*key_hash, change.after)).collect());
        let leaves: Vec<Hash> = transactions.iter().map(|transaction| hash::log_leaf(transaction)).collect();
        vault.header = BlockHeader {
            height,
            previous: vault.block_hash,
            tx_root: log::root_of(&leaves),
            tx_count: transactions.len() as u32,
            state_root: vault.tree.root(),
            time_ms,
            term: at.term,
            index: at.index,
            first_sequence,
            last_sequence: first_sequence + transactions.len() as u64 - 1,
            ..vault.header
        };
        let block_hash = vault.header.leaf_hash();
        vault.block_hash = block_hash;
        for tile in vault.log.append(block_hash) {
            self.overlay.put(
                Table::Tiles,
                rows::tile_key(number, tile.level, tile.number),
                tile.hashes.concat(),
            );
        }
        self.overlay.put(Table::Blocks, rows::header_key(number, height), vault.header.encode().to_vec());
        self.overlay.put(Table::Blocks, rows::body_key(number, height), rows::encode_body(&transactions));
        vault.compact_after_seal(&mut self.overlay)?;
        self.overlay.put(Table::Vaults, rows::vault_prefix(number), vault.row(id, None)?);
        for (actor, (position, idempotency_key)) in last_by_actor {
            let row = ClientRow {
                idempotency_key,
                height,
                version: first_sequence + u64::from(position),
                index_in_block: position,
                block_hash,
                time_ms,
                results: records
                    .get(position as usize)
                    .map(|record| record.results.clone())
                    .unwrap_or_default(),
            };
            self.overlay.put(
                Table::Clients,
                rows::client_key(number, &actor),
                codec::encode("a client row", &row)?,
            );
        }
        let remembered = RememberedBlock { log_index: at.index, vault: number, time_ms };
        let digests: Vec<KeyDigest> = records.iter().map(|record| record.digest).collect();
        let results = records.iter().map(|record| record.results.clone()).collect();
        let row = IdempotencyRow { height, first_sequence, block_hash, time_ms, records };
        let row = codec::encode("an idempotency row", &row)?;
        self.idempotency.remember(remembered, &row, digests.into_iter());
        self.overlay.put(Table::Idempotency, rows::idempotency_key(at.index, number), row);
        Ok(Sealed { height, first_sequence, block_hash, results })
    }
}

/// Says of each key that the block deleted that it did.
fn put_tombstones(overlay: &mut Overlay, number: VaultNumber, height: u64, changes: &HashMap<Hash, Change>) {
    for (key_hash, _) in changes.iter().filter(|(_, change)| change.after.is_none()) {
        overlay.put(Table::Tombstones, rows::tombstone_key(number, key_hash, height), Bytes::new());
    }
}
