//! Stores that break the contract on purpose, each in one way that a real one was found to, fail the guarantee that they break.

use std::collections::BTreeMap;
use std::sync::Mutex;

use auth_core::conformance::{self, Harness};
use auth_core::memory::MemoryStore;
use auth_core::ports::{
    AuthStore, AuthStoreError, COMMIT_ID_HORIZON, ChangePage, Commit, CommitId, Expect, ExpiredRecord,
    Position, ReadSet, Snapshot, Version, Write,
};
use auth_core::{Key, Millis};

/// How a store is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Not at all.
    None,
    /// Looks whether the conditions hold, then writes.
    CheckThenSet,
    /// Reads each key in a transaction of its own.
    ReadsApart,
    /// Answers reads from what it read before.
    ReadsLate,
    /// Judges conditions of written keys only.
    SkewsWrites,
    /// Judges no condition.
    NeverRejects,
    /// Applies writes one by one.
    Splits,
    /// Writes what it can of a commit that is refused.
    WritesBeforeItChecks,
    /// Begins versions anew with each record.
    VersionsRestart,
    /// Forgets what was applied at once.
    ForgetsIds,
    /// Takes another commit of the same id and keys for the one that was applied.
    ComparesKeysOnly,
    /// Remembers refused commits.
    RemembersRefusals,
    /// Applies anew what it has forgotten.
    AppliesOldIds,
    /// Accepts ids from the future.
    TrustsIds,
    /// Shows what has expired until it is removed.
    ShowsExpired,
    /// Holds what has expired for present when it judges conditions.
    ExpiredIsPresent,
    /// Deletes through the filter that hides what has expired.
    DeletesThroughTheFilter,
    /// Deletes what a sweep names, whatever is there.
    SweepsBlindly,
    /// Says of a full page that it is the last.
    EndsEarly,
    /// Repeats the last row of a page in the next one.
    Repeats,
    /// Skips what its page of the feed has no room for.
    SkipsChanges,
    /// Goes on where the feed begins, whatever is lost.
    HidesLoss,
    /// Joins the parts of keys with a colon.
    JoinsKeys,
    /// Cuts what is too long.
    Truncates,
}

#[derive(Debug)]
struct Broken {
    inner: MemoryStore,
    bug: Bug,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Fresh random bytes.
    drawn: u128,
    read_before: BTreeMap<String, Snapshot>,
    applied: BTreeMap<CommitId, (Vec<Key>, Position)>,
    refused: BTreeMap<CommitId, Key>,
    /// How often each record was written since it was made.
    written: BTreeMap<Key, (u64, Version)>,
}

struct BrokenHarness(Bug);

impl Harness for BrokenHarness {
    type Store = Broken;

    fn open(&self) -> Broken {
        Broken { inner: MemoryStore::default(), bug: self.0, state: Mutex::default() }
    }
}

fn joined(key: &Key) -> Key {
    // Numbers stay parts of their own: the other guarantees are about them.
    let (numbers, parts): (Vec<&[u8]>, Vec<&[u8]>) = key.parts().partition(|part| part.len() == 8);
    let key = numbers.into_iter().fold(Key::new(key.table(), key.tenant()), Key::bytes);
    if parts.is_empty() { key } else { key.bytes(parts.join(&b':')) }
}

fn rekeyed(write: &Write, key: Key) -> Write {
    match write {
        Write::Put { value, expires_at, .. } => {
            Write::Put { key, value: value.clone(), expires_at: *expires_at }
        }
        Write::Delete { .. } => Write::Delete { key },
    }
}

impl Broken {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn fresh_id(&self, now: Millis) -> CommitId {
        let mut state = self.state();
        state.drawn += 1;
        let mut random = [0; 10];
        random.copy_from_slice(&(u128::MAX - state.drawn).to_be_bytes()[6..]);
        CommitId::new(now, random)
    }

