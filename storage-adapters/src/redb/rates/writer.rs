//! The one thread that writes: everything that was gathered goes to the disk in one commit, and then the answers go out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ratelimit_core::{Carried, Nanos};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::book::Book;
use super::failure::RedbRateError;
use super::file::{Change, RateFile};
use super::layout::Secret;
use super::options::{IN_PROGRESS_MAX, RECOVERY_PAUSE};
use super::policies::Plan;
use super::rows::Rows;
use crate::redb::one_file::Place;

/// Rows that are looked at or copied while requests wait.
pub(super) const ROWS_AT_ONCE: usize = 4_096;

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
    /// One change of the policies at a time.
    pub reopening: tokio::sync::Mutex<()>,
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
    /// Who waits until rows are made for other policies.
    preparing: Option<oneshot::Sender<Durable>>,
    /// The next commit proves that there can be one, whatever else is in it.
    probing: bool,
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
    /// Put other policies in force, whose rows are made.
    Exchange(Plan),
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
            preparing: None,
            probing: false,
            recovery: None,
            recover_from: Nanos(0),
            ending: false,
            over: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            permits: Arc::new(Semaphore::new(IN_PROGRESS_MAX)),
            reopening: tokio::sync::Mutex::const_new(()),
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
                if state.waiting.len() >= 2 * IN_PROGRESS_MAX {
                    // As many may wait at a time; the others have gone away.
                    state.waiting.retain(|waiting| !waiting.is_closed());
                }
                state.waiting.push(sender);
                self.work.notify_one();
            }
        }
        receiver
    }

    /// Waits for a commit that is made for nothing else, unless it has company.
    pub(super) fn probe(&self, state: &mut State) -> oneshot::Receiver<Durable> {
        state.probing = true;
        self.wait_for(state, state.book.counters.next_commit())
    }

    /// Has rows made for other policies, some with each commit. Who waits is told when all are there.
    pub(super) fn prepare(&self, plan: &Plan, state: &mut State) -> oneshot::Receiver<Durable> {
        let (sender, receiver) = oneshot::channel();
        state.book.counters.prepare(plan);
        state.preparing = Some(sender);
        state.tell_prepared();
        self.work.notify_one();
        receiver
    }

    /// Forgets what was prepared.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.book.counters.abandon();
        state.preparing = None;
        self.work.notify_one();
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
        state.preparing = None;
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
            let works = state.failed.is_none();
            if works && state.has_writes() && state.has_reason() {
                return Some(self.next_commit(&mut state));
            }
            if let Some(now) = state.recovery.take() {
                return Some(Work::Recover(now));
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(Work::Job(job));
            }
            if works && state.book.counters.has_rows_to_move() {
                return Some(self.next_commit(&mut state));
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn next_commit(&self, state: &mut State) -> Work {
        let now = state.newest;
        let (number, mut change) = state.book.take_gathered(now);
        if std::mem::take(&mut state.probing) {
            // What is there already, written once more: a commit as every other.
            change.epoch_ns = Some(self.epoch_ns);
        }
        let waiting = std::mem::take(&mut state.waiting);
        state.in_flight = Some(InFlight { number, waiting });
        Work::Commit(number, change)
    }

    /// A commit has ended: whoever waited for it is told.
    fn settle(&self, number: u64, change: &Change, written: &Durable, file: Option<&RateFile>) {
        let mut state = self.lock();
        let in_flight = state.in_flight.take();
        let mut told = in_flight.map(|in_flight| in_flight.waiting).unwrap_or_default();
        match written {
            Ok(()) => {
                state.book.counters.settle(number, change);
                state.tell_prepared();
            }
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
            Task::Exchange(plan) => self.exchange(plan, file.as_ref()),
            Task::Recover => self.recover(now, file).map(|()| Vec::new()),
            Task::Close => self.close(now, file).map(|()| Vec::new()),
        };
        drop(alone);
        // Who asked may have gone away.
        let _ = done.send(result);
    }

    /// The last commit of a change of the policies. It is a small one: all rows are there, but those that changed just now.
    fn exchange(&self, plan: Plan, file: Option<&RateFile>) -> Result<Vec<Carried>, RedbRateError> {
        let change = {
            let mut state = self.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if !state.book.counters.has_moved() {
                let reason = "the file was made anew while limits changed".to_owned();
                return Err(RedbRateError::Failed { reason });
            }
            state.book.exchanging(&plan)
        };
        if !change.is_empty() {
            commit(file, &change).inspect_err(|error| drop(self.lock().fail(error)))?;
        }
        Ok(self.lock().book.exchange(plan))
    }

    /// A new file takes the place of the one that failed, with all that is in memory: it is not behind what was answered.
    fn recover(&self, now: Nanos, file: &mut Option<RateFile>) -> Result<(), RedbRateError> {
        let policies = {
            let state = self.lock();
            match &state.failed {
                None => return Ok(()),
                Some(RedbRateError::Closed) => return Err(RedbRateError::Closed),
                Some(_) => state.book.policies.encoded(),
            }
        };
        // Nothing changes while nothing is answered; who asks is refused between any two steps.
        let (mut rows, mut from) = (Rows::default(), None);
        loop {
            let (live, last) = self.lock().book.live(from, ROWS_AT_ONCE, now);
            for (key, row) in live {
                rows.insert(key, row);
            }
            match last {
                Some(_) => from = last,
                None => break,
            }
        }
        let written = rows.behind(None).map(|(key, row)| (key, Some(row.written))).collect();
        let change = Change { epoch_ns: Some(self.epoch_ns), policies, rows: written };
        *file = Some(RateFile::create(&self.place, self.secret, &change)?);
        let before = {
            let mut state = self.lock();
            let State { book, failed, .. } = &mut *state;
            *failed = None;
            book.counters.restore(rows, &book.policies)
        };
        // Freed while others decide already.
        drop(before);
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
            state.preparing = None;
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

    fn has_writes(&self) -> bool {
        self.book.counters.has_gathered() || self.probing
    }

    /// Tells who waits that all rows are made.
    fn tell_prepared(&mut self) {
        if self.book.counters.has_moved()
            && let Some(waiting) = self.preparing.take()
        {
            // Who has gone away has it forgotten.
            let _ = waiting.send(Ok(()));
        }
    }

    /// Ends all answers; returns who waited.
    fn fail(&mut self, error: &RedbRateError) -> Vec<oneshot::Sender<Durable>> {
        self.book.counters.abandon();
        if let Some(waiting) = self.preparing.take() {
            let _ = waiting.send(Err(error.clone()));
        }
        self.failed = Some(error.clone());
        self.recover_from = self.newest.after(RECOVERY_PAUSE);
        std::mem::take(&mut self.waiting)
    }
}

fn commit(file: Option<&RateFile>, change: &Change) -> Durable {
    file.ok_or(RedbRateError::Closed)?.commit(change)
}
