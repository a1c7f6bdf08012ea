//! Writes what is applied to the state store, beside the path of writes and reads.
//!
//! Whole blocks go to the store in one durable transaction that carries the applied position. Only what
//! is durable there may leave the log.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger_core::ledger_state::FlushJob;
use ledger_core::ports::{AppliedState, StateStore, StoreError};
use tokio::sync::{Notify, oneshot, watch};

use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::counters::{CounterCells, add};
use crate::failure::{FailedPart, FailureCell, PanicReport, shared};
use crate::log_writer::LogWriter;
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
    rounds: watch::Sender<u64>,
    durable: Mutex<Option<AppliedState>>,
    durable_next_index: AtomicU64,
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
    /// What is flushed must be durable in the log first.
    pub log_writer: LogWriter,
    pub ledger: Arc<AppliedLedger>,
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
            rounds: watch::Sender::new(0),
            durable: Mutex::new(durable),
            durable_next_index: AtomicU64::new(next_index),
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
                    let begun = flusher.begin(&parts);
                    let logged = begun.log.is_none_or(|log| matches!(log.blocking_recv(), Ok(Ok(()))));
                    if !logged || !flusher.round(&parts, begun.job, order) {
                        return;
                    }
                }
            }),
            Threads::Inline { .. } => Ok(Worker::task(async move {
                let _report = PanicReport(parts.failure.clone());
                let _end = EndAtDrop(flusher.clone());
                loop {
                    let order = flusher.orders(parts.interval).await;
                    let begun = flusher.begin(&parts);
                    let logged = match begun.log {
                        Some(log) => matches!(log.await, Ok(Ok(()))),
                        None => true,
                    };
                    if !logged || !flusher.round(&parts, begun.job, order) {
                        return;
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

    /// Counts rounds; changes after every flush.
    pub fn rounds(&self) -> watch::Receiver<u64> {
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

    /// Takes what is applied. A quorum may have it while this node's own log has not: a state store that is ahead of
    /// the log could not be opened after a crash, so the log comes first. Whoever broke the log reports it.
    fn begin(&self, parts: &FlusherParts) -> Begun {
        let job = parts.ledger.write().map_err(FlushError::from).map(|mut state| state.start_flush());
        Begun { job, log: parts.log_writer.barrier() }
    }

    /// Flushes once; returns whether to go on.
    fn round(&self, parts: &FlusherParts, job: Result<Option<FlushJob>, FlushError>, order: Order) -> bool {
        match self.flush(parts, job) {
            Ok(()) => {}
            // Whoever panicked reports it.
            Err(FlushError::HalfApplied) => return false,
            Err(FlushError::Store(error)) => {
                parts.failure.report(FailedPart::StateStore, shared(error));
                return false;
            }
        }
        self.shared.rounds.send_modify(|rounds| *rounds += 1);
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

    fn flush(
        &self,
        parts: &FlusherParts,
        job: Result<Option<FlushJob>, FlushError>,
    ) -> Result<(), FlushError> {
        let Some(job) = job? else { return Ok(()) };
        let batch = job.batch();
        parts.store.commit(&batch)?;
        parts.ledger.write()?.finish_flush();
        add(&parts.counters.flushes, 1);
        let next_index = batch.applied.last_applied.index + 1;
        *lock(&self.shared.durable) = Some(batch.applied);
        self.shared.durable_next_index.store(next_index, Ordering::SeqCst);
        Ok(())
    }
}

/// A flush that has begun, and what it waits for.
struct Begun {
    job: Result<Option<FlushJob>, FlushError>,
    log: Option<oneshot::Receiver<Result<(), Arc<StoreError>>>>,
}

enum FlushError {
    HalfApplied,
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
        self.0.shared.rounds.send_modify(|rounds| *rounds += 1);
    }
}

/// Nothing panics while it holds these locks, so a poisoned one guards no broken invariant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
