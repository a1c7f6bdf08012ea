//! Stores, policies and requests for the tests.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::{Enforcement, KeyParts, Limit, Nanos, Rate};
use storage_adapters::redb::rates::{RateOptions, RedbRateError, RedbRateStore};

/// When tests begin: not at the epoch, where everything is easy.
pub const START: Nanos = Nanos(1_000_000_000_000);

pub const HOUR: Duration = Duration::from_secs(3_600);

/// What the wall clock showed at `Nanos(0)`.
pub const EPOCH: Duration = Duration::from_secs(1_700_000_000);

pub fn options() -> RateOptions {
    RateOptions { keys_max: 1_000, cache_bytes: 1 << 20, ..RateOptions::counting_from(EPOCH) }
}

pub fn policy(name: &str, limit: Limit) -> Policy {
    Policy { name: name.to_owned(), limit, enforcement: Enforcement::Enforced }
}

/// A bucket in which nothing refills while a test runs.
pub fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::new(1, HOUR), burst).expect("the limit can be kept")
}

pub fn window(limit: u64) -> Limit {
    Limit::fixed_window(limit, HOUR).expect("the limit can be kept")
}

pub fn key(name: &str) -> KeyParts {
    KeyParts::new([name])
}

pub fn charge(policy: u32, key: &KeyParts, cost: u64) -> Charge<'_> {
    Charge { policy: PolicyId(policy), key, cost }
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
        self.directory.path().join("rates.db")
    }

    pub fn open(&self, policies: Vec<Policy>, now: Nanos) -> RedbRateStore {
        self.try_open(policies, options(), now).expect("the store opens")
    }

    pub fn try_open(
        &self,
        policies: Vec<Policy>,
        options: RateOptions,
        now: Nanos,
    ) -> Result<RedbRateStore, RedbRateError> {
        RedbRateStore::open(&self.path(), policies, options, now)
    }
}

/// Whether a request of `cost` is admitted.
pub fn admits(store: &RedbRateStore, policy: u32, key: &KeyParts, cost: u64, now: Nanos) -> bool {
    try_admit(store, policy, key, cost, now).expect("the store decides")
}

pub fn try_admit(
    store: &RedbRateStore,
    policy: u32,
    key: &KeyParts,
    cost: u64,
    now: Nanos,
) -> Result<bool, RateStoreError> {
    run(store.check(&[charge(policy, key, cost)], now)).map(|(verdict, _)| verdict.is_allowed())
}

/// How many cells are left.
pub fn left(store: &RedbRateStore, policy: u32, key: &KeyParts, now: Nanos) -> u64 {
    let verdict = run(store.peek(&[charge(policy, key, 0)], now)).expect("the store looks");
    verdict.decisions().first().expect("one decision").remaining()
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
