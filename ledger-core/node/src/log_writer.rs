//! Group commit: one thread makes every change to the log durable, as many as wait in one transaction.
//!
//! Vote, records, truncations, purges and signing marks are one ordered stream. If a record of a later
//! term could be durable before the vote of that term, a restart would let an old leader overwrite what
//! was committed.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ledger_core::ports::{LogChange, LogStore, StoreError};
use tokio::sync::Notify;

use crate::counters::CounterCells;
use crate::failure::{FailedPart, FailureCell, PanicReport};
use crate::threads::{DiskTiming, Running, Threads};

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
    /// For a writer that is a task.
    wake_task: Notify,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Change>,
    last_number: ChangeNumber,
    urgent: usize,
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
        let shared =
            Shared { stream: Mutex::new(Stream::default()), wake: Condvar::new(), wake_task: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the thread, or the task.
    pub fn start(&self, parts: LogWriterParts, threads: &Threads) -> io::Result<Running> {
        let writer = self.clone();
        // After a panic too nobody waits for a writer that is gone.
        let guards = (PanicReport(parts.failure.clone()), EndAtDrop(writer.clone()));
        match threads {
            Threads::Own => Running::thread("ledger-log", move || {
                let _guards = guards;
                writer.run(&parts);
            }),
            Threads::Inline(work) => {
                let disks = Arc::clone(&work.disks);
                Ok(Running::task(async move {
                    let _guards = guards;
                    writer.run_inline(&parts, &*disks).await;
                }))
            }
        }
    }

    /// Puts changes at the end of the stream. `completion` runs on the writer's thread, in stream order.
    pub fn enqueue(
        &self,
        changes: Vec<LogChange>,
        urgency: Urgency,
        completion: Option<Completion>,
    ) -> Result<ChangeNumber, Arc<StoreError>> {
        let mut stream = self.lock();
        if let Phase::Ended(error) = &stream.phase {
            return Err(error.clone().unwrap_or_else(|| Arc::new(StoreError::Poisoned)));
        }
        stream.last_number += 1;
        let number = stream.last_number;
        stream.waiting.push_back(Change { number, changes, urgency, completion });
        if urgency == Urgency::Now {
            stream.urgent += 1;
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

    /// Lets the thread commit what waits, riders included, and end.
    pub fn finish(&self) {
        let mut stream = self.lock();
        if matches!(stream.phase, Phase::Running) {
            stream.phase = Phase::Draining;
        }
        drop(stream);
        self.wake();
    }

    fn wake(&self) {
        self.shared.wake.notify_one();
        self.shared.wake_task.notify_one();
    }

    fn run(&self, parts: &LogWriterParts) {
        while let Some(batch) = self.next_batch() {
            let (changes, completions, last) = flatten(batch);
            let committed = parts.store.commit(&changes);
            if self.complete(parts, &changes, (completions, last), committed).is_break() {
                return;
            }
        }
    }

    /// The same as a task, on a disk whose syncs take time of the runtime.
    async fn run_inline(&self, parts: &LogWriterParts, disks: &dyn DiskTiming) {
        while let Some(batch) = self.next_batch_inline().await {
            let (changes, completions, last) = flatten(batch);
            let committed = match parts.store.commit(&changes) {
                Ok(()) => disks.log_synced().await,
                error => error,
            };
            if self.complete(parts, &changes, (completions, last), committed).is_break() {
                return;
            }
        }
    }

    /// Tells everyone how a commit ended.
    fn complete(
        &self,
        parts: &LogWriterParts,
        changes: &[LogChange],
        (completions, last): (Vec<Completion>, ChangeNumber),
        committed: Result<(), StoreError>,
    ) -> ControlFlow<()> {
        match committed {
            Ok(()) => {
                parts.counters.count_log_batch(changes);
                (parts.on_durable)(last);
                completions.into_iter().for_each(|completion| completion(Ok(())));
                ControlFlow::Continue(())
            }
            Err(error) => {
                let error = Arc::new(error);
                parts.failure.report(FailedPart::LogStore, error.clone());
                completions.into_iter().for_each(|completion| completion(Err(error.clone())));
                self.end(Some(&error));
                ControlFlow::Break(())
            }
        }
    }

    /// Waits for work; `None` = everything is done and the thread should end.
    fn next_batch(&self) -> Option<Vec<Change>> {
        let mut stream = self.lock();
        loop {
            match stream.next_batch() {
                Next::Batch(batch) => return Some(batch),
                Next::End => return None,
                Next::Wait => {}
            }
            stream = self.shared.wake.wait(stream).unwrap_or_else(PoisonError::into_inner);
        }
    }

    async fn next_batch_inline(&self) -> Option<Vec<Change>> {
        loop {
            let next = self.lock().next_batch();
            match next {
                Next::Batch(batch) => return Some(batch),
                Next::End => return None,
                // Whoever wakes the task between the look and this leaves a permit.
                Next::Wait => self.shared.wake_task.notified().await,
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

/// What the writer does next.
enum Next {
    Batch(Vec<Change>),
    Wait,
    End,
}

impl Stream {
    fn next_batch(&mut self) -> Next {
        let draining = !matches!(self.phase, Phase::Running);
        if self.urgent > 0 || (draining && !self.waiting.is_empty()) {
            Next::Batch(self.take_batch())
        } else if draining {
            Next::End
        } else {
            Next::Wait
        }
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
