//! Writes what is applied to the state store, beside the path of writes and reads.
//!
//! Whole blocks go to the store in one durable transaction that carries the applied position. Only what
//! is durable there may leave the log.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledger_core::ports::{AppliedState, StateStore, StoreError};
use tokio::sync::watch;

use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::counters::{CounterCells, add};
use crate::failure::{FailedPart, FailureCell, PanicReport, shared};
use crate::log_writer::LogWriter;

/// The flush thread's controls. Clones share it.
#[derive(Clone)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
}

struct Shared {
    orders: Mutex<Orders>,
    wake: Condvar,
    /// Flushes that are done; carries no data, only wakes.
    rounds: watch::Sender<u64>,
    durable: Mutex<Option<AppliedState>>,
    durable_next_index: AtomicU64,
    /// Held while a batch is on its way to the store: it belongs to the state that is there then.
    flushing: Mutex<()>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Orders {
    wanted: bool,
    stop: bool,
}

/// What the thread works with.
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
    /// Controls without the thread; `durable` is what the store holds already.
    pub fn new(durable: Option<AppliedState>) -> Self {
        let next_index = durable.as_ref().map_or(0, |applied| applied.last_applied.index + 1);
        let shared = Shared {
            orders: Mutex::new(Orders::default()),
            wake: Condvar::new(),
            rounds: watch::Sender::new(0),
            durable: Mutex::new(durable),
            durable_next_index: AtomicU64::new(next_index),
            flushing: Mutex::new(()),
            ended: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the thread: it flushes at every interval, when asked to, and once more before it ends.
    pub fn start(&self, parts: FlusherParts) -> io::Result<JoinHandle<()>> {
        let flusher = self.clone();
        std::thread::Builder::new().name("ledger-flush".to_owned()).spawn(move || {
            let _report = PanicReport(parts.failure.clone());
            let _end = EndAtDrop(flusher.clone());
            flusher.run(&parts);
        })
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
        }
    }

    /// Runs `replace`, which puts another content into the store, while nothing is flushed. What it answers is
    /// durable afterwards.
    pub fn replaced<T, E>(&self, replace: impl FnOnce() -> Result<(AppliedState, T), E>) -> Result<T, E> {
        let flushing = lock(&self.shared.flushing);
        let (durable, answer) = replace()?;
        self.set_durable(durable);
        drop(flushing);
        self.shared.rounds.send_modify(|rounds| *rounds += 1);
        Ok(answer)
    }

    fn set_durable(&self, durable: AppliedState) {
        let next_index = durable.last_applied.index + 1;
        *lock(&self.shared.durable) = Some(durable);
        self.shared.durable_next_index.store(next_index, Ordering::SeqCst);
    }

    /// Counts rounds; changes after every flush.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.shared.rounds.subscribe()
    }

    /// Whether the thread has ended, in order or by a failure.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Lets the thread flush once more and end.
    pub fn finish(&self) {
        lock(&self.shared.orders).stop = true;
        self.shared.wake.notify_one();
    }

    fn run(&self, parts: &FlusherParts) {
        loop {
            let stop = self.wait_for_orders(parts.interval);
            match self.flush(parts) {
                Ok(()) => {}
                // Whoever panicked reports it, and so does the log writer.
                Err(FlushError::HalfApplied | FlushError::LogEnded) => return,
                Err(FlushError::Store(error)) => {
                    parts.failure.report(FailedPart::StateStore, shared(error));
                    return;
                }
            }
            self.shared.rounds.send_modify(|rounds| *rounds += 1);
            if stop {
                return;
            }
        }
    }

    /// Waits for an order or the interval; returns whether to end.
    fn wait_for_orders(&self, interval: Duration) -> bool {
        let deadline = Instant::now() + interval;
        let mut orders = lock(&self.shared.orders);
        while !orders.wanted && !orders.stop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            orders = self.shared.wake.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        orders.wanted = false;
        orders.stop
    }

    fn flush(&self, parts: &FlusherParts) -> Result<(), FlushError> {
        let _flushing = lock(&self.shared.flushing);
        let job = parts.ledger.write()?.start_flush();
        let Some(job) = job else { return Ok(()) };
        let batch = job.batch();
        if parts.log_writer.write_applied(batch.applied.last_applied).is_err() {
            return Err(FlushError::LogEnded);
        }
        parts.store.commit(&batch)?;
        parts.ledger.write()?.finish_flush();
        add(&parts.counters.flushes, 1);
        self.set_durable(batch.applied);
        Ok(())
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
        self.0.shared.rounds.send_modify(|rounds| *rounds += 1);
    }
}

/// Nothing panics while it holds these locks, so a poisoned one guards no broken invariant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
