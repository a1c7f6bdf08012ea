use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::{Carried, Decision, HORIZON_NS, KeyParts, Nanos, Verdict};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit, oneshot};

use super::book::Book;
use super::counters::Counters;
use super::failure::RedbRateError;
use super::file::RateFile;
use super::layout::Secret;
use super::options::{IN_PROGRESS_MAX, RateOptions};
use super::policies::{Kept, Moment, Plan, Policies};
use super::request::{Decided, Part, Purpose, Request};
use super::rows::{Row, Rows};
use super::writer::{Durable, Job, ROWS_AT_ONCE, Shared, State, Task};
use crate::redb::one_file::Place;
use crate::redb::state_files::StateFiles;

/// Counters in one file that persist ahead of what is answered. See the module's documentation.
pub struct RedbRateStore {
    shared: Arc<Shared>,
    /// Taken only by `drop`.
    writer: Option<JoinHandle<()>>,
}

/// What a request took. It gives back what it took of policies that have kept their limits since.
#[derive(Debug)]
#[must_use = "dropping it keeps what it took"]
pub struct RateGrant {
    parts: Vec<Part>,
}

impl RedbRateStore {
    /// Opens the file; makes it, readable by its owner only, when it is missing. Its directory has to be there.
    ///
    /// A policy finds the counters of the one of its name; with another limit each keeps what was left of it. Counters of
    /// policies that are gone are removed. `now` counts from the epoch of the options. What a clock that was ahead has left
    /// is cut to what the limit would have kept now.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`]; when it is about policies, the file has not changed.
    pub fn open(
        path: &Path,
        policies: Vec<Policy>,
        options: RateOptions,
        now: Nanos,
    ) -> Result<Self, RedbRateError> {
        Self::open_at(Place::of(path, options.cache_bytes)?, policies, options, now)
    }

