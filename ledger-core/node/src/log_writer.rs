//! Group commit: one worker makes every change to the log durable, as many as wait in one transaction.
//!
//! Vote, records, truncations, purges and signing marks are one ordered stream. If a record of a later
//! term could be durable before the vote of that term, a restart would let an old leader overwrite what
//! was committed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use ledger_core::ports::{LogChange, LogId, LogStore, StoreError};

use crate::counters::CounterCells;
use crate::failure::{FailedPart, FailureCell, PanicReport};
use crate::worker::{Threads, Worker};

/// Most payload bytes in one commit (64 MiB); what waits beyond goes into the next one.
const COMMIT_BYTES_MAX: usize = 64 * 1_048_576;

/// What to do when a change is durable, or when it is known that it never will be.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), Arc<StoreError>>) + Send>;

/// Number of a change in the stream, from 1.
pub(crate) type ChangeNumber = u64;

/// Called after every commit, before its completions, with the last change that is durable.
pub(crate) type OnDurable = Box<dyn Fn(ChangeNumber) + Send + Sync>;

/// Whether a change must be made durable for its own sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Commit as soon as the writer is free.
    Now,
    /// Ride along with the next commit: losing it costs time after a crash, never an acknowledged write.
    RideAlong,
}

/// The stream of changes to the log. Clones share it.
#[derive(Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Mutex<Stream>,
    wake: Condvar,
    wake_task: Notify,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Change>,
    /// The newest entry that was said to be committed.
    committed: Option<LogId>,
    last_number: ChangeNumber,
    urgent: usize,
    /// Since when something urgent waits for a commit, or for the end of one.
    busy_since: Option<Instant>,
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    #[default]
    Running,
    /// Commit what waits, then end.
    Draining,
    /// Nothing is taken any more; `None` = ended in order.
    Ended(Option<Arc<StoreError>>),
}

struct Change {
    number: ChangeNumber,
    changes: Vec<LogChange>,
    urgency: Urgency,
    completion: Option<Completion>,
}

/// What the thread works with.
pub(crate) struct LogWriterParts {
    pub store: Arc<dyn LogStore>,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
    pub on_durable: OnDurable,
}