    async fn holds(&self, commit: &Commit, now: Millis) -> Result<(), AuthStoreError> {
        for check in &commit.checks {
            let records = self.inner.read(&ReadSet::of([check.key.clone()]), now).await?.records;
            let found = records.into_iter().flatten().next().map(|record| record.version);
            if !check.expect.holds(found) {
                return Err(AuthStoreError::Conflict { key: check.key.clone(), found });
            }
        }
        Ok(())
    }

    async fn one_by_one(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        let mut rest = commit.writes.clone();
        let first = rest.drain(..rest.len().min(1)).collect();
        let position = self.inner.commit(&Commit { writes: first, ..commit.clone() }, now).await?;
        for write in rest {
            std::thread::yield_now();
            let alone = Commit { id: self.fresh_id(now), checks: Vec::new(), writes: vec![write] };
            self.inner.commit(&alone, now).await?;
        }
        Ok(position)
    }

    async fn by_keys(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        let keys: Vec<Key> = commit.writes.iter().map(|write| write.key().clone()).collect();
        if let Some((known, position)) = self.state().applied.get(&commit.id)
            && *known == keys
        {
            return Ok(*position);
        }
        let position = self.inner.commit(commit, now).await?;
        self.state().applied.insert(commit.id, (keys, position));
        Ok(position)
    }

    async fn with_refusals(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        if let Some(key) = self.state().refused.get(&commit.id) {
            return Err(AuthStoreError::Conflict { key: key.clone(), found: None });
        }
        let result = self.inner.commit(commit, now).await;
        if let Err(AuthStoreError::Conflict { key, .. }) = &result {
            self.state().refused.insert(commit.id, key.clone());
        }
        result
    }

    /// Versions as this store tells them become those of the store below, and the other way round when it reads.
    async fn with_restarting_versions(
        &self,
        commit: &Commit,
        now: Millis,
    ) -> Result<Position, AuthStoreError> {
        let mut real = commit.clone();
        for check in &mut real.checks {
            if let Expect::Version(told) = check.expect {
                let (count, version) =
                    self.state().written.get(&check.key).copied().unwrap_or((0, Version(0)));
                check.expect = Expect::Version(if count == told.0 { version } else { Version(u64::MAX) });
            }
        }
        let position = self.inner.commit(&real, now).await?;
        for write in &commit.writes {
            let mut state = self.state();
            match write {
                Write::Put { key, .. } => {
                    let count = state.written.get(key).map_or(1, |(count, _)| count + 1);
                    state.written.insert(key.clone(), (count, Version(position.0)));
                }
                Write::Delete { key } => drop(state.written.remove(key)),
            }
        }
        Ok(position)
    }

    async fn through_the_filter(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        let mut writes = Vec::new();
        for write in &commit.writes {
            let seen = self.inner.read(&ReadSet::of([write.key().clone()]), now).await?;
            if matches!(write, Write::Put { .. }) || seen.records.into_iter().flatten().next().is_some() {
                writes.push(write.clone());
            }
        }
        self.inner.commit(&Commit { writes, ..commit.clone() }, now).await
    }

    fn changed(&self, commit: &Commit) -> Commit {
        let mut changed = commit.clone();
        match self.bug {
            Bug::NeverRejects => changed.checks.clear(),
            Bug::SkewsWrites => {
                changed.checks.retain(|check| commit.writes.iter().any(|write| *write.key() == check.key));
            }
            Bug::SweepsBlindly => {
                let swept = |key: &Key| commit.writes.contains(&Write::Delete { key: key.clone() });
                changed.checks.retain(|check| check.expect != Expect::Absent || !swept(&check.key));
            }
            Bug::JoinsKeys => {
                changed.checks.iter_mut().for_each(|check| check.key = joined(&check.key));
                changed.writes.iter_mut().for_each(|write| *write = rekeyed(write, joined(write.key())));
            }
            Bug::Truncates => changed.writes.truncate(auth_core::ports::WRITES_PER_COMMIT_MAX),
            _ => {}
        }
        changed
    }
}

