//! The one thread that writes: all that waits goes to the disk in one commit, and then the answers go out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use auth_core::Millis;
use auth_core::ports::{AuthStoreError, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::batch::{self, Answer, Asked, Stage};
use super::failure::RedbAuthError;
use super::file::{AuthFile, Progress, put_progress};
use super::options::{BATCH_COMMITS_MAX, QUEUE_BYTES_MAX, RECOVERY_PAUSE};
use super::view::View;
use crate::redb::failure::panic_message;
use crate::redb::one_file::{Failure, Place};

/// What one permit stands for.
const PERMIT_BYTES: usize = 1_024;

/// A commit, and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub asked: Asked,
    pub answer: oneshot::Sender<Answer>,
    /// Held until it is answered, whoever still waits.
    pub permit: OwnedSemaphorePermit,
}

/// What callers and the writer share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to write, or it is over.
    work: Condvar,
    /// What readers see; `None` while there is no file.
    view: RwLock<Option<View>>,
    /// Of the bytes that are written or wait.
    permits: Arc<Semaphore>,
    place: Place,
}

#[derive(Debug, Default)]
pub(super) struct State {
    queue: VecDeque<Waiting>,
    /// Nothing is answered while it is there.
    pub failed: Option<RedbAuthError>,
    pub commits: u64,
    pub transactions: u64,
    pub syncs: (u64, u64),
    /// An attempt to serve again is asked for, and the next one's earliest time.
    recovery: bool,
    recover_from: Millis,
    ending: bool,
    /// Who waits for the end.
    ended: Vec<oneshot::Sender<()>>,
    /// The writer is gone.
    over: bool,
}

enum Work {
    Batch(Vec<Waiting>),
    /// Try to serve again.
    Recover,
}

/// What the writer has.
struct Writer {
    file: Option<AuthFile>,
    progress: Progress,
}

impl Shared {
    pub(super) fn new(view: View, place: Place, syncs: (u64, u64)) -> Self {
        Self {
            state: Mutex::new(State { syncs, ..State::default() }),
            work: Condvar::new(),
            view: RwLock::new(Some(view)),
            permits: Arc::new(Semaphore::new(QUEUE_BYTES_MAX.div_ceil(PERMIT_BYTES))),
            place,
        }
    }

    /// Nobody panics under this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is read now; the writer waits with what comes next.
    pub(super) fn view(&self) -> RwLockReadGuard<'_, Option<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, view: Option<View>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Waits until there is room for a commit of that size.
    pub(super) async fn room(&self, size_bytes: usize) -> Result<OwnedSemaphorePermit, RedbAuthError> {
        let permits = u32::try_from(size_bytes.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits).acquire_many_owned(permits).await.map_err(|_| RedbAuthError::Closed)
    }