impl LogWriter {
    /// A writer without its thread: changes wait until [`start`](Self::start).
    pub fn new() -> Self {
        let stream = Mutex::new(Stream::default());
        let shared = Shared { stream, wake: Condvar::new(), wake_task: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the worker.
    pub fn start(&self, parts: LogWriterParts, threads: Threads) -> io::Result<Worker> {
        let writer = self.clone();
        match threads {
            Threads::Own => Worker::thread("ledger-log", move || {
                let _report = PanicReport(parts.failure.clone());
                // After a panic too nobody waits for a writer that is gone.
                let _end = EndAtDrop(writer.clone());
                writer.run(&parts);
            }),
            Threads::Inline { .. } => Ok(Worker::task(async move {
                let _report = PanicReport(parts.failure.clone());
                let _end = EndAtDrop(writer.clone());
                writer.run_inline(&parts).await;
            })),
        }
    }

    /// Tells the writer, before it starts, how far the stored log is committed.
    pub fn set_committed(&self, committed: Option<LogId>) {
        self.lock().committed = committed;
    }

    /// Puts changes at the end of the stream. `completion` runs on the writer's thread, in stream order.
    pub fn enqueue(
        &self,
        changes: Vec<LogChange>,
        urgency: Urgency,
        completion: Option<Completion>,
    ) -> Result<ChangeNumber, Arc<StoreError>> {
        self.push(self.lock(), changes, urgency, completion)
    }

    /// Puts at the end of the stream that everything up to `applied` is committed. When it is durable, so is all that
    /// came into the stream before. The state store is never ahead of what the log knows in this way: only so can a
    /// restart tell a snapshot whose entries the log never had from a log that was put back to an earlier time.
    pub fn enqueue_applied(
        &self,
        applied: LogId,
        completion: Completion,
    ) -> Result<ChangeNumber, Arc<StoreError>> {
        let stream = self.lock();
        let known = stream.committed.filter(|committed| committed.index >= applied.index);
        let change = LogChange::SaveCommitted(known.unwrap_or(applied));
        self.push(stream, vec![change], Urgency::Now, Some(completion))
    }

    fn push(
        &self,
        mut stream: MutexGuard<'_, Stream>,
        changes: Vec<LogChange>,
        urgency: Urgency,
        completion: Option<Completion>,
    ) -> Result<ChangeNumber, Arc<StoreError>> {
        if let Phase::Ended(error) = &stream.phase {
            return Err(error.clone().unwrap_or_else(|| Arc::new(StoreError::Poisoned)));
        }
        for change in &changes {
            if let LogChange::SaveCommitted(id) = change {
                stream.committed = Some(*id);
            }
        }
        stream.last_number += 1;
        let number = stream.last_number;
        stream.waiting.push_back(Change { number, changes, urgency, completion });
        if urgency == Urgency::Now {
            stream.urgent += 1;
            stream.busy_since.get_or_insert_with(Instant::now);
            drop(stream);
            self.wake();
        }
        Ok(number)
    }

    /// Enqueues changes and waits until they are durable.
    pub async fn write(&self, changes: Vec<LogChange>) -> Result<(), Arc<StoreError>> {
        let (sender, durable) = tokio::sync::oneshot::channel();
        let completion: Completion = Box::new(move |result| drop(sender.send(result)));
        self.enqueue(changes, Urgency::Now, Some(completion))?;
        durable.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Poisoned)))
    }

    /// [`enqueue_applied`](Self::enqueue_applied), and waits until it is durable.
    pub async fn write_applied(&self, applied: LogId) -> Result<(), Arc<StoreError>> {
        let (sender, durable) = tokio::sync::oneshot::channel();
        self.enqueue_applied(applied, Box::new(move |result| drop(sender.send(result))))?;
        durable.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Poisoned)))
    }

    /// Lets the thread commit what waits, riders included, and end.
    pub fn finish(&self) {
        let mut stream = self.lock();
        if matches!(stream.phase, Phase::Running) {
            stream.phase = Phase::Draining;
        }
        drop(stream);
        self.wake();
    }

    /// How long the oldest urgent change has been waiting for its commit; `None` = none waits.
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.lock().busy_since.map(|since| since.elapsed())
    }

    fn wake(&self) {
        self.shared.wake.notify_one();
        self.shared.wake_task.notify_one();
    }

    fn run(&self, parts: &LogWriterParts) {
        let mut stream = self.lock();
        loop {
            match stream.next() {
                Next::Batch(batch) => {
                    drop(stream);
                    if !self.commit(parts, batch) {
                        return;
                    }
                    stream = self.lock();
                }
                Next::End => return,
                Next::Wait => {
                    stream = self.shared.wake.wait(stream).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    async fn run_inline(&self, parts: &LogWriterParts) {
        loop {
            let woken = self.shared.wake_task.notified();
            let next = self.lock().next();
            match next {
                Next::Batch(batch) => {
                    let delay = parts.store.simulated_delay();
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    if !self.commit(parts, batch) {
                        return;
                    }
                }
                Next::End => return,
                Next::Wait => woken.await,
            }
        }
    }

    /// Makes a batch durable and tells those who wait for it; `false` = the store failed, and the stream has ended.
    fn commit(&self, parts: &LogWriterParts, batch: Vec<Change>) -> bool {
        let (changes, completions, last) = flatten(batch);
        match parts.store.commit(&changes) {
            Ok(()) => {
                parts.counters.count_log_batch(&changes);
                self.lock().settle();
                (parts.on_durable)(last);
                completions.into_iter().for_each(|completion| completion(Ok(())));
                true
            }
            Err(error) => {
                let error = Arc::new(error);
                parts.failure.report(FailedPart::LogStore, error.clone());
                completions.into_iter().for_each(|completion| completion(Err(error.clone())));
                self.end(Some(&error));
                false
            }
        }
    }

    /// Takes no more, and fails what came in meanwhile. Only the first error counts.
    fn end(&self, error: Option<&Arc<StoreError>>) {
        let mut stream = self.lock();
        if !matches!(stream.phase, Phase::Ended(_)) {
            stream.phase = Phase::Ended(error.cloned());
        }
        let rest: Vec<Change> = stream.waiting.drain(..).collect();
        drop(stream);
        for completion in rest.into_iter().filter_map(|change| change.completion) {
            completion(Err(error.cloned().unwrap_or_else(|| Arc::new(StoreError::Poisoned))));
        }
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct EndAtDrop(LogWriter);

impl Drop for EndAtDrop {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// What the worker does next.
enum Next {
    Batch(Vec<Change>),
    Wait,
    End,
}

impl Stream {
    fn next(&mut self) -> Next {
        let draining = !matches!(self.phase, Phase::Running);
        if self.urgent > 0 || (draining && !self.waiting.is_empty()) {
            Next::Batch(self.take_batch())
        } else if draining {
            Next::End
        } else {
            Next::Wait
        }
    }

    /// A batch is durable: whoever waits now waits since now.
    fn settle(&mut self) {
        self.busy_since = (self.urgent > 0).then(Instant::now);
    }

    fn take_batch(&mut self) -> Vec<Change> {
        let mut batch = Vec::with_capacity(self.waiting.len());
        let mut bytes = 0;
        while bytes < COMMIT_BYTES_MAX
            && let Some(change) = self.waiting.pop_front()
        {
            bytes += change.changes.iter().map(payload_bytes).sum::<usize>();
            self.urgent -= usize::from(change.urgency == Urgency::Now);
            batch.push(change);
        }
        batch
    }
}

fn payload_bytes(change: &LogChange) -> usize {
    match change {
        LogChange::Append(record) => record.payload.len(),
        _ => 0,
    }
}

fn flatten(batch: Vec<Change>) -> (Vec<LogChange>, Vec<Completion>, ChangeNumber) {
    let last = batch.last().map_or(0, |change| change.number);
    let mut changes = Vec::with_capacity(batch.len());
    let mut completions = Vec::with_capacity(batch.len());
    for change in batch {
        changes.extend(change.changes);
        completions.extend(change.completion);
    }
    (changes, completions, last)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
    use ledger_core::ports::{LogKind, LogRecord, LogSnapshot};

    use super::*;

    const CHANGES: u64 = 600;
    const SENDERS: u64 = 4;

    /// A store whose commits take the longer the fewer changes they have, and of which one may fail.
    struct Uneven {
        inner: MemoryLogStore,
        fails: AtomicBool,
    }

    impl LogStore for Uneven {
        fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
            self.inner.snapshot()
        }

        fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
            self.inner.read(from, to, bytes_max)
        }

        fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
            (changes.len()..32).for_each(|_| std::thread::yield_now());
            if self.fails.load(Ordering::SeqCst) {
                return Err(StoreError::Poisoned);
            }
            self.inner.commit(changes)
        }
    }

    /// A running writer on an uneven store.
    fn uneven() -> (LogWriter, Arc<Uneven>, Worker) {
        let inner = MemoryLogStore::open(&MemoryLogDisk::default());
        let store = Arc::new(Uneven { inner, fails: AtomicBool::new(false) });
        let writer = LogWriter::new();
        let parts = LogWriterParts {
            store: store.clone(),
            counters: Arc::default(),
            failure: FailureCell::default(),
            on_durable: Box::new(|_| {}),
        };
        let worker = writer.start(parts, Threads::Own);
        (writer, store, worker.unwrap_or_else(|error| panic!("{error}")))
    }

    fn record(index: u64) -> LogChange {
        let id = LogId { term: 1, node: 1, index };
        LogChange::Append(LogRecord { id, kind: LogKind::Blank, payload: bytes::Bytes::new() })
    }

    fn end(writer: &LogWriter, worker: Worker) {
        writer.finish();
        if let Worker::Thread(thread) = worker {
            assert!(thread.join().is_ok());
        }
    }

    /// The engine takes a completion for a watermark: everything before it counts as durable. One that comes before its
    /// turn would acknowledge what is not on the disk (openraft issue 1960 drops progress for the same reason).
    #[test]
    fn completions_come_in_the_order_of_the_stream_and_each_when_its_record_is_durable() {
        let (writer, store, worker) = uneven();
        let told: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
        let next = Mutex::new(1);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    loop {
                        // The order of the stream is the order of the entries, whoever sends them.
                        let mut next = lock(&next);
                        let index = *next;
                        if index > CHANGES {
                            return;
                        }
                        *next += 1;
                        let (told, store) = (Arc::clone(&told), Arc::clone(&store));
                        let completion: Completion = Box::new(move |result| {
                            let last = store.snapshot().ok().and_then(|snapshot| snapshot.last);
                            let is_durable = result.is_ok() && last.is_some_and(|id| id.index >= index);
                            lock(&told).push((index, is_durable));
                        });
                        let urgency = if index.is_multiple_of(3) { Urgency::RideAlong } else { Urgency::Now };
                        assert!(writer.enqueue(vec![record(index)], urgency, Some(completion)).is_ok());
                    }
                });
            }
        });
        end(&writer, worker);
        let expected: Vec<(u64, bool)> = (1..=CHANGES).map(|index| (index, true)).collect();
        assert_eq!(*lock(&told), expected);
    }

    #[test]
    fn after_a_completion_that_failed_none_succeeds() {
        let (writer, store, worker) = uneven();
        let told: Arc<Mutex<Vec<bool>>> = Arc::default();
        let mut refused = 0;
        for index in 1..=CHANGES {
            if index == CHANGES / 2 {
                // Some are durable by now.
                while lock(&told).is_empty() {
                    std::thread::yield_now();
                }
                store.fails.store(true, Ordering::SeqCst);
            }
            if index == CHANGES / 2 + 10 {
                // It works again: that changes nothing.
                store.fails.store(false, Ordering::SeqCst);
            }
            let telling = Arc::clone(&told);
            let completion: Completion = Box::new(move |result| lock(&telling).push(result.is_ok()));
            // Some wait for others, so that commits have one and several.
            let urgency = if index % 7 == 0 { Urgency::Now } else { Urgency::RideAlong };
            refused += u64::from(writer.enqueue(vec![record(index)], urgency, Some(completion)).is_err());
            if index == CHANGES / 2 + 9 {
                // What fails has failed before the store works again.
                while !matches!(writer.lock().phase, Phase::Ended(_)) {
                    std::thread::yield_now();
                }
            }
        }
        end(&writer, worker);
        let told = lock(&told);
        assert!(told.is_sorted_by(|before, after| before >= after), "{told:?}");
        assert!(told.contains(&true) && told.contains(&false), "{told:?}");
        assert_eq!(told.len() as u64 + refused, CHANGES, "everyone is told");
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
