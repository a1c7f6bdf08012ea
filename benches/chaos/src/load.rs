//! Clients: they write, write on conditions, read and ask for checkpoints, and write down what they saw, in the words
//! that the checkers of the simulation understand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledger_client::{ClientError, ClientOptions, Consistency, ErrorCode, LedgerClient, Refusal};
use ledger_core::command::Receipt;
use ledger_core::names::VaultRef;
use ledger_core::transaction::{IdempotencyKey, Transaction};
use ledger_simulation::dice::Dice;
use ledger_simulation::history::{Key, OpenCall};
use ledger_simulation::register::{Answer, Operation, Value};
use ledger_simulation::violation::Violation;
use ledger_simulation::workload::{
    CheckpointRecord, SharedRecords, WriteRecord, entity_key, existed_before, ledger_operation, value_of,
};

use crate::pulse::Pulse;

/// How long a client waits for one answer, and for a call with all its tries: short, so that some stay unknown.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys that are used at a time, and for how long: a key's history stays short enough to be checked whole.
const KEYS_AT_A_TIME: usize = 6;
const KEYS_FOR: Duration = Duration::from_secs(10);
/// Between two calls of a client.
const THINK_MS: std::ops::RangeInclusive<u64> = 5..=40;
/// After a call that failed.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 10..=100;
/// Reads of a thousand calls, and checkpoints of a thousand others.
const GET_PER_MILLE: u32 = 400;
const CHECKPOINT_PER_MILLE: u32 = 50;
/// Acknowledged writes of a thousand that are sent once more, as by a client that lost the answer.
const REPEAT_PER_MILLE: u32 = 30;

/// What all clients of a run share.
#[derive(Debug)]
pub struct Load {
    /// Where they write.
    pub vault: VaultRef,
    /// How they read.
    reads: Consistency,
    /// What they wrote down.
    pub records: SharedRecords,
    /// When writes succeeded.
    pub pulse: Pulse,
    /// Calls that certainly did not happen.
    pub failed: AtomicU64,
    began: Instant,
    next_value: AtomicU64,
    /// The highest block that a receipt named, plus one.
    acknowledged_blocks: AtomicU64,
    over: AtomicBool,
}