    /// Hands a commit to the writer.
    pub(super) fn ask(
        &self,
        asked: Asked,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Answer>, RedbAuthError> {
        let mut state = self.lock();
        if state.ending || state.over {
            return Err(RedbAuthError::Closed);
        }
        if let Some(error) = state.failed.clone() {
            self.recover_now_and_then(&mut state, asked.now);
            return Err(error);
        }
        let (answer, receiver) = oneshot::channel();
        state.queue.push_back(Waiting { asked, answer, permit });
        self.work.notify_one();
        Ok(receiver)
    }

    /// The engine failed somebody who reads: the file is to be opened anew.
    pub(super) fn suspect(&self, now: Millis) {
        self.recover_now_and_then(&mut self.lock(), now);
    }

    fn recover_now_and_then(&self, state: &mut State, now: Millis) {
        let lost = matches!(state.failed, Some(RedbAuthError::NotSynced { .. } | RedbAuthError::Closed));
        // A clock that was far ahead puts nothing off.
        let due = now >= state.recover_from || now.after(RECOVERY_PAUSE) < state.recover_from;
        if due && !lost {
            state.recover_from = now.after(RECOVERY_PAUSE);
            state.recovery = true;
            self.work.notify_one();
        }
    }

    /// The writer ends behind all that waits. Nothing comes behind that.
    pub(super) fn end(&self) -> oneshot::Receiver<()> {
        let (ended, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.ending = true;
        if !state.over {
            state.ended.push(ended);
            self.work.notify_one();
        }
        receiver
    }

    /// Writes until it is over. Then nobody waits any more, whatever ended it.
    pub(super) fn write_until_the_end(&self, file: AuthFile, progress: Progress) {
        let mut writer = Writer { file: Some(file), progress };
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while let Some(work) = self.next_work() {
                match work {
                    Work::Batch(batch) => self.write(&mut writer, batch),
                    Work::Recover => drop(self.reopen(&mut writer)),
                }
            }
        }));
        self.show(None);
        drop(writer);
        let mut state = self.lock();
        if ended.is_err() {
            let reason = "the thread that writes has panicked".to_owned();
            state.failed = Some(RedbAuthError::Failed { name: self.place.name.clone(), reason });
        }
        state.failed.get_or_insert(RedbAuthError::Closed);
        // None of these has been begun.
        for waiting in state.queue.drain(..) {
            let _ = waiting.answer.send(Err(RedbAuthError::Closed.unavailable()));
        }
        state.ended.clear();
        state.over = true;
    }

    fn next_work(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() {
                let count = state.queue.len().min(BATCH_COMMITS_MAX);
                return Some(Work::Batch(state.queue.drain(..count).collect()));
            }
            if state.ending {
                return None;
            }
            if std::mem::take(&mut state.recovery) {
                return Some(Work::Recover);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, writer: &mut Writer, batch: Vec<Waiting>) {
        let answers = match writer.write(&batch) {
            Ok(answers) => {
                self.show_committed(writer);
                answers
            }
            Err((stage, reason)) => self.after_failure(writer, &batch, stage, &reason),
        };
        let mut state = self.lock();
        state.commits = state.commits.saturating_add(batch.len() as u64);
        state.transactions = state.transactions.saturating_add(1);
        state.syncs = writer.file.as_ref().map_or(state.syncs, AuthFile::syncs);
        drop(state);
        for (waiting, answer) in batch.into_iter().zip(answers) {
            drop(waiting.permit);
            // Who has gone away may find out by the id.
            let _ = waiting.answer.send(answer);
        }
    }

    fn show_committed(&self, writer: &Writer) {
        let view = writer.file.as_ref().map(|file| guarded(|| file.view(writer.progress.last)));
        match view {
            Some(Ok(view)) => self.show(Some(view)),
            // Nobody reads what was: readers are told, and ask for a recovery.
            _ => self.show(None),
        }
    }

    /// What is told to those whose transaction has failed: the file itself says what was applied, once it is open again.
    fn after_failure(
        &self,
        writer: &mut Writer,
        batch: &[Waiting],
        stage: Stage,
        reason: &str,
    ) -> Vec<Answer> {
        let was_full = writer.file.as_ref().is_some_and(AuthFile::was_full);
        let sync_failed = writer.file.as_ref().is_some_and(AuthFile::sync_failed);
        let found = if sync_failed {
            self.show(None);
            writer.file = None;
            let (name, reason) = (self.place.name.clone(), reason.to_owned());
            self.lock().failed = Some(RedbAuthError::NotSynced { name, reason });
            None
        } else {
            self.reopen(writer).ok().and_then(|()| writer.found(batch, stage).ok())
        };
        let not_applied = || match was_full {
            true => AuthStoreError::Full { reason: reason.to_owned() },
            false => RedbAuthError::Failed { name: self.place.name.clone(), reason: reason.to_owned() }
                .unavailable(),
        };
        let unknown = || AuthStoreError::UnknownOutcome { reason: reason.to_owned() };
        match (found, stage) {
            (Some(found), _) => found.into_iter().map(|position| position.ok_or_else(not_applied)).collect(),
            (None, Stage::Judging) => batch.iter().map(|_| Err(not_applied())).collect(),
            (None, Stage::Committing) => batch.iter().map(|_| Err(unknown())).collect(),
        }
    }

    /// Opens the file anew: with whatever has become durable of a transaction that failed.
    fn reopen(&self, writer: &mut Writer) -> Result<(), RedbAuthError> {
        // Readers hold the old one.
        self.show(None);
        let sync_failed = writer.file.as_ref().is_some_and(AuthFile::sync_failed);
        let name = || self.place.name.clone();
        writer.file = None;
        let opened = if sync_failed {
            Err(RedbAuthError::NotSynced { name: name(), reason: "an fsync has failed".to_owned() })
        } else {
            AuthFile::open(&self.place).and_then(|opened| {
                let reason = || "it is gone".to_owned();
                opened.ok_or_else(|| RedbAuthError::Failed { name: name(), reason: reason() })
            })
        };
        match opened {
            Ok((file, progress)) => {
                *writer = Writer { file: Some(file), progress };
                self.show_committed(writer);
                self.lock().failed = None;
                Ok(())
            }
            Err(error) => {
                self.lock().failed = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl Writer {
    /// The answers, when all is durable; else how far it came, and why it failed.
    fn write(&mut self, batch: &[Waiting]) -> Result<Vec<Answer>, (Stage, String)> {
        let mut stage = Stage::Judging;
        let Some(file) = &self.file else { return Err((stage, "the file is closed".to_owned())) };
        let asked = batch.iter().map(|waiting| &waiting.asked);
        guarded(|| batch::write(file, asked, &mut self.progress, &mut stage))
            .map_err(|reason| (stage, reason))
    }

    /// Which commits of a batch the file has, after it was opened anew.
    fn found(&self, batch: &[Waiting], stage: Stage) -> Result<Vec<Option<Position>>, String> {
        let Some(file) = &self.file else { return Err("the file is closed".to_owned()) };
        guarded(|| {
            if stage == Stage::Committing {
                // What is found may not have been synced: it is before anybody is told.
                let confirmation = file.begin_write()?;
                put_progress(&confirmation, self.progress)?;
                confirmation.commit()?;
            }
            let ids: Vec<_> = batch.iter().map(|waiting| waiting.asked.commit.id).collect();
            let known = file.known(&ids)?.into_iter().zip(batch);
            Ok(known
                .map(|(known, waiting)| {
                    known.filter(|(digest, _)| *digest == waiting.asked.digest).map(|(_, position)| position)
                })
                .collect())
        })
    }
}

/// Runs `work`; whatever goes wrong in it is told in words.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(payload) => Err(panic_message(payload.as_ref())),
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("place", &self.place).finish_non_exhaustive()
    }
}
