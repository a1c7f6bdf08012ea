//! Stores of counters that are asked directly, closed, opened again, and told the wrong time.

use std::sync::RwLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ratelimit_core::memory::MemoryStore;
use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore};
use ratelimit_core::{Enforcement, HashSecret, KeyParts, Nanos, TableSize};
use storage_adapters::redb::rates::{RateOptions, RedbRateStore};

use super::bucket;
use super::crowd::Crowd;

/// Where the run begins on the store's clock: an hour back is no time before its epoch.
const START_NS: i64 = 10 * HOUR_NS;
const HOUR_NS: i64 = 3_600_000_000_000;

/// A kind of store that can be opened again.
pub(super) trait Kind {
    type Store: RateStore;

    const NAME: &'static str;
    /// Whether what was taken is still taken after the process has ended.
    const DURABLE: bool;

    fn open(&self, policies: Vec<Policy>, now: Nanos) -> Self::Store;
}

/// Counters in memory.
pub(super) struct Memory;

impl Kind for Memory {
    type Store = MemoryStore;

    const NAME: &'static str = "memory";
    const DURABLE: bool = false;

    fn open(&self, policies: Vec<Policy>, _now: Nanos) -> MemoryStore {
        MemoryStore::new(policies, TableSize::for_keys(1_000), HashSecret([9; 16])).expect("memory")
    }
}

/// Counters in a file, made durable before they are answered.
pub(super) struct Durable {
    directory: tempfile::TempDir,
}

impl Durable {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }
}

impl Kind for Durable {
    type Store = RedbRateStore;

    const NAME: &'static str = "redb";
    const DURABLE: bool = true;

    fn open(&self, policies: Vec<Policy>, now: Nanos) -> RedbRateStore {
        let path = self.directory.path().join("rates.db");
        let options = RateOptions::counting_from(Duration::from_secs(1_800_000_000));
        RedbRateStore::open(&path, policies, options, now).expect("it opens")
    }
}

/// What happens in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The store is closed and opened again.
    Restart,
    /// The clock goes an hour back.
    ClockBack,
    /// The clock goes an hour ahead.
    ClockAhead,
}

impl Fault {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Restart, Self::ClockBack, Self::ClockAhead];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::ClockBack => "clock an hour back",
            Self::ClockAhead => "clock an hour ahead",
        }
    }

    /// Bursts that this fault may add: a store that forgets begins anew, and an hour refills a bucket.
    pub(super) fn bursts(self, durable: bool) -> u64 {
        match self {
            Self::None | Self::ClockBack => 0,
            Self::Restart => u64::from(!durable),
            Self::ClockAhead => 1,
        }
    }
}

/// One row: a new store, asked until the time is over.
pub(super) fn run<K: Kind>(kind: &K, threads: usize, fault: Fault, length: Duration) -> Crowd {
    let policies =
        vec![Policy { name: "bucket".to_owned(), limit: bucket(), enforcement: Enforcement::Enforced }];
    let offset_ns = AtomicI64::new(START_NS);
    let now = |at_ns: u64| Nanos(at_ns.saturating_add_signed(offset_ns.load(Ordering::SeqCst)));
    // Taken out only while it is closed and opened again.
    let store = RwLock::new(Some(kind.open(policies.clone(), now(0))));
    let key = KeyParts::new(["the one"]);
    let charge = [Charge { policy: PolicyId(0), key: &key, cost: 1 }];
    let ask = |at_ns: u64| {
        let store = store.read().expect("no thread panics");
        let asked = store.as_ref().map(|store| futures::executor::block_on(store.check(&charge, now(at_ns))));
        asked.and_then(Result::ok).map(|(verdict, _)| verdict.is_allowed())
    };
    let mut happens = |at_ns: &dyn Fn() -> u64| match fault {
        Fault::None => {}
        Fault::Restart => {
            let mut store = store.write().expect("no thread panics");
            drop(store.take());
            // Nobody asks any more: an earlier time would be a clock that went back, and then ahead.
            *store = Some(kind.open(policies.clone(), now(at_ns())));
        }
        Fault::ClockBack => {
            offset_ns.fetch_sub(HOUR_NS, Ordering::SeqCst);
        }
        Fault::ClockAhead => {
            offset_ns.fetch_add(HOUR_NS, Ordering::SeqCst);
        }
    };
    Crowd::ask(threads, length, ask, &mut [&mut happens])
}
