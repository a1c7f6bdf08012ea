//! The one thread that writes: everything that was gathered goes to the disk in one commit, and then the answers go out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ratelimit_core::ports::Policy;
use ratelimit_core::{Carried, Nanos};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::book::Book;
use super::failure::RedbRateError;
use super::file::{Change, RateFile};
use super::layout::Secret;
use super::options::{IN_PROGRESS_MAX, RECOVERY_PAUSE};
use super::policies::Moment;
use crate::redb::one_file::Place;

/// What a request waits for.
pub(super) type Durable = Result<(), RedbRateError>;

/// What requests and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to write, or it is over.
    work: Condvar,
    /// A request holds one while it is decided and waits, a job holds all.
    pub permits: Arc<Semaphore>,
    pub secret: Secret,
    pub epoch_ns: u64,
    place: Place,
}

#[derive(Debug)]
pub(super) struct State {
    pub book: Book,
    /// Nothing is answered while it is there.
    pub failed: Option<RedbRateError>,
    /// The newest instant that a request brought.
    pub newest: Nanos,
    pub commits: u64,
    pub syncs: (u64, u64),
    /// Who waits for the commit that is being gathered.
    waiting: Vec<oneshot::Sender<Durable>>,
    in_flight: Option<InFlight>,
    jobs: VecDeque<Job>,
    /// An attempt to serve again that is asked for, and the next one's earliest time.
    recovery: Option<Nanos>,
    recover_from: Nanos,
    ending: bool,
    /// The writer is gone.
    over: bool,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    waiting: Vec<oneshot::Sender<Durable>>,
}

/// What is done while no request is in progress.
#[derive(Debug)]
pub(super) struct Job {
    pub task: Task,
    pub now: Nanos,
    pub done: oneshot::Sender<Result<Vec<Carried>, RedbRateError>>,
    /// Lets requests in again when the job is over, whoever waited for it.
    pub alone: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) enum Task {
    Reopen(Vec<Policy>),
    Recover,
    Close,
}

enum Work {
    Commit(u64, Change),
    /// Try to serve again.
    Recover(Nanos),
    Job(Job),
}

impl Shared {
    pub(super) fn new(book: Book, secret: Secret, epoch_ns: u64, place: Place) -> Self {
        let state = State {
            book,
            failed: None,
            newest: Nanos(0),
            commits: 0,
            syncs: (0, 0),
            waiting: Vec::new(),
            in_flight: None,
            jobs: VecDeque::new(),
            recovery: None,
            recover_from: Nanos(0),
            ending: false,
            over: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            permits: Arc::new(Semaphore::new(IN_PROGRESS_MAX)),
            secret,
            epoch_ns,
            place,
        }
    }

    /// Nobody panics under this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a commit, from now on.
    pub(super) fn wait_for(&self, state: &mut State, commit: u64) -> oneshot::Receiver<Durable> {
        let (sender, receiver) = oneshot::channel();
        match &mut state.in_flight {
            Some(in_flight) if commit <= in_flight.number => in_flight.waiting.push(sender),
            _ => {
                state.waiting.push(sender);
                self.work.notify_one();
            }
        }
        receiver
    }

    /// Has the writer try to serve again after a failure, now and then.
    pub(super) fn try_again(&self, state: &mut State, now: Nanos) {
        if now >= state.recover_from {
            state.recover_from = now.after(RECOVERY_PAUSE);
            state.recovery = Some(now);
            self.work.notify_one();
        }
    }

    /// Hands the writer something to do. Without a writer it is dropped, and who waits for it learns that.
    pub(super) fn hand_over(&self, job: Job) {
        let mut state = self.lock();
        if !state.over {
            state.jobs.push_back(job);
            self.work.notify_one();
        }
    }

    /// The writer stops after the commit that is under way.
    pub(super) fn end(&self) {
        self.lock().ending = true;
        self.work.notify_one();
    }

