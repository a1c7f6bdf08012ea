//! Clients: they write, read and ask for checkpoints, repeat what was not answered, and write down what they saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_core::command::{OperationResult, Receipt, WriteRefusal};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::transaction::{
    Action, Actor, Condition, IdempotencyKey, Operation as LedgerOperation, Transaction,
};
use ledger_verify::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use tokio::time::Instant;

use crate::client_calls::{CallError, ClientAnswer, ClientRequest};
use crate::clock::WorldTime;
use crate::dice::Dice;
use crate::history::{History, Key, OpenCall};
use crate::network::{Endpoint, Network};
use crate::register::{Answer, Operation, Value};
use crate::violation::Violation;

/// How long a client waits for one answer.
const ATTEMPT_MS: std::ops::RangeInclusive<u64> = 150..=1_200;
/// How long a client repeats a request before it gives up.
const PATIENCE_MS: std::ops::RangeInclusive<u64> = 2_000..=6_000;
/// Before a request is repeated.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 10..=150;
/// Between two requests.
const THINK_MS: std::ops::RangeInclusive<u64> = 5..=60;
/// Answered writes in a thousand that are sent again, to see that they are not applied again.
const REPEAT_PER_MILLE: u32 = 100;
/// Reads of a thousand requests, checkpoints, and the others are writes.
const GET_PER_MILLE: u32 = 400;
const CHECKPOINT_PER_MILLE: u32 = 60;

/// What was done, beside the history itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkloadCounters {
    /// Writes that were answered with a receipt.
    pub writes: u64,
    /// Conditions that did not hold.
    pub refusals: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Checkpoints that were verified.
    pub checkpoints: u64,
    /// Writes without an outcome.
    pub unknown: u64,
    /// Attempts that were repeated.
    pub retries: u64,
    /// Answers to a repeated key.
    pub replays: u64,
    /// Refusals after an attempt without an answer, which decide nothing.
    pub undecided_refusals: u64,
}

impl std::ops::AddAssign for WorkloadCounters {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.refusals += other.refusals;
        self.reads += other.reads;
        self.checkpoints += other.checkpoints;
        self.unknown += other.unknown;
        self.retries += other.retries;
        self.replays += other.replays;
        self.undecided_refusals += other.undecided_refusals;
    }
}

/// A write as its client knows it.
#[derive(Debug, Clone)]
pub struct WriteRecord {
    /// Its place in the history.
    pub call: OpenCall,
    /// Its receipt, when it was answered.
    pub receipt: Option<Receipt>,
}

/// A checkpoint as a client received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// How many blocks it covers.
    pub size: u64,
    /// The root over them.
    pub root: [u8; 32],
}

/// Everything that the clients wrote down.
#[derive(Debug, Default)]
pub struct Records {
    /// Calls by key.
    pub history: History,
    /// Writes by idempotency key.
    pub writes: BTreeMap<IdempotencyKey, WriteRecord>,
    /// Checkpoints.
    pub checkpoints: Vec<CheckpointRecord>,
    /// What was wrong with an answer by itself.
    pub violations: Vec<Violation>,
    /// What was done.
    pub counters: WorkloadCounters,
    /// The highest block that a receipt named.
    acknowledged_height: u64,
    next_value: Value,
}

/// The records of a run. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SharedRecords(Arc<Mutex<Records>>);

impl SharedRecords {
    /// The records. No code panics while it holds the lock, so a poisoned one guards no broken record.
    pub fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes that clients talk to, and whether they still do. Clones share it.
#[derive(Debug, Clone)]
pub struct Targets(Arc<Mutex<Talking>>);

#[derive(Debug)]
struct Talking {
    nodes: Vec<Endpoint>,
    goes_on: bool,
}

impl Targets {
    /// Clients talk to these nodes.
    pub fn new(nodes: Vec<Endpoint>) -> Self {
        Self(Arc::new(Mutex::new(Talking { nodes, goes_on: true })))
    }

    /// Changes the nodes.
    pub fn set(&self, nodes: Vec<Endpoint>) {
        self.lock().nodes = nodes;
    }

