//! Applying transactions: conditions, results, exactly once.

use std::collections::BTreeMap;
use std::collections::HashMap;

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};

use super::block::{OpenBlock, Sealed, encode_operations};
use super::idempotency::{self, KeyDigest, RecordPlace, payload_digest};
use super::undo::Before;
use super::{KEYS_MAX, LedgerState, StateError, Vault, inconsistent};
use crate::codec;
use crate::command::{
    ConditionFailure, OperationResult, REFUSAL_VALUE_BYTES_MAX, Receipt, Submission, WriteRefusal,
};
use crate::entity::EntityKey;
use crate::names::{VaultId, VaultNumber};
use crate::overlay::Overlay;
use crate::planted_bugs::{PlantedBug, is_planted};
use crate::ports::{LogId, Table};
use crate::relationship::Relationship;
use crate::rows::{self, IdempotencyRow};
use crate::transaction::{Action, Actor, AssertTarget, Condition, Operation, Transaction};

/// The answer to a submission before its block has a hash.
enum Answer {
    Refused(WriteRefusal),
    Remembered(Receipt),
    InBlock { vault: VaultId, number: VaultNumber, position: u32, replayed: bool },
}

impl LedgerState {
    pub(super) fn write(
        &mut self,
        at: LogId,
        time_ms: u64,
        submissions: &[Submission],
    ) -> Result<Vec<Result<Receipt, WriteRefusal>>, StateError> {
        self.forget_old_keys(time_ms)?;
        let mut blocks = BTreeMap::new();
        let mut answers = Vec::with_capacity(submissions.len());
        let mut postponed = BTreeMap::new();
        for submission in submissions {
            let answer = self.submit(time_ms, submission, &mut blocks)?;
            if matches!(answer, Answer::Refused(WriteRefusal::VaultDiverged { .. })) {
                postponed.entry(submission.vault).or_insert_with(Vec::new).push(submission.clone());
            }
            answers.push(answer);
        }
        self.postpone(at, time_ms, postponed)?;
        let mut sealed = BTreeMap::new();
        for (number, block) in blocks {
            if !block.is_empty() {
                sealed.insert(number, self.seal(at, time_ms, block)?);
            }
        }
        answers.into_iter().map(|answer| finish(answer, time_ms, &sealed)).collect()
    }

    /// Keys with an earlier time are refused: their records may be gone.
    fn floor_ms(&self, time_ms: u64) -> u64 {
        let forgotten = self.identity.as_ref().map_or(0, |row| row.forgotten_before_ms);
        forgotten.max(time_ms.saturating_sub(idempotency::WINDOW_MS))
    }

    fn forget_old_keys(&mut self, time_ms: u64) -> Result<(), StateError> {
        while let Some(oldest) = self.idempotency.due(time_ms) {
            let row_key = rows::idempotency_key(oldest.log_index, oldest.vault);
            let stored = self.stored_idempotency_row(&row_key)?;
            let row: IdempotencyRow = codec::decode("an idempotency row", &stored)?;
            let newest_key_ms = row.records.iter().map(|record| record.key_ms).max().unwrap_or(0);
            if let Some(identity) = self.identity.as_mut() {
                identity.forgotten_before_ms = identity.forgotten_before_ms.max(newest_key_ms + 1);
            }
            self.idempotency.forget_oldest(&stored, row.records.iter().map(|record| record.digest));
            self.overlay.delete(Table::Idempotency, row_key);
        }
        Ok(())
    }

