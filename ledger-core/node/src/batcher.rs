//! Writes wait here until a batch has room for them: one batch is one entry of the log.
//!
//! A batch takes all that waits, with no tick: an idle ledger answers at the speed of one `fsync`, a
//! loaded one pays an `fsync` for as many transactions as came in during the last one. A second batch is begun while
//! the first is on its way only when it is large: it is then made durable while the first one is applied. Every batch
//! has its price (an entry, a commit of the log, a block) whatever its size, which small ones would pay twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ledger_core::command::{Command, Outcome, Receipt, Submission, WriteRefusal};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::transaction::{Actor, Transaction};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, oneshot};

use crate::applied_state::AppliedLedger;
use crate::cluster::{LeaderCalls, forward_writes};
use crate::counters::{CounterCells, add};
use crate::errors::WriteError;
use crate::options::Options;
use crate::peers::messages::ForwardedWrite;
use crate::raft::{Consensus, ConsensusError};
use crate::read_barrier::ReadBarrier;
use crate::write_state::WriteSwitch;

/// Most bytes of transactions in one entry (8 MiB), a single larger one excepted.
const BATCH_BYTES_MAX: usize = 8 * 1_048_576;
/// Batches on their way at once.
const BATCHES_MAX: usize = 2;
/// Transactions, or bytes of them, that are worth a batch of their own beside one that is on its way.
const SECOND_BATCH_TRANSACTIONS: usize = 64;
const SECOND_BATCH_BYTES: usize = 256 * 1_024;
/// A refused write may try again after this: by then several batches have left the queue.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Where a write goes to: a name that the batcher looks up, or a vault that is known.
#[derive(Debug, Clone)]
pub(crate) enum WriteTarget {
    Named(VaultRef),
    Known(VaultId),
}

/// A write on its way into the queue.
pub(crate) struct Write {
    pub target: WriteTarget,
    pub actor: Actor,
    pub transaction: Transaction,
}

type Answer = Result<Receipt, WriteError>;

/// Who handed a write in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A caller of this node: when it does not lead, the write goes to the leader.
    Here,
    /// Another member, because this node leads: it is not sent on.
    Member,
}

struct Queued {
    write: Write,
    origin: Origin,
    bytes: usize,
    caller: Caller,
}

/// The bounded queue in front of the batcher. Clones share it.
#[derive(Clone)]
pub(crate) struct WriteQueue(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    changed: Notify,
    transactions_max: usize,
    bytes_max: usize,
    batch_size: usize,
    counters: Arc<CounterCells>,
    switch: WriteSwitch,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Queued>,
    bytes: usize,
    closed: bool,
    /// Holders of a [`Paused`].
    pauses: usize,
}

/// While it is held, nothing is taken from the queue.
pub(crate) struct Paused(WriteQueue);

impl Drop for Paused {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.pauses = waiting.pauses.saturating_sub(1);
        drop(waiting);
        self.0.0.changed.notify_one();
    }
}

impl WriteQueue {
    pub fn new(options: &Options, counters: Arc<CounterCells>) -> Self {
        Self(Arc::new(Inner {
            waiting: Mutex::new(Waiting::default()),
            changed: Notify::new(),
            transactions_max: options.queue_transactions_max,
            bytes_max: options.queue_bytes_max,
            batch_size: options.batch_size,
            counters,
            switch: WriteSwitch::default(),
        }))
    }

    /// Whether anything is taken that would grow the log.
    pub fn switch(&self) -> &WriteSwitch {
        &self.0.switch
    }

    /// Queues a write and waits for its answer.
    pub async fn write(&self, write: Write) -> Answer {
        self.queue_up(write, Origin::Here).await
    }

    /// As [`write`](Self::write), for a write that a member has sent here.
    pub async fn write_here(&self, write: Write) -> Answer {
        self.queue_up(write, Origin::Member).await
    }

    async fn queue_up(&self, write: Write, origin: Origin) -> Answer {
        let answer = self.push(write, origin)?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Lets what comes wait until the answer is dropped.
    pub fn pause(&self) -> Paused {
        self.lock().pauses += 1;
        Paused(self.clone())
    }

    /// Takes no more; what waits is still written.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_one();
    }

    /// Takes no more, and answers what waits that the node has stopped.
    pub fn fail(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.bytes = 0;
        // Dropping the senders answers `Stopped`.
        let dropped = std::mem::take(&mut waiting.writes);
        drop(waiting);
        drop(dropped);
        self.0.changed.notify_one();
    }