    /// Lets the clients finish what they are at, and begin nothing more.
    pub fn stop(&self) {
        self.lock().goes_on = false;
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Talking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct Workload {
    /// The network.
    pub network: Network,
    /// The time, for idempotency keys.
    pub time: WorldTime,
    /// Whom to talk to.
    pub targets: Targets,
    /// Where everything is written down.
    pub records: SharedRecords,
    /// The key that signs checkpoints.
    pub verifier_key: VerifierKey,
    /// How many keys the clients share.
    pub key_count: u32,
    /// Called with each checkpoint at the moment in which a client has it.
    pub on_checkpoint: Arc<dyn Fn(CheckpointRecord) -> Option<Violation> + Send + Sync>,
}

/// One client.
pub struct Client {
    workload: Workload,
    number: u32,
    actor: Actor,
    dice: Dice,
    /// Whom it talked to last with success.
    favourite: Option<Endpoint>,
    /// What it last saw under a key.
    seen: BTreeMap<Key, Value>,
    trusted: Option<CheckpointRecord>,
}

/// How an attempt of a write ended.
enum Attempt {
    Written(Receipt),
    Refused(WriteRefusal),
    NotDone,
    Unknown,
}

impl Client {
    /// A client of a run.
    pub fn new(workload: Workload, number: u32, dice: Dice) -> Self {
        let actor = Actor::new(&format!("client:c{number}")).unwrap_or_else(|_| Actor::garbage_collector());
        Self { workload, number, actor, dice, favourite: None, seen: BTreeMap::new(), trusted: None }
    }

    /// Works until the run stops.
    pub async fn run(mut self) {
        while self.workload.targets.lock().goes_on {
            let key = Key::try_from(self.dice.below(self.workload.key_count as usize)).unwrap_or(0);
            if self.dice.chance(GET_PER_MILLE) {
                self.get(key).await;
            } else if self.dice.chance(CHECKPOINT_PER_MILLE) {
                self.checkpoint().await;
            } else {
                let operation = self.draw_write(key);
                self.write(key, operation).await;
            }
            self.wait(THINK_MS).await;
        }
    }

    /// Reads a key, as a call of its own for each attempt.
    pub async fn get(&mut self, key: Key) -> bool {
        for _ in 0..3 {
            let open = self.workload.records.lock().history.begin(self.number, key, Operation::Get);
            let request = ClientRequest::Get { key: entity_key(key) };
            if let Ok(ClientAnswer::Got(found)) = self.attempt(request).await {
                let found = found.and_then(|(bytes, _)| value_of(&bytes));
                let mut records = self.workload.records.lock();
                records.history.answer(open, Answer::Found(found));
                records.counters.reads += 1;
                match found {
                    Some(value) => drop(self.seen.insert(key, value)),
                    None => drop(self.seen.remove(&key)),
                }
                return true;
            }
            self.workload.records.lock().history.withdraw(open);
            self.wait(PAUSE_MS).await;
        }
        false
    }

    fn draw_write(&mut self, key: Key) -> Operation {
        let new = {
            let mut records = self.workload.records.lock();
            records.next_value += 1;
            records.next_value
        };
        match (self.dice.below(10), self.seen.get(&key)) {
            (0..=3, Some(expected)) => Operation::CompareAndSet { expected: *expected, new },
            (0..=1, None) | (4..=5, _) => Operation::Create(new),
            (6, _) => Operation::Delete,
            _ => Operation::Put(new),
        }
    }

    /// Writes, and repeats the write with its idempotency key until it is answered or patience ends.
    pub async fn write(&mut self, key: Key, operation: Operation) {
        let transaction = self.transaction(key, operation);
        let idempotency_key = transaction.idempotency_key();
        let open = {
            let mut records = self.workload.records.lock();
            let call = records.history.begin(self.number, key, operation);
            records.writes.insert(idempotency_key, WriteRecord { call, receipt: None });
            call
        };
        let deadline = Instant::now() + Duration::from_millis(self.dice.within(PATIENCE_MS));
        let mut may_have_happened = false;
        loop {
            match self.attempt_write(&transaction).await {
                Attempt::Written(receipt) => {
                    self.written(open, idempotency_key, key, operation, receipt);
                    if self.dice.chance(REPEAT_PER_MILLE) {
                        self.repeat(&transaction).await;
                    }
                    return;
                }
                Attempt::Refused(refusal) => {
                    return self.refused(open, key, refusal, may_have_happened);
                }
                Attempt::NotDone => {}
                Attempt::Unknown => may_have_happened = true,
            }
            if Instant::now() >= deadline {
                let mut records = self.workload.records.lock();
                if may_have_happened {
                    records.counters.unknown += 1;
                } else {
                    records.history.withdraw(open);
                }
                return;
            }
            self.favourite = None;
            self.wait(PAUSE_MS).await;
            self.workload.records.lock().counters.retries += 1;
        }
    }

    fn written(
        &mut self,
        open: OpenCall,
        idempotency_key: IdempotencyKey,
        key: Key,
        operation: Operation,
        receipt: Receipt,
    ) {
        let Some(existed) = existed_before(&receipt) else {
            let what = format!("a receipt with the results {:?}", receipt.results);
            return self.workload.records.lock().violations.push(Violation::BadAnswer { what });
        };
        match operation {
            Operation::Put(value) | Operation::Create(value) => drop(self.seen.insert(key, value)),
            Operation::CompareAndSet { new, .. } => drop(self.seen.insert(key, new)),
            Operation::Delete | Operation::Get => drop(self.seen.remove(&key)),
        }
        let mut records = self.workload.records.lock();
        records.history.answer(open, Answer::Done { existed });
        records.counters.writes += 1;
        records.counters.replays += u64::from(receipt.replayed);
        records.acknowledged_height = records.acknowledged_height.max(receipt.height);
        if let Some(record) = records.writes.get_mut(&idempotency_key) {
            record.receipt = Some(receipt);
        }
    }

    fn refused(&mut self, open: OpenCall, key: Key, refusal: WriteRefusal, may_have_happened: bool) {
        let mut records = self.workload.records.lock();
        match refusal {
            WriteRefusal::ConditionFailed { current_value, current_version, .. } => {
                let found = current_value.as_deref().and_then(value_of);
                if current_version.is_some() != found.is_some() {
                    let what = format!("a refusal with version {current_version:?} and value {found:?}");
                    records.violations.push(Violation::BadAnswer { what });
                }
                match found {
                    Some(value) => drop(self.seen.insert(key, value)),
                    None => drop(self.seen.remove(&key)),
                }
                if may_have_happened {
                    // An earlier attempt may still be on its way, and may find the condition fulfilled.
                    records.counters.undecided_refusals += 1;
                } else {
                    records.history.answer(open, Answer::Refused(found));
                    records.counters.refusals += 1;
                }
            }
            other => records
                .violations
                .push(Violation::BadAnswer { what: format!("a write was refused: {other}") }),
        }
    }

    /// Sends an answered write again: the answer must be the same.
    async fn repeat(&mut self, transaction: &Transaction) {
        let again = match self.attempt_write(transaction).await {
            Attempt::Written(again) => again,
            Attempt::Refused(refusal) => {
                let what = format!("an acknowledged write was refused when it was repeated: {refusal}");
                return self.workload.records.lock().violations.push(Violation::BadAnswer { what });
            }
            Attempt::NotDone | Attempt::Unknown => return,
        };
        let mut records = self.workload.records.lock();
        let Some(first) =
            records.writes.get(&transaction.idempotency_key()).and_then(|write| write.receipt.clone())
        else {
            return;
        };
        records.counters.replays += u64::from(again.replayed);
        let is_same = Receipt { replayed: first.replayed, ..again.clone() } == first;
        if !is_same || !again.replayed {
            let idempotency_key = transaction.idempotency_key();
            let (first, again) = (Box::new(first), Box::new(again));
            records.violations.push(Violation::OtherReceipt { idempotency_key, first, again });
        }
    }

    async fn attempt_write(&mut self, transaction: &Transaction) -> Attempt {
        let request = ClientRequest::Write { actor: self.actor.clone(), transaction: transaction.clone() };
        match self.attempt(request).await {
            Ok(ClientAnswer::Written(receipt)) => Attempt::Written(receipt),
            Ok(ClientAnswer::WriteRefused(refusal)) => Attempt::Refused(refusal),
            Ok(ClientAnswer::Busy(_)) | Err(CallError::Refused) => Attempt::NotDone,
            Ok(_) | Err(CallError::Timeout) => Attempt::Unknown,
        }
    }

    async fn checkpoint(&mut self) {
        let (trusted_size, height) = {
            let records = self.workload.records.lock();
            (self.trusted.map_or(0, |trusted| trusted.size), records.acknowledged_height)
        };
        let answer = self.attempt(ClientRequest::Checkpoint { trusted_size }).await;
        let Ok(ClientAnswer::Checkpoint { note, consistency }) = answer else { return };
        let opened = SignedCheckpoint::open(&note, std::slice::from_ref(&self.workload.verifier_key));
        let violation = match opened {
            Err(error) => {
                Some(Violation::BadAnswer { what: format!("a checkpoint that does not verify: {error}") })
            }
            Ok(checkpoint) => self.accept_checkpoint(&checkpoint, &consistency, height),
        };
        self.workload.records.lock().violations.extend(violation);
    }

    fn accept_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        consistency: &[[u8; 32]],
        acknowledged_height: u64,
    ) -> Option<Violation> {
        let record = CheckpointRecord { size: checkpoint.size, root: checkpoint.root };
        if record.size <= acknowledged_height {
            let what = format!("a checkpoint of size {} after block {acknowledged_height}", record.size);
            return Some(Violation::BadAnswer { what });
        }
        if let Some(trusted) = self.trusted {
            let extends = ledger_verify::log::verify_consistency(
                trusted.size,
                record.size,
                consistency,
                &trusted.root,
                &record.root,
            );
            if let Err(error) = extends {
                let what = format!("{record:?} does not extend {trusted:?}: {error}");
                return Some(Violation::BadAnswer { what });
            }
        }
        self.trusted = Some(record);
        let mut records = self.workload.records.lock();
        records.checkpoints.push(record);
        records.counters.checkpoints += 1;
        drop(records);
        (self.workload.on_checkpoint)(record)
    }

    /// Sends a request to one node.
    async fn attempt(&mut self, request: ClientRequest) -> Result<ClientAnswer, CallError> {
        let nodes = self.workload.targets.lock().nodes.clone();
        let stays = self.favourite.filter(|node| nodes.contains(node) && self.dice.chance(700));
        let node = stays.unwrap_or_else(|| *self.dice.choose(&nodes));
        let timeout = Duration::from_millis(self.dice.within(ATTEMPT_MS));
        let answer = self.workload.network.client_call(node, request, timeout).await;
        self.favourite = match answer {
            Ok(ClientAnswer::Busy(_) | ClientAnswer::Unavailable(_)) | Err(_) => None,
            Ok(_) => Some(node),
        };
        answer
    }

    async fn wait(&mut self, ms: std::ops::RangeInclusive<u64>) {
        tokio::time::sleep(Duration::from_millis(self.dice.within(ms))).await;
    }

    fn transaction(&mut self, key: Key, operation: Operation) -> Transaction {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.dice.seed().to_be_bytes());
        let idempotency_key = IdempotencyKey::from_parts(self.workload.time.unix_ms(), random);
        let operations = vec![ledger_operation(key, operation)];
        // One operation on a short key is always a transaction.
        Transaction::new(idempotency_key, operations).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

/// The ledger's name of a key.
pub fn entity_key(key: Key) -> EntityKey {
    EntityKey::new(&format!("key-{key}")).unwrap_or_else(|error| unreachable!("{error}"))
}

/// The write of a key as a ledger takes it; a read stands for a deletion.
pub fn ledger_operation(key: Key, operation: Operation) -> LedgerOperation {
    let set = |value: Value| Action::SetEntity {
        key: entity_key(key),
        value: entity_value(value),
        expires_at_ms: 0,
    };
    let (action, condition) = match operation {
        Operation::Put(value) => (set(value), None),
        Operation::Create(value) => (set(value), Some(Condition::MustNotExist)),
        Operation::CompareAndSet { expected, new } => {
            (set(new), Some(Condition::ValueEquals(entity_value(expected))))
        }
        Operation::Delete | Operation::Get => (Action::DeleteEntity { key: entity_key(key) }, None),
    };
    LedgerOperation { action, condition }
}

fn entity_value(value: Value) -> EntityValue {
    EntityValue::new(value.to_string().into_bytes()).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Whether the key of a write existed before it, by its receipt; `None` when that says something else.
pub fn existed_before(receipt: &Receipt) -> Option<bool> {
    match receipt.results.first() {
        Some(OperationResult::Created | OperationResult::NotFound) => Some(false),
        Some(OperationResult::Updated | OperationResult::Deleted) => Some(true),
        _ => None,
    }
}

/// The value that stored bytes stand for.
pub fn value_of(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