    fn submit(
        &mut self,
        time_ms: u64,
        submission: &Submission,
        blocks: &mut BTreeMap<VaultNumber, OpenBlock>,
    ) -> Result<Answer, StateError> {
        let floor_ms = self.floor_ms(time_ms);
        let Some(vault) = self.vaults.get(&submission.vault) else {
            return Ok(Answer::Refused(WriteRefusal::VaultNotFound));
        };
        let Submission { vault: id, actor, transaction } = submission;
        let number = vault.number;
        let key = transaction.idempotency_key();
        let digest = idempotency::key_digest(*id, actor, key);
        if let Some(place) = self.idempotency.place(&digest) {
            return self.replay(*id, place, transaction);
        }
        let block = blocks.entry(number).or_insert_with(|| OpenBlock::new(*id, vault));
        if let Some((position, record)) = block.record(&digest) {
            let same = is_same_payload(&record.payload, &record.results, transaction);
            return Ok(if same {
                Answer::InBlock { vault: *id, number, position, replayed: true }
            } else {
                Answer::Refused(WriteRefusal::IdempotencyMismatch)
            });
        }
        if key.unix_ms() < floor_ms {
            return Ok(Answer::Refused(WriteRefusal::IdempotencyKeyExpired { floor_ms }));
        }
        if key.unix_ms() > time_ms.saturating_add(idempotency::AHEAD_MS) {
            return Ok(Answer::Refused(WriteRefusal::IdempotencyKeyInFuture { log_time_ms: time_ms }));
        }
        if let Some(fence) = &vault.fence {
            return Ok(Answer::Refused(fence.refusal()));
        }
        let evaluated = self.evaluate(time_ms, submission, digest, block)?;
        if is_planted(PlantedBug::ApplyTwice) {
            let _again = self.evaluate(time_ms, submission, digest, block)?;
        }
        match evaluated {
            Ok(position) => Ok(Answer::InBlock { vault: *id, number, position, replayed: false }),
            Err(refusal) => Ok(Answer::Refused(refusal)),
        }
    }

    /// Evaluates a transaction that was not seen before and adds it to the block; returns its index there.
    pub(super) fn evaluate(
        &mut self,
        time_ms: u64,
        submission: &Submission,
        digest: KeyDigest,
        block: &mut OpenBlock,
    ) -> Result<Result<u32, WriteRefusal>, StateError> {
        let Submission { vault: id, actor, transaction } = submission;
        let vault = self.vaults.get(id).ok_or_else(|| inconsistent("a submission has no vault"))?;
        let mut evaluation = Evaluation::new(&self.overlay, vault, block, time_ms, self.key_count);
        let results = match evaluation.run(transaction, actor)? {
            Ok(results) => results,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let staged = evaluation.staged;
        self.key_count = self.key_count + staged.created - staged.deleted;
        for (table, row_key, value) in staged.rows {
            match value {
                Some(value) => self.overlay.put(table, row_key, value),
                None => self.overlay.delete(table, row_key),
            }
        }
        Ok(Ok(block.push(actor, transaction, time_ms, digest, results, staged.leaves)))
    }

    /// The first answer to a remembered key, or a mismatch.
    fn replay(
        &self,
        id: VaultId,
        place: RecordPlace,
        transaction: &Transaction,
    ) -> Result<Answer, StateError> {
        let row = self.idempotency_row(&rows::idempotency_key(place.log_index, place.vault))?;
        let record = row
            .records
            .get(place.position as usize)
            .ok_or_else(|| inconsistent("an idempotency row is shorter than its index"))?;
        if !is_same_payload(&record.payload, &record.results, transaction) {
            return Ok(Answer::Refused(WriteRefusal::IdempotencyMismatch));
        }
        Ok(Answer::Remembered(Receipt {
            vault: id,
            height: row.height,
            version: row.first_sequence + u64::from(place.position),
            index_in_block: place.position,
            block_hash: row.block_hash,
            time_ms: row.time_ms,
            results: record.results.clone(),
            replayed: true,
        }))
    }

    fn idempotency_row(&self, row_key: &[u8]) -> Result<IdempotencyRow, StateError> {
        Ok(codec::decode("an idempotency row", &self.stored_idempotency_row(row_key)?)?)
    }

    fn stored_idempotency_row(&self, row_key: &[u8]) -> Result<Bytes, StateError> {
        let row = self.overlay.get(Table::Idempotency, row_key)?;
        row.ok_or_else(|| inconsistent("an idempotency row is missing"))
    }
}

fn is_same_payload(payload: &[u8; 16], results: &[OperationResult], transaction: &Transaction) -> bool {
    results.len() == transaction.operations().len()
        && payload_digest(&encode_operations(transaction.operations(), results)) == *payload
}

fn finish(
    answer: Answer,
    time_ms: u64,
    sealed: &BTreeMap<VaultNumber, Sealed>,
) -> Result<Result<Receipt, WriteRefusal>, StateError> {
    match answer {
        Answer::Refused(refusal) => Ok(Err(refusal)),
        Answer::Remembered(receipt) => Ok(Ok(receipt)),
        Answer::InBlock { vault, number, position, replayed } => {
            let missing = || inconsistent("a transaction is in no block");
            let block = sealed.get(&number).ok_or_else(missing)?;
            let results = block.results.get(position as usize).ok_or_else(missing)?;
            Ok(Ok(Receipt {
                vault,
                height: block.height,
                version: block.first_sequence + u64::from(position),
                index_in_block: position,
                block_hash: block.block_hash,
                time_ms,
                results: results.clone(),
                replayed,
            }))
        }
    }
}

/// What a transaction would leave under a key.
pub(super) struct StagedLeaf {
    /// The new leaf, `None` = deleted.
    pub leaf: Option<Bytes>,
    /// What stood there before the block, when the block has not changed the key yet.
    pub before: Option<Before>,
}

/// The leaf under a key as the operations before this one left it.
struct Current {
    key_hash: Hash,
    leaf: Option<Bytes>,
    /// As [`StagedLeaf::before`].
    before: Option<Before>,
}

/// What a transaction would change, held back until all of its operations have passed.
#[derive(Default)]
struct Staged {
    leaves: HashMap<Hash, StagedLeaf>,
    rows: Vec<(Table, Vec<u8>, Option<Bytes>)>,
    created: u64,
    deleted: u64,
}

/// One transaction against the state as its predecessors left it.
struct Evaluation<'a> {
    overlay: &'a Overlay,
    vault: &'a Vault,
    block: &'a OpenBlock,
    time_ms: u64,
    key_count: u64,
    staged: Staged,
}

