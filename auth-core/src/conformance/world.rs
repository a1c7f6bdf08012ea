//! Keys, commits and threads of the suite.

use std::time::Duration;

use super::Harness;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;
use crate::ports::{
    AuthStore, AuthStoreError, Commit, CommitId, Expect, Position, ReadSet, Record, Snapshot, Version,
};

/// When tests begin: not at the epoch, where everything is easy.
pub(super) const START: Millis = Millis(1_763_800_000_000);

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// How many threads race.
pub(super) const THREADS: u64 = 64;

pub(super) fn key(number: u64) -> Key {
    Key::new(Table::FIRST_OF_TESTS, Tenant(1)).number(number)
}

/// All keys that [`key`] makes.
pub(super) fn all() -> crate::KeyRange {
    crate::KeyRange::under(&Key::new(Table::FIRST_OF_TESTS, Tenant(1)))
}

/// An id that was made at this time; each number is another one.
pub(super) fn id_at(now: Millis, number: u64) -> CommitId {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    CommitId::new(now, [a, b, c, d, e, f, g, h, 0, 0])
}

pub(super) fn id(number: u64) -> CommitId {
    id_at(START, number)
}

pub(super) fn commit(number: u64) -> Commit {
    Commit::new(id(number))
}

/// A harness and a store of it.
pub(super) struct World<'h, H: Harness> {
    pub harness: &'h H,
    pub store: H::Store,
}

impl<'h, H: Harness> World<'h, H> {
    pub(super) fn open(harness: &'h H) -> Self {
        Self { harness, store: harness.open() }
    }

    pub(super) fn try_commit(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        self.harness.run(self.store.commit(commit, now))
    }

    /// Commits at the time at which tests begin.
    pub(super) fn commit(&self, commit: &Commit) -> Position {
        self.try_commit(commit, START).expect("the commit is applied")
    }

    pub(super) fn is_applied(&self, commit: &Commit, now: Millis) -> bool {
        match self.try_commit(commit, now) {
            Ok(_) => true,
            Err(AuthStoreError::Conflict { .. }) => false,
            Err(error) => panic!("neither applied nor in conflict: {error}"),
        }
    }

    pub(super) fn read_set(&self, reads: &ReadSet, now: Millis) -> Snapshot {
        self.harness.run(self.store.read(reads, now)).expect("the store reads")
    }

    pub(super) fn record_at(&self, key: &Key, now: Millis) -> Option<Record> {
        let snapshot = self.read_set(&ReadSet::of([key.clone()]), now);
        assert_eq!((snapshot.records.len(), snapshot.pages.len()), (1, 0), "one answer for each key");
        snapshot.records.into_iter().next().flatten()
    }

    pub(super) fn record(&self, key: &Key) -> Option<Record> {
        self.record_at(key, START)
    }

    pub(super) fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.record(key).map(|record| record.value.to_vec())
    }

    pub(super) fn version(&self, key: &Key) -> Version {
        self.record(key).expect("the record is there").version
    }

    /// Adds one to a number, by reading it and writing it under the condition that it is as it was. How often it took.
    pub(super) fn increment(&self, key: &Key, next_id: &mut u64) -> u64 {
        for attempt in 1.. {
            let record = self.record(key).expect("the record is there");
            let more = number_in(&record.value) + 1;
            *next_id += 1;
            let expected = Expect::Version(record.version);
            if self
                .is_applied(&commit(*next_id).expect(key, expected).put(key, more.to_be_bytes(), None), START)
            {
                return attempt;
            }
        }
        unreachable!("somebody always wins")
    }
}

pub(super) fn number_in(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("8 bytes"))
}

/// Runs the same with the numbers of threads, all at once, and collects what they say.
#[expect(clippy::disallowed_methods, reason = "the guarantees are about threads")]
pub(super) fn race<T: Send>(threads: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(usize::try_from(threads).expect("few threads"));
    std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        spawned.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}