impl AuthStore for Broken {
    async fn read(&self, reads: &ReadSet, now: Millis) -> Result<Snapshot, AuthStoreError> {
        let mut reads = reads.clone();
        if self.bug == Bug::JoinsKeys {
            reads.keys = reads.keys.iter().map(joined).collect();
        }
        let now = if self.bug == Bug::ShowsExpired { Millis(0) } else { now };
        let mut snapshot = match self.bug {
            Bug::ReadsApart => {
                let mut records = Vec::new();
                for key in &reads.keys {
                    records.append(&mut self.inner.read(&ReadSet::of([key.clone()]), now).await?.records);
                    std::thread::yield_now();
                }
                let ranges = ReadSet { keys: Vec::new(), ranges: reads.ranges.clone() };
                Snapshot { records, ..self.inner.read(&ranges, now).await? }
            }
            Bug::ReadsLate => {
                let known = self.state().read_before.get(&format!("{reads:?}")).cloned();
                match known {
                    Some(known) => known,
                    None => {
                        let read = self.inner.read(&reads, now).await?;
                        self.state().read_before.insert(format!("{reads:?}"), read.clone());
                        read
                    }
                }
            }
            _ => self.inner.read(&reads, now).await?,
        };
        if self.bug == Bug::VersionsRestart {
            for (key, record) in reads.keys.iter().zip(&mut snapshot.records) {
                if let (Some(record), Some((count, _))) = (record, self.state().written.get(key)) {
                    record.version = Version(*count);
                }
            }
        }
        for page in &mut snapshot.pages {
            match (self.bug, page.rest.as_mut(), page.rows.last()) {
                (Bug::EndsEarly, ..) => page.rest = None,
                (Bug::Repeats, Some(rest), Some(last)) => {
                    let whole = Key::new(last.key.table(), last.key.tenant());
                    rest.range = auth_core::KeyRange::under(&whole).from(&last.key);
                }
                _ => {}
            }
        }
        Ok(snapshot)
    }

    async fn commit(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        let commit = &self.changed(commit);
        match self.bug {
            Bug::CheckThenSet => {
                self.holds(commit, now).await?;
                std::thread::yield_now();
                self.inner.commit(&Commit { checks: Vec::new(), ..commit.clone() }, now).await
            }
            Bug::Splits => self.one_by_one(commit, now).await,
            Bug::WritesBeforeItChecks => {
                let result = self.inner.commit(commit, now).await;
                if matches!(result, Err(AuthStoreError::Conflict { .. })) {
                    let id = self.fresh_id(now);
                    let writes = commit.writes.iter().take(1).cloned().collect();
                    self.inner.commit(&Commit { id, checks: Vec::new(), writes }, now).await?;
                }
                result
            }
            Bug::VersionsRestart => self.with_restarting_versions(commit, now).await,
            Bug::ForgetsIds => {
                commit.id.check_time(now)?;
                self.inner.commit(&Commit { id: self.fresh_id(now), ..commit.clone() }, now).await
            }
            Bug::ComparesKeysOnly => self.by_keys(commit, now).await,
            Bug::RemembersRefusals => self.with_refusals(commit, now).await,
            Bug::AppliesOldIds => match self.inner.commit(commit, now).await {
                Err(AuthStoreError::CommitIdExpired { id })
                    if id.made_at().after(COMMIT_ID_HORIZON) > now
                        && !self.state().applied.contains_key(&id) =>
                {
                    self.inner.commit(&Commit { id: self.fresh_id(now), ..commit.clone() }, now).await
                }
                result => result,
            },
            Bug::TrustsIds => match self.inner.commit(commit, now).await {
                Err(AuthStoreError::CommitIdAhead { id, .. }) => {
                    self.inner.commit(commit, id.made_at()).await
                }
                result => result,
            },
            Bug::ExpiredIsPresent => {
                let early = commit.id.made_at().max(Millis(1)).min(now);
                self.holds(commit, early).await?;
                self.inner.commit(&Commit { checks: Vec::new(), ..commit.clone() }, now).await
            }
            Bug::DeletesThroughTheFilter => self.through_the_filter(commit, now).await,
            _ => self.inner.commit(commit, now).await,
        }
    }