type Outcome<T> = Result<Result<T, WriteRefusal>, StateError>;

impl<'a> Evaluation<'a> {
    fn new(
        overlay: &'a Overlay,
        vault: &'a Vault,
        block: &'a OpenBlock,
        time_ms: u64,
        key_count: u64,
    ) -> Self {
        Self { overlay, vault, block, time_ms, key_count, staged: Staged::default() }
    }

    fn run(&mut self, transaction: &Transaction, actor: &Actor) -> Outcome<Vec<OperationResult>> {
        let mut results = Vec::with_capacity(transaction.operations().len());
        for (op_index, operation) in (0_u32..).zip(transaction.operations()) {
            match self.operation(op_index, operation, actor)? {
                Ok(result) => results.push(result),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(results))
    }

    fn operation(&mut self, op_index: u32, operation: &Operation, actor: &Actor) -> Outcome<OperationResult> {
        let condition = operation.condition.as_ref();
        match &operation.action {
            Action::SetEntity { key, value, expires_at_ms } => {
                self.set_entity(op_index, condition, key, value.as_bytes(), *expires_at_ms)
            }
            Action::DeleteEntity { key } => self.delete_entity(op_index, condition, key),
            Action::ExpireEntity { .. } if *actor != Actor::garbage_collector() => {
                Ok(Err(WriteRefusal::ExpireForbidden { op_index }))
            }
            Action::ExpireEntity { key } => self.expire_entity(op_index, condition, key),
            Action::CreateRelationship(tuple) => self.create_relationship(op_index, condition, tuple),
            Action::DeleteRelationship(tuple) => self.delete_relationship(op_index, condition, tuple),
            Action::Assert(target) => {
                let leaf = match target {
                    AssertTarget::Entity(key) => self.entity_leaf(key)?.leaf,
                    AssertTarget::Relationship(tuple) => self.relationship_leaf(tuple)?.leaf,
                };
                let visible = self.visible(leaf.as_deref())?;
                Ok(check(op_index, condition, visible.as_ref()).map(|()| OperationResult::Held))
            }
        }
    }

    fn set_entity(
        &mut self,
        op_index: u32,
        condition: Option<&Condition>,
        key: &EntityKey,
        value: &[u8],
        expires_at_ms: u64,
    ) -> Outcome<OperationResult> {
        let current = self.entity_leaf(key)?;
        let old = current.leaf.as_deref();
        let visible = self.visible(old)?;
        if let Err(refusal) = check(op_index, condition, visible.as_ref()) {
            return Ok(Err(refusal));
        }
        let result = if visible.is_some() { OperationResult::Updated } else { OperationResult::Created };
        if old.is_none() && self.is_full() {
            return Ok(Err(WriteRefusal::VaultFull { limit: KEYS_MAX }));
        }
        self.drop_expiry(key, old)?;
        let number = self.vault.number;
        if expires_at_ms != 0 {
            self.staged.rows.push((
                Table::Expiries,
                rows::expiry_key(number, expires_at_ms, key),
                Some(Bytes::new()),
            ));
        }
        let leaf = self.leaf(LeafKind::Entity, expires_at_ms, value);
        self.staged.rows.push((Table::Entities, rows::entity_key(number, key.as_str()), Some(leaf.clone())));
        self.stage_put(&current, leaf);
        Ok(Ok(result))
    }

    fn delete_entity(
        &mut self,
        op_index: u32,
        condition: Option<&Condition>,
        key: &EntityKey,
    ) -> Outcome<OperationResult> {
        let current = self.entity_leaf(key)?;
        let visible = self.visible(current.leaf.as_deref())?;
        if let Err(refusal) = check(op_index, condition, visible.as_ref()) {
            return Ok(Err(refusal));
        }
        if visible.is_none() {
            return Ok(Ok(OperationResult::NotFound));
        }
        self.remove_entity(key, &current)?;
        Ok(Ok(OperationResult::Deleted))
    }

    fn expire_entity(
        &mut self,
        op_index: u32,
        condition: Option<&Condition>,
        key: &EntityKey,
    ) -> Outcome<OperationResult> {
        let current = self.entity_leaf(key)?;
        let visible = self.visible(current.leaf.as_deref())?;
        if let Err(refusal) = check(op_index, condition, visible.as_ref()) {
            return Ok(Err(refusal));
        }
        if current.leaf.is_none() || visible.is_some() {
            return Ok(Ok(OperationResult::NotFound));
        }
        self.remove_entity(key, &current)?;
        Ok(Ok(OperationResult::Deleted))
    }

    fn create_relationship(
        &mut self,
        op_index: u32,
        condition: Option<&Condition>,
        tuple: &Relationship,
    ) -> Outcome<OperationResult> {
        let current = self.relationship_leaf(tuple)?;
        let visible = self.visible(current.leaf.as_deref())?;
        if let Err(refusal) = check(op_index, condition, visible.as_ref()) {
            return Ok(Err(refusal));
        }
        if visible.is_some() {
            return Ok(Ok(OperationResult::AlreadyExists));
        }
        if self.is_full() {
            return Ok(Err(WriteRefusal::VaultFull { limit: KEYS_MAX }));
        }
        let number = self.vault.number;
        let leaf = self.leaf(LeafKind::Relationship, 0, &[]);
        let by_subject = rows::by_subject_key(number, tuple);
        self.staged.rows.push((
            Table::Relationships,
            rows::relationship_key(number, tuple),
            Some(leaf.clone()),
        ));
        self.staged.rows.push((Table::RelationshipsBySubject, by_subject, Some(Bytes::new())));
        self.stage_put(&current, leaf);
        Ok(Ok(OperationResult::Created))
    }

    fn delete_relationship(
        &mut self,
        op_index: u32,
        condition: Option<&Condition>,
        tuple: &Relationship,
    ) -> Outcome<OperationResult> {
        let current = self.relationship_leaf(tuple)?;
        let visible = self.visible(current.leaf.as_deref())?;
        if let Err(refusal) = check(op_index, condition, visible.as_ref()) {
            return Ok(Err(refusal));
        }
        if visible.is_none() {
            return Ok(Ok(OperationResult::NotFound));
        }
        let number = self.vault.number;
        self.staged.rows.push((Table::Relationships, rows::relationship_key(number, tuple), None));
        self.staged.rows.push((Table::RelationshipsBySubject, rows::by_subject_key(number, tuple), None));
        self.stage_delete(&current);
        Ok(Ok(OperationResult::Deleted))
    }

    fn remove_entity(&mut self, key: &EntityKey, current: &Current) -> Result<(), StateError> {
        self.drop_expiry(key, current.leaf.as_deref())?;
        self.staged.rows.push((Table::Entities, rows::entity_key(self.vault.number, key.as_str()), None));
        self.stage_delete(current);
        Ok(())
    }

    fn drop_expiry(&mut self, key: &EntityKey, old: Option<&[u8]>) -> Result<(), StateError> {
        let old = old.map(decode_leaf).transpose()?;
        if let Some(old) = old.filter(|leaf| leaf.expires_at_ms != 0) {
            let row_key = rows::expiry_key(self.vault.number, old.expires_at_ms, key);
            self.staged.rows.push((Table::Expiries, row_key, None));
        }
        Ok(())
    }

    fn entity_leaf(&self, key: &EntityKey) -> Result<Current, StateError> {
        let key_hash = StateKey::Entity { key: key.as_str() }.hash();
        let row_key = || rows::entity_key(self.vault.number, key.as_str());
        self.current(key_hash, Table::Entities, row_key)
    }

    fn relationship_leaf(&self, tuple: &Relationship) -> Result<Current, StateError> {
        let key_hash = StateKey::Relationship(tuple.as_ref()).hash();
        let row_key = || rows::relationship_key(self.vault.number, tuple);
        self.current(key_hash, Table::Relationships, row_key)
    }

    /// The leaf as the operations before this one left it. The tree knows which keys exist, so a key
    /// that does not exist costs no read.
    fn current(
        &self,
        key_hash: Hash,
        table: Table,
        row_key: impl FnOnce() -> Vec<u8>,
    ) -> Result<Current, StateError> {
        if let Some(staged) = self.staged.leaves.get(&key_hash) {
            return Ok(Current { key_hash, leaf: staged.leaf.clone(), before: staged.before });
        }
        let changed = self.block.change(&key_hash);
        let before = if changed.is_none() { self.vault.tree.get(&key_hash) } else { None };
        if changed.flatten().or(before).is_none() {
            return Ok(Current { key_hash, leaf: None, before: None });
        }
        let row = self.overlay.get(table, &row_key())?;
        let row =
            row.ok_or_else(|| inconsistent(format!("vault {} has a leaf without a row", self.vault.name)))?;
        let before = match before {
            Some(value_hash) => {
                Some(Before { value_hash, modified_height: decode_leaf(&row)?.modified_height })
            }
            None => None,
        };
        Ok(Current { key_hash, leaf: Some(row), before })
    }

    /// The leaf, unless it has expired.
    fn visible<'b>(&self, leaf: Option<&'b [u8]>) -> Result<Option<LeafValue<'b>>, StateError> {
        let leaf = leaf.map(decode_leaf).transpose()?;
        Ok(leaf.filter(|leaf| leaf.expires_at_ms == 0 || leaf.expires_at_ms >= self.time_ms))
    }

    fn leaf(&self, kind: LeafKind, expires_at_ms: u64, value: &[u8]) -> Bytes {
        let modified_height = self.block.height();
        let version = self.block.next_version();
        LeafValue { kind, modified_height, version, expires_at_ms, value }.encode().into()
    }

    fn stage_put(&mut self, current: &Current, leaf: Bytes) {
        self.staged.created += u64::from(current.leaf.is_none());
        self.staged.leaves.insert(current.key_hash, StagedLeaf { leaf: Some(leaf), before: current.before });
    }

    fn stage_delete(&mut self, current: &Current) {
        self.staged.deleted += 1;
        self.staged.leaves.insert(current.key_hash, StagedLeaf { leaf: None, before: current.before });
    }

    fn is_full(&self) -> bool {
        self.key_count + self.staged.created >= KEYS_MAX + self.staged.deleted
    }
}