    /// As [`open`](Self::open), on a disk of somebody else's: for fault injection.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_files(
        files: Arc<dyn StateFiles>,
        name: &str,
        policies: Vec<Policy>,
        options: RateOptions,
        now: Nanos,
    ) -> Result<Self, RedbRateError> {
        let place = Place { files, name: name.to_owned(), cache_bytes: options.cache_bytes };
        Self::open_at(place, policies, options, now)
    }

    /// The epoch that the words of a file count from, since the beginning of 1970; `None` when there is no file. Who counts
    /// from it saves a conversion, and keeps the windows of its rules where they were.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`].
    pub fn recorded_epoch(path: &Path) -> Result<Option<Duration>, RedbRateError> {
        let opened = RateFile::open(&Place::of(path, super::CACHE_BYTES)?)?;
        Ok(opened.map(|(_, content)| Duration::from_nanos(content.epoch_ns)))
    }

    fn open_at(
        place: Place,
        policies: Vec<Policy>,
        options: RateOptions,
        now: Nanos,
    ) -> Result<Self, RedbRateError> {
        let days = |nanos: u64| Duration::from_nanos(nanos).as_secs() / 86_400;
        if now.0 >= HORIZON_NS {
            let (days, days_max) = (days(now.0), days(HORIZON_NS));
            return Err(RedbRateError::FarFromEpoch { name: place.name, days, days_max });
        }
        let epoch_ns = Nanos::from_duration(options.epoch).0;
        let (file, secret, succession) = match RateFile::open(&place)? {
            None => {
                let moment = Moment { before: now, after: now, same_epoch: true };
                let mut succession = Policies::default().succeeded(policies, &Rows::default(), moment)?;
                succession.change.epoch_ns = Some(epoch_ns);
                let secret = random_secret(&place.name)?;
                (RateFile::create(&place, secret, &succession.change)?, secret, succession)
            }
            Some((file, content)) => {
                let stored = content.policies.into_iter();
                let stored = stored.map(|(number, policy)| Kept::stored(number, policy.name, policy.limit));
                let old = Policies::new(stored.collect());
                let row = |word| Row { memory: word, written: word };
                let rows = content.rows.into_iter().map(|(key, word)| (key, row(word))).collect();
                let before = Nanos(now.0.saturating_add(epoch_ns).saturating_sub(content.epoch_ns));
                let moment = Moment { before, after: now, same_epoch: epoch_ns == content.epoch_ns };
                let mut succession = old.succeeded(policies, &rows, moment)?;
                succession.change.epoch_ns = (!moment.same_epoch).then_some(epoch_ns);
                if !succession.change.is_empty() {
                    file.commit(&succession.change)?;
                }
                (file, content.secret, succession)
            }
        };
        let counters = Counters::new(succession.rows, &succession.policies, options.keys_max);
        let book = Book { policies: succession.policies, counters };
        let name = place.name.clone();
        let shared = Arc::new(Shared::new(book, secret, epoch_ns, place));
        let writing = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("rate-writer".to_owned());
        let writer = writer.spawn(move || writing.write_until_the_end(file)).map_err(|source| {
            RedbRateError::Io { action: "start a thread for", name, source: Arc::new(source) }
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Exchanges the policies, between two requests; their order is their new number. A policy takes over the counters of the
    /// one of the same name: as they are when its limit is the same, else with what was left of each, which is durable
    /// when this returns. Grants of limits that stay the same stay good.
    ///
    /// Requests are decided by the policies of before until all rows are made for the new ones, a thousand with each commit
    /// ([`MOVED_AT_ONCE`](super::MOVED_AT_ONCE)), and wait for the last commit alone, however many rows there are. A counter that
    /// nobody asks for meanwhile changes over when its row is made. Whoever stops waiting has everything left as it was,
    /// unless the last commit has begun.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`]. When it is about policies, nothing has changed.
    pub async fn reopen(&self, policies: Vec<Policy>, now: Nanos) -> Result<Vec<Carried>, RedbRateError> {
        let _one_at_a_time = self.shared.reopening.lock().await;
        let mut preparing = Preparing::begin(&self.shared, policies, now)?;
        preparing.finished().await?;
        let alone = self.all_permits().await?;
        let Some(plan) = preparing.plan.take() else { return Err(RedbRateError::Closed) };
        self.alone(Task::Exchange(plan), now, alone).await
    }

    /// Makes a commit, whatever there is to write: proves that a charge could be made durable now.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`].
    pub async fn probe(&self, now: Nanos) -> Result<(), RedbRateError> {
        let _permit = self.shared.permits.acquire().await.map_err(|_| RedbRateError::Closed)?;
        let durable = {
            let mut state = self.shared.lock();
            state.newest = state.newest.max(now);
            if let Some(error) = state.failed.clone() {
                self.shared.try_again(&mut state, now);
                return Err(error);
            }
            self.shared.probe(&mut state)
        };
        durable.await.unwrap_or(Err(RedbRateError::Closed))
    }

    /// After a failure: makes a new file with all that is in memory in the place of the one that failed, and serves again.
    /// Requests that were answered with an error stay charged. Does nothing when there was no failure. Requests make the
    /// store try this by itself, [`RECOVERY_PAUSE`](super::RECOVERY_PAUSE) apart by their stamps; they are refused meanwhile.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`], when it is as before.
    pub async fn recover(&self, now: Nanos) -> Result<(), RedbRateError> {
        let alone = self.all_permits().await?;
        self.alone(Task::Recover, now, alone).await.map(drop)
    }

    /// Gives back what was written ahead, makes everything durable, and closes the file. Whoever asks later is refused.
    ///
    /// A store that is dropped instead leaves the file as a crash would: nothing that was answered is lost, and what was written
    /// ahead is wasted.
    ///
    /// # Errors
    ///
    /// [`RedbRateError`]. It is closed all the same.
    pub async fn close(&self, now: Nanos) -> Result<(), RedbRateError> {
        let alone = self.all_permits().await?;
        self.alone(Task::Close, now, alone).await.map(drop)
    }

    /// Why nothing is answered any more.
    pub fn failure(&self) -> Option<RedbRateError> {
        self.shared.lock().failed.clone()
    }

    /// What a key has left by what is in memory, whether or not the store has failed: for whoever decides without it. Requests
    /// that were answered with an error count. `None` when nothing is known of the key, or the policy is none.
    pub fn last_known(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Option<Decision> {
        let tag = self.shared.secret.tag(key);
        self.shared.lock().book.last_known(policy, tag, now)
    }

    /// Keys that have used something of their limits. Reads all rows: for metrics, not for requests.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        let (mut live, mut from) = (0_u64, None);
        loop {
            let (more, last) = self.shared.lock().book.live(from, ROWS_AT_ONCE, now);
            live = live.saturating_add(more.len() as u64);
            let Some(last) = last else { return live };
            from = Some(last);
        }
    }

    /// For how many live keys there is room.
    pub fn room_keys(&self) -> u64 {
        self.shared.lock().book.counters.keys_max() as u64
    }

    /// How many charges were denied because there was no room for their key.
    pub fn overflowed(&self) -> u64 {
        self.shared.lock().book.counters.overflowed()
    }

    /// Commits for requests since it was opened.
    pub fn commits(&self) -> u64 {
        self.shared.lock().commits
    }

    /// fsyncs of the file since it was opened: one for each commit, and one each time that it grew.
    pub fn syncs(&self) -> (u64, u64) {
        self.shared.lock().syncs
    }

    /// Waits until no request is in progress; none is while these are held.
    async fn all_permits(&self) -> Result<OwnedSemaphorePermit, RedbRateError> {
        let all = u32::try_from(IN_PROGRESS_MAX).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.shared.permits);
        permits.acquire_many_owned(all).await.map_err(|_| RedbRateError::Closed)
    }

    /// Hands the writer something to do before the next request.
    async fn alone(
        &self,
        task: Task,
        now: Nanos,
        alone: OwnedSemaphorePermit,
    ) -> Result<Vec<Carried>, RedbRateError> {
        let (done, result) = oneshot::channel();
        self.shared.hand_over(Job { task, now, done, alone });
        result.await.unwrap_or(Err(RedbRateError::Closed))
    }

    async fn enter(&self, action: &'static str) -> Result<SemaphorePermit<'_>, RateStoreError> {
        self.shared.permits.acquire().await.map_err(|_| failed(action, RedbRateError::Closed))
    }

    /// Does something to the counters at once, unless the store has failed.
    fn at_once<T>(
        &self,
        action: &'static str,
        now: Nanos,
        work: impl FnOnce(&mut State) -> Result<T, RateStoreError>,
    ) -> Result<T, RateStoreError> {
        let mut state = self.shared.lock();
        state.newest = state.newest.max(now);
        if let Some(error) = state.failed.clone() {
            self.shared.try_again(&mut state, now);
            return Err(failed(action, error));
        }
        let done = work(&mut state);
        let State { book, newest, .. } = &mut *state;
        book.counters.follow(*newest);
        done
    }

    /// Decides, and says what has to be waited for before anybody is told.
    fn decide(
        &self,
        request: &Request,
        purpose: Purpose,
        now: Nanos,
    ) -> Result<(Decided, Option<oneshot::Receiver<Durable>>), RateStoreError> {
        self.at_once("decide", now, |state| {
            let decided = state.book.decide(request, purpose, now)?;
            let durable = decided.after.map(|commit| self.shared.wait_for(state, commit));
            Ok((decided, durable))
        })
    }
}

/// A change of the policies that is not in force yet. It is forgotten when nobody waits any more.
struct Preparing<'s> {
    shared: &'s Shared,
    plan: Option<Plan>,
    done: oneshot::Receiver<Durable>,
}

impl<'s> Preparing<'s> {
    fn begin(shared: &'s Shared, policies: Vec<Policy>, now: Nanos) -> Result<Self, RedbRateError> {
        let mut state = shared.lock();
        state.newest = state.newest.max(now);
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let plan = state.book.policies.planned(policies, state.book.counters.numbers_taken())?;
        let done = shared.prepare(&plan, &mut state);
        Ok(Self { shared, plan: Some(plan), done })
    }

    /// Waits until all rows are made.
    async fn finished(&mut self) -> Result<(), RedbRateError> {
        (&mut self.done).await.unwrap_or(Err(RedbRateError::Closed))
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if self.plan.is_some() {
            self.shared.abandon();
        }
    }
}

impl RateStore for RedbRateStore {
    type Grant = RateGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<RateGrant>), RateStoreError> {
        let _permit = self.enter("decide").await?;
        let request = Request::new(charges, self.shared.secret)?;
        let (decided, durable) = self.decide(&request, Purpose::Charge, now)?;
        wait(durable, "make a charge durable").await?;
        let parts = decided.parts;
        Ok((decided.verdict, (!parts.is_empty()).then_some(RateGrant { parts })))
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        let _permit = self.enter("look").await?;
        let request = Request::new(charges, self.shared.secret)?;
        Ok(self.decide(&request, Purpose::Look, now)?.0.verdict)
    }

    /// In memory at once, or not at all: a grant that is still there can be tried again.
    async fn refund(&self, grant: &mut Option<RateGrant>, now: Nanos) -> Result<(), RateStoreError> {
        let _permit = self.enter("give back").await?;
        self.at_once("give back", now, |state| {
            if let Some(RateGrant { parts }) = grant.take() {
                state.book.refund(&parts, now);
            }
            Ok(())
        })
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        let _permit = self.enter("reset").await?;
        let request = Request::new(charges, self.shared.secret)?;
        let durable = self.at_once("reset", now, |state| {
            let after = state.book.reset(&request)?;
            Ok(after.map(|commit| self.shared.wait_for(state, commit)))
        })?;
        wait(durable, "make a reset durable").await
    }
}

impl Drop for RedbRateStore {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(writer) = self.writer.take() {
            // A panic of it has ended all answers already.
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for RedbRateStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        formatter
            .debug_struct("RedbRateStore")
            .field("rows", &state.book.counters.rows().len())
            .field("failed", &state.failed)
            .finish_non_exhaustive()
    }
}

async fn wait(
    durable: Option<oneshot::Receiver<Durable>>,
    action: &'static str,
) -> Result<(), RateStoreError> {
    let Some(durable) = durable else { return Ok(()) };
    durable.await.unwrap_or(Err(RedbRateError::Closed)).map_err(|error| failed(action, error))
}

fn failed(action: &'static str, error: RedbRateError) -> RateStoreError {
    RateStoreError::Failed { action, source: Box::new(error) }
}

fn random_secret(name: &str) -> Result<Secret, RedbRateError> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| RedbRateError::Io {
        action: "draw a secret for",
        name: name.to_owned(),
        source: Arc::new(std::io::Error::other(error)),
    })?;
    Ok(Secret(secret))
}