    async fn scan_expired(&self, now: Millis, rows_max: usize) -> Result<Vec<ExpiredRecord>, AuthStoreError> {
        self.inner.scan_expired(now, rows_max).await
    }

    async fn changes(&self, after: Position, commits_max: usize) -> Result<ChangePage, AuthStoreError> {
        match self.bug {
            Bug::SkipsChanges => {
                let mut page = self.inner.changes(after, commits_max).await?;
                if page.changes.len() == commits_max {
                    page.next = Position(page.next.0 + 1);
                }
                Ok(page)
            }
            Bug::HidesLoss => match self.inner.changes(after, commits_max).await {
                Err(AuthStoreError::PositionLost { oldest, newest }) if after <= newest => {
                    self.inner.changes(oldest, commits_max).await
                }
                result => result,
            },
            _ => self.inner.changes(after, commits_max).await,
        }
    }
}

/// The guarantee fails, as a race does in some of so many runs.
fn is_found(bug: Bug, guarantee: fn(&BrokenHarness)) {
    let found = std::panic::catch_unwind(|| {
        for _ in 0..20 {
            guarantee(&BrokenHarness(bug));
        }
    });
    assert!(found.is_err(), "{bug:?} keeps the contract");
}

macro_rules! broken {
    ($($test:ident: $bug:ident fails $guarantee:ident;)+) => {
        $(#[test]
        fn $test() {
            is_found(Bug::$bug, conformance::$guarantee);
        })+
    };
}

broken! {
    a_store_that_checks_then_sets_is_found: CheckThenSet fails a2_serial;
    a_store_that_never_rejects_is_found: NeverRejects fails a2_serial;
    a_store_that_ignores_conditions_of_what_is_only_read_is_found: SkewsWrites fails a2_serial;
    a_store_that_reads_outside_the_transaction_is_found: ReadsApart fails a3_snapshot;
    a_store_that_reads_what_was_is_found: ReadsLate fails a3_snapshot;
    a_store_that_splits_a_commit_is_found: Splits fails a1_atomic;
    a_store_that_writes_before_it_checks_is_found: WritesBeforeItChecks fails a1_atomic;
    a_store_whose_versions_come_again_is_found: VersionsRestart fails a4_versions;
    a_store_that_forgets_ids_is_found: ForgetsIds fails a5_idempotent;
    a_store_that_forgets_ids_has_two_answers_for_one_commit: ForgetsIds fails a12_errors;
    a_store_that_compares_keys_alone_is_found: ComparesKeysOnly fails a5_idempotent;
    a_store_that_remembers_refusals_is_found: RemembersRefusals fails a5_idempotent;
    a_store_that_applies_forgotten_ids_is_found: AppliesOldIds fails a6_horizon;
    a_store_that_trusts_ids_from_the_future_is_found: TrustsIds fails a6_horizon;
    a_store_that_shows_what_has_expired_is_found: ShowsExpired fails a7_expiry;
    a_store_that_holds_what_has_expired_for_present_is_found: ExpiredIsPresent fails a7_expiry;
    a_store_that_deletes_through_its_filter_is_found: DeletesThroughTheFilter fails a7_expiry;
    a_store_whose_sweep_takes_successors_is_found: SweepsBlindly fails a7_expiry;
    a_store_that_ends_a_range_early_is_found: EndsEarly fails a8_ranges;
    a_store_that_repeats_rows_is_found: Repeats fails a8_ranges;
    a_store_whose_feed_skips_is_found: SkipsChanges fails a9_feed;
    a_store_whose_feed_hides_a_loss_is_found: HidesLoss fails a9_feed;
    a_store_that_joins_keys_is_found: JoinsKeys fails a10_injective;
    a_store_that_cuts_what_is_too_long_is_found: Truncates fails a11_refusals;
}

/// What is found above is the bug, not the wrapper.
mod without_a_bug_all_is_kept {
    use super::{BrokenHarness, Bug};

    auth_core::auth_store_conformance!(BrokenHarness(Bug::None));
}
