//! Writes what is applied to the state store, beside the path of writes and reads.
//!
//! Whole blocks go to the store in one durable transaction that carries the applied position. Only what
//! is durable there may leave the log.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger_core::ports::{AppliedState, StateBatch, StateStore, StoreError};
use tokio::sync::Notify;

use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::counters::{CounterCells, add};
use crate::failure::{FailedPart, FailureCell, PanicReport, shared};
use crate::log_writer::LogWriter;
use crate::ordered_watch;
use crate::worker::{Threads, Worker};

/// The flush worker's controls. Clones share it.
#[derive(Clone)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
}

struct Shared {
    orders: Mutex<Orders>,
    wake: Condvar,
    wake_task: Notify,
    /// Flushes that are done; carries no data, only wakes.
    rounds: ordered_watch::Sender<u64>,
    durable: Mutex<Option<AppliedState>>,
    durable_next_index: AtomicU64,
    /// Held while a batch is on its way to the store: it belongs to the state that is there then.
    flushing: Arc<tokio::sync::Mutex<()>>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Orders {
    wanted: bool,
    stop: bool,
}

/// What the worker does after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    GoOn,
    End,
}

impl Orders {
    fn take(&mut self) -> Order {
        self.wanted = false;
        if self.stop { Order::End } else { Order::GoOn }
    }
}

/// What the worker works with.
pub(crate) struct FlusherParts {
    pub store: Arc<dyn StateStore>,
    pub ledger: Arc<AppliedLedger>,
    /// Learns how far the state goes before the store does.
    pub log_writer: LogWriter,
    pub interval: Duration,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
}