    /// Writes until it is over. Then nobody waits any more, whatever ended it.
    pub(super) fn write_until_the_end(&self, file: RateFile) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.write(file)));
        let mut state = self.lock();
        if ended.is_err() {
            let reason = "the thread that writes has panicked".to_owned();
            state.failed = Some(RedbRateError::Failed { reason });
        }
        state.failed.get_or_insert(RedbRateError::Closed);
        state.in_flight = None;
        state.waiting.clear();
        state.jobs.clear();
        state.over = true;
    }

    fn write(&self, file: RateFile) {
        let mut file = Some(file);
        while let Some(work) = self.next_work() {
            match work {
                Work::Commit(number, change) => {
                    let written = commit(file.as_ref(), &change);
                    self.settle(number, &change, &written, file.as_ref());
                }
                // Until it succeeds the failure stays what it was.
                Work::Recover(now) => drop(self.recover(now, &mut file)),
                Work::Job(job) => self.carry_out(job, &mut file),
            }
        }
    }

    fn next_work(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.ending {
                return None;
            }
            if state.failed.is_none() && state.book.counters.has_gathered() && state.has_reason() {
                let now = state.newest;
                let (number, change) = state.book.take_gathered(now);
                let waiting = std::mem::take(&mut state.waiting);
                state.in_flight = Some(InFlight { number, waiting });
                return Some(Work::Commit(number, change));
            }
            if let Some(now) = state.recovery.take() {
                return Some(Work::Recover(now));
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(Work::Job(job));
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A commit has ended: whoever waited for it is told.
    fn settle(&self, number: u64, change: &Change, written: &Durable, file: Option<&RateFile>) {
        let mut state = self.lock();
        let in_flight = state.in_flight.take();
        let mut told = in_flight.map(|in_flight| in_flight.waiting).unwrap_or_default();
        match written {
            Ok(()) => state.book.counters.settle(number, change),
            Err(error) => told.append(&mut state.fail(error)),
        }
        state.commits = state.commits.saturating_add(1);
        state.syncs = file.map(RateFile::syncs).unwrap_or(state.syncs);
        drop(state);
        for waiting in told {
            // Who has gone away stays charged.
            let _ = waiting.send(written.clone());
        }
    }

    fn carry_out(&self, job: Job, file: &mut Option<RateFile>) {
        let Job { task, now, done, alone } = job;
        let result = match task {
            Task::Reopen(policies) => self.reopen(policies, now, file.as_ref()),
            Task::Recover => self.recover(now, file).map(|()| Vec::new()),
            Task::Close => self.close(now, file).map(|()| Vec::new()),
        };
        drop(alone);
        // Who asked may have gone away.
        let _ = done.send(result);
    }

    fn reopen(
        &self,
        policies: Vec<Policy>,
        now: Nanos,
        file: Option<&RateFile>,
    ) -> Result<Vec<Carried>, RedbRateError> {
        let succession = {
            let state = self.lock();
            // No word in memory is beyond what a request could have charged by then: none is cut.
            let now = now.max(state.newest);
            let moment = Moment { before: now, after: now, same_epoch: true };
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.book.policies.succeeded(policies, state.book.counters.rows(), moment)?
        };
        if !succession.change.is_empty() {
            commit(file, &succession.change).inspect_err(|error| drop(self.lock().fail(error)))?;
        }
        self.lock().book.replace(succession.policies, succession.rows);
        Ok(succession.carried)
    }

    /// A new file takes the place of the one that failed, with all that is in memory: it is not behind what was answered.
    fn recover(&self, now: Nanos, file: &mut Option<RateFile>) -> Result<(), RedbRateError> {
        let (rows, policies) = {
            let state = self.lock();
            match &state.failed {
                None => return Ok(()),
                Some(RedbRateError::Closed) => return Err(RedbRateError::Closed),
                Some(_) => {
                    let policies = &state.book.policies;
                    (state.book.counters.live(policies, now), policies.encoded())
                }
            }
        };
        let written = rows.iter().map(|(key, row)| (*key, Some(row.written))).collect();
        let change = Change { epoch_ns: Some(self.epoch_ns), policies, rows: written };
        *file = Some(RateFile::create(&self.place, self.secret, &change)?);
        let mut state = self.lock();
        state.book.counters.restore(rows);
        state.failed = None;
        Ok(())
    }

    fn close(&self, now: Nanos, file: &mut Option<RateFile>) -> Result<(), RedbRateError> {
        let change = {
            let mut state = self.lock();
            self.permits.close();
            if let Some(error) = state.failed.replace(RedbRateError::Closed) {
                *file = None;
                return Err(error);
            }
            state.book.counters.settled(&state.book.policies, now)
        };
        let written = if change.is_empty() { Ok(()) } else { commit(file.as_ref(), &change) };
        *file = None;
        written
    }
}

impl State {
    /// Rows that only died wait for company.
    fn has_reason(&self) -> bool {
        !self.waiting.is_empty() || !self.jobs.is_empty()
    }

    /// Ends all answers; returns who waited.
    fn fail(&mut self, error: &RedbRateError) -> Vec<oneshot::Sender<Durable>> {
        self.failed = Some(error.clone());
        self.recover_from = self.newest.after(RECOVERY_PAUSE);
        std::mem::take(&mut self.waiting)
    }
}

fn commit(file: Option<&RateFile>, change: &Change) -> Durable {
    file.ok_or(RedbRateError::Closed)?.commit(change)
}
