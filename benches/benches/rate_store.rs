//! What an admission costs that a restart must not forget.
//!
//! `cargo bench -p strongroom-benches --bench rate_store`. The directory is that for temporary files: set `TMPDIR` to a disk that
//! is to be measured.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore};
use ratelimit_core::{Enforcement, KeyParts, Limit, Nanos, Rate};
use storage_adapters::redb::rates::{RateOptions, RedbRateStore};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

fn store(directory: &tempfile::TempDir, limit: Limit) -> RedbRateStore {
    let policy = Policy { name: "limit".to_owned(), limit, enforcement: Enforcement::Enforced };
    let options = RateOptions::counting_from(Duration::from_secs(1_700_000_000));
    let path = directory.path().join("rates.db");
    RedbRateStore::open(&path, vec![policy], options, Nanos(0)).expect("the store opens")
}

async fn admit(store: &RedbRateStore, key: &KeyParts, now: Nanos) -> bool {
    let charges = [Charge { policy: PolicyId(0), key, cost: 1 }];
    store.check(&charges, now).await.expect("the store decides").0.is_allowed()
}

/// Every admission needs the disk: a burst of one, and no key twice while it is live.
fn durable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate_store");
    for callers in [1_u64, 64] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let limit = Limit::gcra(Rate::per_second(1), 1).expect("a limit");
        let store = store(&directory, limit);
        let (runtime, mut now, mut next) = (runtime(), Nanos(1), 0_u64);
        group.throughput(Throughput::Elements(callers));
        group.bench_function(format!("durable/{callers}_callers"), |bencher| {
            bencher.iter(|| {
                // After a second a key is full again: ten thousand keys, and never one that is not.
                now = now.after(Duration::from_millis(callers));
                let keys: Vec<KeyParts> = (0..callers)
                    .map(|caller| KeyParts::new([((next + caller) % 10_000).to_be_bytes()]))
                    .collect();
                next += callers;
                let admitted = runtime.block_on(join_all(keys.iter().map(|key| admit(&store, key, now))));
                assert!(admitted.into_iter().all(black_box));
            });
        });
    }
    group.finish();
}

/// Most admissions are covered by what was written ahead.
fn leased(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate_store");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = store(&directory, Limit::gcra(Rate::per_second(1_000_000), 1_000_000_000).expect("a limit"));
    let (runtime, key, mut now) = (runtime(), KeyParts::new(["client"]), Nanos(1));
    group.throughput(Throughput::Elements(1));
    group.bench_function("leased/1_caller", |bencher| {
        bencher.iter(|| {
            now = now.after(Duration::from_micros(2));
            black_box(runtime.block_on(admit(&store, &key, now)))
        });
    });
    group.finish();
}

/// What a start and a changed limit cost with 100,000 live keys.
fn many(criterion: &mut Criterion) {
    const KEYS: u64 = 100_000;
    let mut group = criterion.benchmark_group("rate_store");
    group.sample_size(10);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limit = |burst| Limit::gcra(Rate::per_hour(1), burst).expect("a limit");
    let (runtime, opened) = (runtime(), store(&directory, limit(10)));
    let keys: Vec<KeyParts> = (0..KEYS).map(|key| KeyParts::new([key.to_be_bytes()])).collect();
    for some in keys.chunks(4_000) {
        runtime.block_on(join_all(some.iter().map(|key| admit(&opened, key, Nanos(1)))));
    }
    assert_eq!(opened.live_keys(Nanos(1)), KEYS);
    let mut burst = 10;
    group.bench_function("change_a_limit/100000_keys", |bencher| {
        bencher.iter(|| {
            burst += 1;
            let policy =
                Policy { name: "limit".to_owned(), limit: limit(burst), enforcement: Enforcement::Enforced };
            runtime.block_on(opened.reopen(vec![policy], Nanos(1))).expect("it is durable")
        });
    });
    drop(opened);
    group.bench_function("open/100000_keys", |bencher| {
        bencher.iter(|| {
            // Closed within the measurement: one process has the file at a time.
            store(&directory, limit(burst)).live_keys(Nanos(1))
        });
    });
    group.finish();
}

criterion_group!(benches, durable, leased, many);
criterion_main!(benches);
