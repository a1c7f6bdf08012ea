//! The store in memory: the contract of [`AuthStore`] made executable, and what tests and short-lived servers use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::key::Key;
use crate::millis::Millis;
use crate::ports::{
    AuthStore, AuthStoreError, CHANGE_BYTES_PER_READ_MAX, CHANGES_KEPT_MAX, COMMIT_ID_HORIZON,
    COMMIT_IDS_KEPT_MAX, COMMITS_PER_CHANGES_MAX, Change, ChangePage, Commit, CommitDigest, CommitId,
    Direction, EXPIRED_PER_SCAN_MAX, ExpiredRecord, FEED_HORIZON, Limit, Page, Position,
    RANGE_BYTES_PER_READ_MAX, RangeRead, ReadSet, Record, Row, Snapshot, Version, Write,
};

/// Records in the memory of this process. They are gone when it is.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the bytes of keys.
    records: BTreeMap<Vec<u8>, Record>,
    /// Those that have an end, by it.
    ends: BTreeSet<(Millis, Key)>,
    /// What was applied and is remembered.
    applied: BTreeMap<CommitId, (CommitDigest, Position)>,
    /// The last id that was forgotten: it and those before it are refused.
    forgotten: Option<CommitId>,
    feed: VecDeque<Change>,
    last: Position,
}

impl MemoryStore {
    /// Nobody panics under this lock.
    fn shared(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuthStore for MemoryStore {
    async fn read(&self, reads: &ReadSet, now: Millis) -> Result<Snapshot, AuthStoreError> {
        reads.check_limits()?;
        let state = self.shared();
        let records = reads.keys.iter().map(|key| state.record(key, now).cloned()).collect();
        let mut bytes_left = RANGE_BYTES_PER_READ_MAX;
        let pages = reads.ranges.iter().map(|range| state.page(range, now, &mut bytes_left)).collect();
        Ok(Snapshot { position: state.last, records, pages })
    }

    async fn commit(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        commit.check_limits()?;
        commit.id.check_time(now)?;
        self.alone().commit(commit, now)
    }

    async fn scan_expired(&self, now: Millis, rows_max: usize) -> Result<Vec<ExpiredRecord>, AuthStoreError> {
        Limit::Rows.hold(rows_max, EXPIRED_PER_SCAN_MAX)?;
        let state = self.shared();
        let expired = state.ends.iter().take_while(|(end, _)| *end <= now).take(rows_max);
        Ok(expired.map(|(end, key)| ExpiredRecord { key: key.clone(), expires_at: *end }).collect())
    }

    async fn changes(&self, after: Position, commits_max: usize) -> Result<ChangePage, AuthStoreError> {
        Limit::Changes.hold(commits_max, COMMITS_PER_CHANGES_MAX)?;
        self.shared().changes(after, commits_max)
    }
}

impl State {
    /// The record of a key, unless it has expired.
    fn record(&self, key: &Key, now: Millis) -> Option<&Record> {
        self.records.get(key.as_bytes()).filter(|record| !record.is_expired(now))
    }

    fn page(&self, read: &RangeRead, now: Millis, bytes_left: &mut usize) -> Page {
        let mut rows: Vec<Row> = Vec::new();
        if read.range.is_empty() {
            return Page { rows, rest: None };
        }
        let end = read.range.end().map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.records.range::<[u8], _>((Bound::Included(read.range.first()), end));
        let found: Box<dyn Iterator<Item = _>> = match read.direction {
            Direction::Ascending => Box::new(found),
            Direction::Descending => Box::new(found.rev()),
        };
        for (bytes, record) in found.filter(|(_, record)| !record.is_expired(now)) {
            let Some(key) = Key::decode(bytes) else { continue };
            let row = Row { key, record: record.clone() };
            if rows.len() >= read.rows_max || (!rows.is_empty() && row.size_bytes() > *bytes_left) {
                let rest = read.rest_behind(rows.last().map(|row| &row.key));
                return Page { rows, rest: Some(rest) };
            }
            *bytes_left = bytes_left.saturating_sub(row.size_bytes());
            rows.push(row);
        }
        Page { rows, rest: None }
    }

    fn commit(&mut self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        let digest = commit.digest();
        if let Some((known, position)) = self.applied.get(&commit.id) {
            let same = *known == digest;
            return if same { Ok(*position) } else { Err(AuthStoreError::CommitIdReused { id: commit.id }) };
        }
        if self.forgotten.is_some_and(|forgotten| commit.id <= forgotten) {
            return Err(AuthStoreError::CommitIdExpired { id: commit.id });
        }
        for check in &commit.checks {
            let found = self.record(&check.key, now).map(|record| record.version);
            if !check.expect.holds(found) {
                return Err(AuthStoreError::Conflict { key: check.key.clone(), found });
            }
        }
        let position = Position(self.last.0.saturating_add(1));
        self.last = position;
        commit.writes.iter().for_each(|write| self.apply(write, position));
        self.applied.insert(commit.id, (digest, position));
        self.feed.push_back(Change::of(commit, position, now));
        self.forget(now);
        Ok(position)
    }

    fn apply(&mut self, write: &Write, position: Position) {
        let key = write.key();
        let old = match write {
            Write::Delete { .. } => self.records.remove(key.as_bytes()),
            Write::Put { value, expires_at, .. } => {
                let version = Version(position.0);
                let record = Record { value: value.clone(), version, expires_at: *expires_at };
                self.records.insert(key.as_bytes().to_vec(), record)
            }
        };
        if let Some(end) = old.and_then(|old| old.expires_at) {
            self.ends.remove(&(end, key.clone()));
        }
        if let Write::Put { expires_at: Some(end), .. } = write {
            self.ends.insert((*end, key.clone()));
        }
    }

    /// Ids and changes go when they are beyond their horizon by the time of a commit, or too many. No latest time is kept: one
    /// clock that is far ahead would end all remembering.
    fn forget(&mut self, now: Millis) {
        let (ids_from, feed_from) = (now.before(COMMIT_ID_HORIZON), now.before(FEED_HORIZON));
        while let Some((id, _)) = self.applied.first_key_value() {
            if id.made_at() > ids_from && self.applied.len() as u64 <= COMMIT_IDS_KEPT_MAX {
                break;
            }
            self.forgotten = self.forgotten.max(Some(*id));
            self.applied.pop_first();
        }
        while let Some(change) = self.feed.front() {
            if change.committed_at > feed_from && self.feed.len() as u64 <= CHANGES_KEPT_MAX {
                break;
            }
            self.feed.pop_front();
        }
    }

    fn changes(&self, after: Position, commits_max: usize) -> Result<ChangePage, AuthStoreError> {
        // Positions have no gaps.
        let oldest = Position(self.last.0.saturating_sub(self.feed.len() as u64));
        if after < oldest || after > self.last {
            return Err(AuthStoreError::PositionLost { oldest, newest: self.last });
        }
        let skipped = usize::try_from(after.0.saturating_sub(oldest.0)).unwrap_or(usize::MAX);
        let mut changes: Vec<Change> = Vec::new();
        let mut bytes: usize = 0;
        for change in self.feed.iter().skip(skipped).take(commits_max) {
            bytes = bytes.saturating_add(change.size_bytes());
            if bytes > CHANGE_BYTES_PER_READ_MAX && !changes.is_empty() {
                break;
            }
            changes.push(change.clone());
        }
        let next = changes.last().map_or(after, |change| change.position);
        Ok(ChangePage { changes, next })
    }
}
