//! What happens beside the commits: the next segment is prepared, old ones are closed and removed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::failure::WalError;
use super::frame::{FrameHead, FrameKind};
use super::options::Upkeep;
use super::segment::{Maker, Segment, name};

/// One piece of work, done in the order of submission.
#[derive(Debug)]
pub(super) enum Job {
    /// Make a segment of this number and size.
    Prepare(u64, u64),
    /// Mark that the log goes on behind this segment, whose frames end at `offset` with `sequence`.
    End { segment: Segment, offset: u64, sequence: u64 },
    /// Remove these segments, oldest first.
    Remove(Vec<u64>),
}

type Prepared = Result<Segment, WalError>;

/// Does the [`Job`]s.
#[derive(Debug)]
pub(super) struct Keeper {
    maker: Maker,
    /// First failure of a job that is not a preparation.
    failure: Arc<Mutex<Option<WalError>>>,
    /// A segment was asked for and not yet taken.
    is_preparing: bool,
    jobs: Option<Sender<Job>>,
    prepared: Receiver<Prepared>,
    hands: Hands,
    thread: Option<JoinHandle<()>>,
}

/// What a job needs: owned by the thread, or kept for doing jobs at once.
#[derive(Debug, Clone)]
struct Hands {
    maker: Maker,
    failure: Arc<Mutex<Option<WalError>>>,
    done: Sender<Prepared>,
}

impl Hands {
    fn work(&self, job: Job) {
        let result = match job {
            Job::Prepare(number, size) => {
                // The receiver is gone only when the log is closed.
                if let Some(prepared) = self.maker.make(number, size, &[]).transpose() {
                    let _ = self.done.send(prepared);
                }
                Ok(())
            }
            Job::End { segment, offset, sequence } => self.end(&segment, offset, sequence),
            Job::Remove(numbers) => self.remove(&numbers),
        };
        if let Err(error) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn end(&self, segment: &Segment, offset: u64, sequence: u64) -> Result<(), WalError> {
        let place = segment.place(self.maker.tag, offset);
        let mark = FrameHead::mark(FrameKind::End, sequence, &place).encode(&place);
        segment.write(&self.maker.counters, offset, &mark)?;
        segment.sync_aside(&self.maker.counters)
    }

    /// One after the other, each durably: the segments that are left have no gap between them. After a
    /// failure nothing more is removed.
    fn remove(&self, numbers: &[u64]) -> Result<(), WalError> {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        numbers.iter().try_for_each(|number| self.maker.remove(&name(*number)))
    }
}

impl Keeper {
    pub(super) fn start(maker: Maker, upkeep: Upkeep) -> std::io::Result<Self> {
        let failure = Arc::new(Mutex::new(None));
        let (done, prepared) = channel();
        let hands = Hands { maker: maker.clone(), failure: Arc::clone(&failure), done };
        let (jobs, thread) = match upkeep {
            Upkeep::Inline => (None, None),
            Upkeep::Background => {
                let (jobs, queue) = channel();
                let hands = hands.clone();
                let work = move || queue.into_iter().for_each(|job| hands.work(job));
                let thread = std::thread::Builder::new().name("wal-upkeep".to_owned()).spawn(work)?;
                (Some(jobs), Some(thread))
            }
        };
        Ok(Self { maker, failure, is_preparing: false, jobs, prepared, hands, thread })
    }

    pub(super) fn submit(&mut self, job: Job) {
        self.is_preparing |= matches!(job, Job::Prepare(..));
        match &self.jobs {
            // The thread ends only with this sender.
            Some(jobs) => drop(jobs.send(job)),
            None => self.hands.work(job),
        }
    }

    /// The segment that was asked for last, once it is ready.
    pub(super) fn take_prepared(&mut self) -> Option<Prepared> {
        if !std::mem::take(&mut self.is_preparing) {
            return None;
        }
        match &self.jobs {
            Some(_) => self.prepared.recv().ok(),
            None => self.prepared.try_recv().ok(),
        }
    }

    pub(super) fn take_failure(&self) -> Option<WalError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn maker(&self) -> &Maker {
        &self.maker
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.maker.closing.store(true, std::sync::atomic::Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself; nothing is left to do about it.
            let _ = thread.join();
        }
    }
}