    fn push(&self, write: Write, origin: Origin) -> Result<oneshot::Receiver<Answer>, WriteError> {
        self.0.switch.admit()?;
        let bytes = write.transaction.encoded_bytes_max();
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(WriteError::Stopped);
        }
        if waiting.writes.len() >= self.0.transactions_max || waiting.bytes + bytes > self.0.bytes_max {
            drop(waiting);
            add(&self.0.counters.overloads, 1);
            return Err(WriteError::Overloaded { retry_after: RETRY_AFTER });
        }
        let bytes_before = waiting.bytes;
        waiting.bytes += bytes;
        waiting.writes.push_back(Queued { write, origin, bytes, caller: Caller::new(sender) });
        let count = waiting.writes.len();
        let reached_bytes = bytes_before < SECOND_BATCH_BYTES && waiting.bytes >= SECOND_BATCH_BYTES;
        drop(waiting);
        if reached_bytes || [1, SECOND_BATCH_TRANSACTIONS, self.0.batch_size].contains(&count) {
            self.0.changed.notify_one();
        }
        Ok(answer)
    }

    /// Waits until at least `count` writes or `bytes` of them wait, or the queue is closed; returns how many wait.
    async fn wait_for(&self, count: usize, bytes: usize) -> usize {
        loop {
            let changed = self.0.changed.notified();
            let (waiting, may_go) = {
                let waiting = self.lock();
                let enough = waiting.writes.len() >= count || waiting.bytes >= bytes;
                (waiting.writes.len(), waiting.closed || (enough && waiting.pauses == 0))
            };
            if may_go {
                return waiting;
            }
            changed.await;
        }
    }

    fn take_batch(&self) -> Vec<Queued> {
        let mut waiting = self.lock();
        let mut batch = Vec::with_capacity(waiting.writes.len().min(self.0.batch_size));
        let mut bytes = 0;
        while let Some(next) = waiting.writes.front() {
            let fits = batch.is_empty() || bytes + next.bytes <= BATCH_BYTES_MAX;
            if !fits || batch.len() >= self.0.batch_size {
                break;
            }
            bytes += next.bytes;
            batch.extend(waiting.writes.pop_front());
        }
        waiting.bytes -= bytes;
        batch
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns what waits into log entries.
pub(crate) struct Batcher {
    pub queue: WriteQueue,
    pub consensus: Consensus,
    pub ledger: Arc<AppliedLedger>,
    pub leader: LeaderCalls,
    pub barrier: ReadBarrier,
    pub counters: Arc<CounterCells>,
    pub batch_delay: Duration,
}

/// A batch whose vaults were looked up.
#[derive(Default)]
struct Resolved {
    submissions: Vec<Submission>,
    callers: Vec<Caller>,
    /// Writes to vaults that this node does not know.
    unknown: Vec<Queued>,
}

impl Batcher {
    /// Runs until the queue is closed and empty and every batch is answered.
    pub async fn run(self) {
        let mut on_their_way = FuturesUnordered::new();
        loop {
            let next = self.next_batch(on_their_way.len());
            tokio::select! {
                biased;
                Some(()) = on_their_way.next(), if !on_their_way.is_empty() => {}
                batch = next, if on_their_way.len() < BATCHES_MAX => match batch {
                    // The first poll, before any later batch is made, puts it into the log's order.
                    Some(batch) => on_their_way.push(self.send(batch)),
                    None => break,
                },
            }
        }
        while on_their_way.next().await.is_some() {}
    }

    /// The next batch, beside `on_their_way` others; `None` when the queue is closed and empty.
    async fn next_batch(&self, on_their_way: usize) -> Option<Vec<Queued>> {
        let waiting = match on_their_way {
            0 => self.queue.wait_for(1, 1).await,
            _ => self.queue.wait_for(SECOND_BATCH_TRANSACTIONS, SECOND_BATCH_BYTES).await,
        };
        if waiting == 0 {
            return None;
        }
        if !self.batch_delay.is_zero() {
            let full = self.queue.wait_for(self.queue.0.batch_size, usize::MAX);
            let _ = tokio::time::timeout(self.batch_delay, full).await;
        }
        Some(self.queue.take_batch())
    }

    /// Proposes a batch, or has the leader do it.
    async fn send(&self, batch: Vec<Queued>) {
        let status = self.consensus.status();
        if status.is_leader || self.leader.calls.is_none() {
            self.propose(batch).await;
        } else {
            self.forward(batch, status.leader).await;
        }
    }

    /// Sends what this node's callers want to whoever leads, all that waits in one message.
    async fn forward(&self, batch: Vec<Queued>, leader: Option<u64>) {
        let mut writes = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for Queued { write, origin, caller, .. } in batch {
            match (write.target, origin) {
                (WriteTarget::Named(vault), Origin::Here) => {
                    writes.push(ForwardedWrite { vault, actor: write.actor, transaction: write.transaction });
                    callers.push(caller);
                }
                _ => caller.answer(Err((&ConsensusError::NotLeader { leader }).into())),
            }
        }
        if writes.is_empty() {
            return;
        }
        add(&self.counters.writes_forwarded, writes.len() as u64);
        match forward_writes(&self.leader, writes).await {
            Ok(answers) => answer_all(callers.into_iter().zip(answers)),
            Err(error) => fail(callers, &error),
        }
    }

    async fn propose(&self, batch: Vec<Queued>) {
        let Resolved { submissions, callers, unknown } = self.resolve(batch);
        let known = self.commit(submissions, callers);
        if unknown.is_empty() {
            known.await;
        } else {
            // Polled in this order: a write to an unknown vault holds nobody up.
            tokio::join!(known, self.propose_once_caught_up(unknown));
        }
    }

    /// A new leader has all that was acknowledged in its log, but may not have applied it yet: a vault that it does not
    /// know is missing only when that has happened. Then the answer costs no log entry.
    async fn propose_once_caught_up(&self, unknown: Vec<Queued>) {
        if let Err(failure) = self.barrier.pass().await {
            let reason = failure.to_string();
            let unavailable = || WriteError::Unavailable { reason: reason.clone() };
            return answer_all(unknown.into_iter().map(|queued| (queued.caller, Err(unavailable()))));
        }
        let Resolved { submissions, callers, unknown } = self.resolve(unknown);
        for queued in unknown {
            queued.caller.answer(Err(WriteRefusal::VaultNotFound.into()));
        }
        self.commit(submissions, callers).await;
    }

    async fn commit(&self, submissions: Vec<Submission>, callers: Vec<Caller>) {
        if submissions.is_empty() {
            return;
        }
        add(&self.counters.write_entries, 1);
        match self.consensus.propose(Command::Write { submissions }).await {
            Ok(Some(Outcome::Writes(outcomes))) => {
                for outcome in &outcomes {
                    self.count(outcome);
                }
                let answers = outcomes.into_iter().map(|outcome| outcome.map_err(WriteError::Refused));
                answer_all(callers.into_iter().zip(answers));
            }
            Ok(_) => fail(callers, &ConsensusError::Stopped),
            Err(error) => fail(callers, &error),
        }
    }

    /// Looks up the vaults.
    fn resolve(&self, batch: Vec<Queued>) -> Resolved {
        let Ok(state) = self.ledger.read() else { return Resolved::default() };
        let mut resolved = Resolved::default();
        resolved.submissions.reserve(batch.len());
        resolved.callers.reserve(batch.len());
        for queued in batch {
            let vault = match &queued.write.target {
                WriteTarget::Named(name) => state.vault_id(name),
                WriteTarget::Known(id) => Some(*id),
            };
            let Some(vault) = vault else {
                resolved.unknown.push(queued);
                continue;
            };
            let Queued { write, caller, .. } = queued;
            // Before the log: what is refused here has not happened and will not.
            if let Some(fence) = state.fence(vault) {
                caller.answer(Err(fence.refusal().into()));
                continue;
            }
            let Write { actor, transaction, .. } = write;
            resolved.submissions.push(Submission { vault, actor, transaction });
            resolved.callers.push(caller);
        }
        resolved
    }

    fn count(&self, outcome: &Result<Receipt, WriteRefusal>) {
        let counter = match outcome {
            Ok(receipt) if receipt.replayed => &self.counters.writes_replayed,
            Ok(_) => &self.counters.writes,
            Err(_) => &self.counters.writes_refused,
        };
        add(counter, 1);
    }
}

/// Who waits for the answer to a write, and where.
struct Caller {
    answer: oneshot::Sender<Answer>,
    runtime: Option<Handle>,
}

impl Caller {
    fn new(answer: oneshot::Sender<Answer>) -> Self {
        Self { answer, runtime: Handle::try_current().ok() }
    }

    fn answer(self, answer: Answer) {
        // Whoever went away learns the outcome by repeating the idempotency key.
        let _ = self.answer.send(answer);
    }
}

/// The callers of one runtime.
type Answers = (Handle, Vec<(Caller, Answer)>);

/// Answers a batch. A caller on another runtime is woken by a system call: a task there that answers all callers of
/// that runtime needs one instead of one each.
fn answer_all(answers: impl Iterator<Item = (Caller, Answer)>) {
    let mut by_runtime: HashMap<runtime::Id, Answers> = HashMap::new();
    for (mut caller, answer) in answers {
        match caller.runtime.take() {
            Some(handle) => {
                let (_, waiting) = by_runtime.entry(handle.id()).or_insert_with(|| (handle, Vec::new()));
                waiting.push((caller, answer));
            }
            None => caller.answer(answer),
        }
    }
    for (handle, answers) in by_runtime.into_values() {
        handle.spawn(async move {
            for (caller, answer) in answers {
                caller.answer(answer);
            }
        });
    }
}

fn fail(callers: Vec<Caller>, error: &ConsensusError) {
    answer_all(callers.into_iter().map(|caller| (caller, Err(error.into()))));
}