fn decode_leaf(leaf: &[u8]) -> Result<LeafValue<'_>, StateError> {
    LeafValue::decode(leaf).map_err(|error| inconsistent(format!("a stored leaf does not decode: {error}")))
}

/// Checks a condition against the visible leaf.
fn check(
    op_index: u32,
    condition: Option<&Condition>,
    current: Option<&LeafValue<'_>>,
) -> Result<(), WriteRefusal> {
    let failure = match (condition, current) {
        (None, _) | (Some(Condition::MustNotExist), None) | (Some(Condition::MustExist), Some(_)) => None,
        (Some(Condition::MustNotExist), Some(_)) => Some(ConditionFailure::Exists),
        (Some(_), None) => Some(ConditionFailure::DoesNotExist),
        (Some(Condition::VersionEquals(version)), Some(leaf)) => {
            (*version != leaf.version).then_some(ConditionFailure::VersionDiffers)
        }
        (Some(Condition::ValueEquals(value)), Some(leaf)) => {
            let equal = leaf.kind == LeafKind::Entity && value.as_bytes() == leaf.value;
            (!equal).then_some(ConditionFailure::ValueDiffers)
        }
    };
    let Some(failure) = failure else { return Ok(()) };
    let entity = current.filter(|leaf| leaf.kind == LeafKind::Entity);
    Err(WriteRefusal::ConditionFailed {
        op_index,
        failure,
        current_version: current.map(|leaf| leaf.version),
        current_value: entity
            .filter(|leaf| leaf.value.len() <= REFUSAL_VALUE_BYTES_MAX)
            .map(|leaf| Bytes::copy_from_slice(leaf.value)),
    })
}
