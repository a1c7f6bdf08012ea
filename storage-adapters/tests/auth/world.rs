//! Stores, keys and commits for the tests.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use auth_core::ports::{AuthStore, AuthStoreError, Commit, CommitId, Position, ReadSet, Record};
use auth_core::{Key, Millis, Table, Tenant};
use storage_adapters::redb::auth::{AuthOptions, RedbAuthError, RedbAuthStore};

/// When tests begin: not at the epoch, where everything is easy.
pub const START: Millis = Millis(1_763_800_000_000);

pub fn options() -> AuthOptions {
    AuthOptions { cache_bytes: 1 << 20 }
}

pub fn key(number: u64) -> Key {
    Key::new(Table::FIRST_OF_TESTS, Tenant(1)).number(number)
}

/// A commit of its own id.
pub fn commit(number: u64) -> Commit {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    Commit::new(CommitId::new(START, [0, 0, a, b, c, d, e, f, g, h]))
}

/// A file in a temporary directory.
pub struct Home {
    pub directory: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("auth.db")
    }

    pub fn open(&self) -> RedbAuthStore {
        self.try_open().expect("the store opens")
    }

    pub fn try_open(&self) -> Result<RedbAuthStore, RedbAuthError> {
        RedbAuthStore::open(&self.path(), options())
    }
}

pub fn try_commit(store: &RedbAuthStore, commit: &Commit) -> Result<Position, AuthStoreError> {
    run(store.commit(commit, START))
}

pub fn record(store: &RedbAuthStore, key: &Key) -> Option<Record> {
    let snapshot = run(store.read(&ReadSet::of([key.clone()]), START)).expect("the store reads");
    snapshot.records.into_iter().next().flatten()
}

pub fn value(store: &RedbAuthStore, key: &Key) -> Option<Vec<u8>> {
    record(store, key).map(|record| record.value.to_vec())
}

/// Runs a future on this thread, which sleeps while it waits.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}