impl Flusher {
    /// Controls without the worker; `durable` is what the store holds already.
    pub fn new(durable: Option<AppliedState>) -> Self {
        let next_index = durable.as_ref().map_or(0, |applied| applied.last_applied.index + 1);
        let shared = Shared {
            orders: Mutex::new(Orders::default()),
            wake: Condvar::new(),
            wake_task: Notify::new(),
            rounds: ordered_watch::Sender::new(0),
            durable: Mutex::new(durable),
            durable_next_index: AtomicU64::new(next_index),
            flushing: Arc::default(),
            ended: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the worker: it flushes at every interval, when asked to, and once more before it ends.
    pub fn start(&self, parts: FlusherParts, threads: Threads) -> io::Result<Worker> {
        let flusher = self.clone();
        match threads {
            Threads::Own => Worker::thread("ledger-flush", move || {
                let _report = PanicReport(parts.failure.clone());
                let _end = EndAtDrop(flusher.clone());
                loop {
                    let order = flusher.wait_for_orders(parts.interval);
                    if !flusher.round(&parts, flusher.flush(&parts), order) {
                        break;
                    }
                }
            }),
            Threads::Inline { .. } => Ok(Worker::task(async move {
                let _report = PanicReport(parts.failure.clone());
                let _end = EndAtDrop(flusher.clone());
                loop {
                    let order = flusher.orders(parts.interval).await;
                    if !flusher.round(&parts, flusher.flush_inline(&parts).await, order) {
                        break;
                    }
                }
            })),
        }
    }

    /// What is durable in the state store.
    pub fn durable(&self) -> Option<AppliedState> {
        lock(&self.shared.durable).clone()
    }

    /// Index of the last entry that is durable in the state store.
    pub fn durable_index(&self) -> Option<u64> {
        self.shared.durable_next_index.load(Ordering::SeqCst).checked_sub(1)
    }

    /// Asks for a flush soon.
    pub fn request(&self) {
        let mut orders = lock(&self.shared.orders);
        if !orders.wanted {
            orders.wanted = true;
            self.shared.wake.notify_one();
            self.shared.wake_task.notify_one();
        }
    }

    /// Waits until nothing is flushed; nothing is until the turn is over.
    pub async fn pause(&self) -> FlushPause {
        let turn = Arc::clone(&self.shared.flushing).lock_owned().await;
        FlushPause { flusher: self.clone(), _turn: turn }
    }

    fn set_durable(&self, durable: AppliedState) {
        let next_index = durable.last_applied.index + 1;
        *lock(&self.shared.durable) = Some(durable);
        self.shared.durable_next_index.store(next_index, Ordering::SeqCst);
    }

    /// Counts rounds; changes after every flush.
    pub fn rounds(&self) -> ordered_watch::Receiver<u64> {
        self.shared.rounds.subscribe()
    }

    /// Whether the worker has ended, in order or by a failure.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Lets the worker flush once more and end.
    pub fn finish(&self) {
        lock(&self.shared.orders).stop = true;
        self.shared.wake.notify_one();
        self.shared.wake_task.notify_one();
    }

    /// Ends a round; returns whether to go on.
    fn round(&self, parts: &FlusherParts, flushed: Result<(), FlushError>, order: Order) -> bool {
        match flushed {
            Ok(()) => {}
            // Whoever panicked reports it, and so does the log writer.
            Err(FlushError::HalfApplied | FlushError::LogEnded) => return false,
            Err(FlushError::Store(error)) => {
                parts.failure.report(FailedPart::StateStore, shared(error));
                return false;
            }
        }
        self.shared.rounds.modify_if(count_round);
        order == Order::GoOn
    }

    /// Waits for an order or the interval.
    fn wait_for_orders(&self, interval: Duration) -> Order {
        let deadline = Instant::now() + interval;
        let mut orders = lock(&self.shared.orders);
        while !orders.wanted && !orders.stop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            orders = self.shared.wake.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        orders.take()
    }

    /// As [`wait_for_orders`](Self::wait_for_orders), on the runtime's clock.
    async fn orders(&self, interval: Duration) -> Order {
        let deadline = tokio::time::Instant::now() + interval;
        loop {
            let woken = self.shared.wake_task.notified();
            {
                let mut orders = lock(&self.shared.orders);
                if orders.wanted || orders.stop {
                    return orders.take();
                }
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return lock(&self.shared.orders).take();
            }
        }
    }

    fn flush(&self, parts: &FlusherParts) -> Result<(), FlushError> {
        let _turn = self.shared.flushing.blocking_lock();
        let Some(batch) = Self::batch(parts)? else { return Ok(()) };
        let (sender, durable) = std::sync::mpsc::sync_channel(1);
        let completion = Box::new(move |result: Result<(), _>| {
            // The flush may have been given up.
            let _ = sender.send(result.is_ok());
        });
        let enqueued = parts.log_writer.enqueue_applied(batch.applied.last_applied, completion);
        if enqueued.is_err() || durable.recv() != Ok(true) {
            return Err(FlushError::LogEnded);
        }
        self.commit(parts, batch)
    }

    /// As [`flush`](Self::flush), in a task.
    async fn flush_inline(&self, parts: &FlusherParts) -> Result<(), FlushError> {
        let _turn = self.shared.flushing.lock().await;
        let Some(batch) = Self::batch(parts)? else { return Ok(()) };
        parts.log_writer.write_applied(batch.applied.last_applied).await.map_err(|_| FlushError::LogEnded)?;
        self.commit(parts, batch)
    }

    fn batch(parts: &FlusherParts) -> Result<Option<StateBatch>, FlushError> {
        let job = parts.ledger.write()?.start_flush();
        Ok(job.map(|job| job.batch()))
    }

    fn commit(&self, parts: &FlusherParts, batch: StateBatch) -> Result<(), FlushError> {
        parts.store.commit(&batch)?;
        parts.ledger.write()?.finish_flush();
        add(&parts.counters.flushes, 1);
        self.set_durable(batch.applied);
        Ok(())
    }
}

/// While this lives nothing is flushed.
pub(crate) struct FlushPause {
    flusher: Flusher,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl FlushPause {
    /// Another content is in the store now, durably.
    pub fn end(self, durable: AppliedState) {
        self.flusher.set_durable(durable);
        self.flusher.shared.rounds.modify_if(count_round);
    }
}

enum FlushError {
    HalfApplied,
    LogEnded,
    Store(StoreError),
}

impl From<HalfApplied> for FlushError {
    fn from(_: HalfApplied) -> Self {
        Self::HalfApplied
    }
}

impl From<StoreError> for FlushError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Wakes those who wait for a flush that will not come, after a panic too.
struct EndAtDrop(Flusher);

impl Drop for EndAtDrop {
    fn drop(&mut self) {
        self.0.shared.ended.store(true, Ordering::SeqCst);
        self.0.shared.rounds.modify_if(count_round);
    }
}

fn count_round(rounds: &mut u64) -> bool {
    *rounds += 1;
    true
}

/// Nothing panics while it holds these locks, so a poisoned one guards no broken invariant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