impl Load {
    /// Nobody calls yet.
    pub fn new(vault: VaultRef, reads: Consistency) -> Arc<Self> {
        Arc::new(Self {
            vault,
            reads,
            records: SharedRecords::default(),
            pulse: Pulse::default(),
            failed: AtomicU64::new(0),
            began: Instant::now(),
            next_value: AtomicU64::new(1),
            acknowledged_blocks: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// Clients finish what they are at, and begin nothing more.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether an answer was wrong by itself. What comes after it is of less interest.
    pub fn has_seen_wrong(&self) -> bool {
        !self.records.lock().violations.is_empty()
    }

    /// Every key that was used.
    pub fn keys(&self) -> Vec<Key> {
        self.records.lock().history.by_key().into_keys().collect()
    }

    fn key(&self, dice: &mut Dice) -> Key {
        let period = self.began.elapsed().as_secs() / KEYS_FOR.as_secs();
        let first = usize::try_from(period).unwrap_or(0) * KEYS_AT_A_TIME;
        Key::try_from(first + dice.below(KEYS_AT_A_TIME)).unwrap_or(0)
    }

    fn report(&self, what: String) {
        self.records.lock().violations.push(Violation::BadAnswer { what });
    }
}

/// The options of a client of the load: it gives up early.
pub fn impatient(mut options: ClientOptions) -> ClientOptions {
    options.request_timeout = TRY_TIMEOUT;
    options.call_timeout = CALL_TIMEOUT;
    options.connect_timeout = CONNECT_TIMEOUT;
    options
}

/// One client.
pub struct Caller {
    load: Arc<Load>,
    client: LedgerClient,
    number: u32,
    dice: Dice,
    /// What it last saw under a key.
    seen: BTreeMap<Key, Value>,
}

impl Caller {
    /// A client of a run.
    pub fn new(load: Arc<Load>, client: LedgerClient, number: u32, dice: Dice) -> Self {
        Self { load, client, number, dice, seen: BTreeMap::new() }
    }

    /// Calls until the load is over.
    pub async fn run(mut self) {
        while !self.load.over.load(Ordering::Relaxed) {
            let key = self.load.key(&mut self.dice);
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

    /// Reads a key; answers whether that succeeded.
    pub async fn get(&mut self, key: Key) -> bool {
        let open = self.load.records.lock().history.begin(self.number, key, Operation::Get);
        let answer = self.client.get(&self.load.vault, &entity_key(key), self.load.reads).await;
        let found = match answer {
            Ok(read) => read.value.and_then(|entity| value_of(&entity.value)),
            Err(error) => {
                self.load.records.lock().history.withdraw(open);
                self.failed(&error, "a read").await;
                return false;
            }
        };
        let mut records = self.load.records.lock();
        records.history.answer(open, Answer::Found(found));
        records.counters.reads += 1;
        drop(records);
        match found {
            Some(value) => drop(self.seen.insert(key, value)),
            None => drop(self.seen.remove(&key)),
        }
        true
    }

    fn draw_write(&mut self, key: Key) -> Operation {
        let new = self.load.next_value.fetch_add(1, Ordering::Relaxed);
        match (self.dice.below(10), self.seen.get(&key)) {
            (0..=3, Some(expected)) => Operation::CompareAndSet { expected: *expected, new },
            (0..=1, None) | (4..=5, _) => Operation::Create(new),
            (6, _) => Operation::Delete,
            _ => Operation::Put(new),
        }
    }

    async fn write(&mut self, key: Key, operation: Operation) {
        let idempotency_key = match self.client.new_key().await {
            Ok(key) => key,
            Err(error) => return self.failed(&error, "the first call").await,
        };
        let transaction = match Transaction::new(idempotency_key, vec![ledger_operation(key, operation)]) {
            Ok(transaction) => transaction,
            Err(error) => return self.load.report(format!("a transaction that cannot be made: {error}")),
        };
        let open = {
            let mut records = self.load.records.lock();
            let call = records.history.begin(self.number, key, operation);
            records.writes.insert(idempotency_key, WriteRecord { call, receipt: None });
            call
        };
        match self.client.write_transaction(&self.load.vault, &transaction).await {
            Ok(receipt) => {
                self.written(open, idempotency_key, key, operation, receipt.clone());
                if self.dice.chance(REPEAT_PER_MILLE) {
                    self.repeat(&transaction, &receipt).await;
                }
            }
            Err(ClientError::Refused(refusal)) => self.refused(open, key, *refusal).await,
            Err(error) => self.load.report(format!("a write was answered with {error}")),
        }
    }

    /// The same transaction under the same key, maybe at another leader: it was done, so the answer is the first one.
    async fn repeat(&mut self, transaction: &Transaction, first: &Receipt) {
        match self.client.write_transaction(&self.load.vault, transaction).await {
            Ok(again) if again.replayed && is_same_write(&again, first) => {
                self.load.records.lock().counters.replays += 1;
            }
            Ok(again) => {
                self.load.report(format!("a repeated write was answered with {again:?} after {first:?}"))
            }
            Err(error) => self.failed(&error, "a repeated write").await,
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
            return self.load.report(format!("a receipt with the results {:?}", receipt.results));
        };
        match operation {
            Operation::Put(value) | Operation::Create(value) => drop(self.seen.insert(key, value)),
            Operation::CompareAndSet { new, .. } => drop(self.seen.insert(key, new)),
            Operation::Delete | Operation::Get => drop(self.seen.remove(&key)),
        }
        let mut records = self.load.records.lock();
        records.history.answer(open, Answer::Done { existed });
        records.counters.writes += 1;
        records.counters.replays += u64::from(receipt.replayed);
        self.load.acknowledged_blocks.fetch_max(receipt.height + 1, Ordering::Relaxed);
        if let Some(record) = records.writes.get_mut(&idempotency_key) {
            record.receipt = Some(receipt);
        }
        drop(records);
        self.load.pulse.beat();
    }

    async fn refused(&mut self, open: OpenCall, key: Key, refusal: Refusal) {
        let certain = refusal.unknown_outcomes == 0;
        match refusal.code {
            ErrorCode::ConditionFailed => {
                let found = refusal.current_value.as_deref().and_then(value_of);
                match found {
                    Some(value) => drop(self.seen.insert(key, value)),
                    None => drop(self.seen.remove(&key)),
                }
                if refusal.current_version.is_some() != found.is_some() {
                    self.load.report(format!(
                        "a refusal with a version and no value, or the reverse: {refusal:?}"
                    ));
                }
                let mut records = self.load.records.lock();
                if certain {
                    records.history.answer(open, Answer::Refused(found));
                    records.counters.refusals += 1;
                } else {
                    // An earlier try may still be on its way, and may find the condition fulfilled.
                    records.counters.undecided_refusals += 1;
                }
            }
            ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Overloaded => {
                {
                    let mut records = self.load.records.lock();
                    if certain && refusal.nothing_happened {
                        records.history.withdraw(open);
                        self.load.failed.fetch_add(1, Ordering::Relaxed);
                    } else {
                        records.counters.unknown += 1;
                    }
                }
                self.wait(PAUSE_MS).await;
            }
            _ => {
                if certain {
                    self.load.records.lock().history.withdraw(open);
                }
                self.load.report(format!("a write was refused: {refusal:?}"));
            }
        }
    }

    async fn checkpoint(&mut self) {
        let blocks = self.load.acknowledged_blocks.load(Ordering::Relaxed);
        match self.client.verified_checkpoint(&self.load.vault).await {
            Ok(verified) => {
                let record =
                    CheckpointRecord { size: verified.checkpoint.size, root: verified.checkpoint.root };
                if record.size < blocks {
                    self.load.report(format!(
                        "a checkpoint of size {} after block {}",
                        record.size,
                        blocks - 1
                    ));
                }
                let mut records = self.load.records.lock();
                records.checkpoints.push(record);
                records.counters.checkpoints += 1;
            }
            Err(error) => self.failed(&error, "a checkpoint").await,
        }
    }

    /// Nodes that do not answer are what this is about; everything else is wrong.
    async fn failed(&mut self, error: &ClientError, what: &str) {
        match error.code() {
            ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Overloaded => {
                self.load.failed.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.load.report(format!("{what} was answered with {error} ({})", error.reason())),
        }
        self.wait(PAUSE_MS).await;
    }

    async fn wait(&mut self, ms: std::ops::RangeInclusive<u64>) {
        tokio::time::sleep(Duration::from_millis(self.dice.within(ms))).await;
    }
}

/// Whether two receipts tell of one write.
fn is_same_write(a: &Receipt, b: &Receipt) -> bool {
    (a.height, a.index_in_block, a.version, a.block_hash, &a.results)
        == (b.height, b.index_in_block, b.version, b.block_hash, &b.results)
}
