//! What a restart keeps, what it wastes, and what it costs to be ready for one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ratelimit_core::ports::RateStore;
use ratelimit_core::{Limit, Nanos, Rate};
use storage_adapters::redb::rates::LEASE_DIVISOR;

use super::world::{Home, START, admits, bucket, charge, key, left, policy, run, window};

/// What is written ahead of a limit of this size.
fn lease(size: u64) -> u64 {
    (size / LEASE_DIVISOR).max(1)
}

#[test]
fn a_restart_admits_no_cell_twice_and_wastes_at_most_the_lease() {
    for size in [1_u64, 2, 3, 10, 20, 99, 100, 1_000] {
        for used in [1, size / 3, size / 2, size.saturating_sub(1), size] {
            let used = used.max(1);
            for limit in [bucket(size), window(size)] {
                let home = Home::new();
                let policies = || vec![policy("limit", limit.clone())];
                let store = home.open(policies(), START);
                assert!(admits(&store, 0, &key("client"), used, START));
                assert_eq!(
                    left(&store, 0, &key("client"), START),
                    size - used,
                    "nothing is denied for a lease"
                );
                drop(store);
                let store = home.open(policies(), START);
                let left = left(&store, 0, &key("client"), START);
                assert!(left <= size - used, "{left} are left of {size}, {used} were used");
                assert!(left + lease(size) >= size - used, "{left} are left of {size}, {used} were used");
            }
        }
    }
}

#[test]
fn restarts_without_end_admit_no_more_than_the_limit() {
    let home = Home::new();
    let policies = || vec![policy("bucket", bucket(50)), policy("window", window(50))];
    let mut admitted = [0_u64; 2];
    for _ in 0..60 {
        let store = home.open(policies(), START);
        for (policy, admitted) in admitted.iter_mut().enumerate() {
            *admitted += u64::from(admits(&store, policy as u32, &key("client"), 1, START));
        }
    }
    // Each start takes a cell, and wastes the rest of a lease of five.
    for admitted in admitted {
        assert!((8..=50).contains(&admitted), "{admitted} of 50");
    }
}

#[test]
fn a_store_that_was_closed_wastes_nothing() {
    let home = Home::new();
    let policies = || vec![policy("bucket", bucket(100)), policy("window", window(100))];
    let store = home.open(policies(), START);
    for policy in 0..2 {
        assert!(admits(&store, policy, &key("client"), 33, START));
    }
    run(store.close(START)).expect("it closes");
    let refused = run(store.check(&[charge(0, &key("client"), 1)], START));
    assert!(refused.is_err(), "who asks later is refused");
    assert!(run(store.close(START)).is_err(), "it is closed");
    let store = home.open(policies(), START);
    for policy in 0..2 {
        assert_eq!(left(&store, policy, &key("client"), START), 67);
    }
}

#[test]
fn most_charges_need_no_disk() {
    let home = Home::new();
    let store = home.open(vec![policy("bucket", bucket(1_000))], START);
    let admitted = (0..1_001).filter(|_| admits(&store, 0, &key("client"), 1, START)).count();
    assert_eq!(admitted, 1_000);
    // Each commit covers the cell that needed it and a hundred more.
    assert_eq!(store.commits(), 10, "for 1,000 charges");
}

#[test]
fn a_denial_and_a_look_write_nothing() {
    let home = Home::new();
    let store = home.open(vec![policy("bucket", bucket(10))], START);
    assert!(admits(&store, 0, &key("client"), 10, START));
    let commits = store.commits();
    for _ in 0..100 {
        assert!(!admits(&store, 0, &key("client"), 1, START));
        assert_eq!(left(&store, 0, &key("client"), START), 0);
        assert_eq!(left(&store, 0, &key("somebody else"), START), 10);
    }
    assert_eq!(store.commits(), commits);
}

#[test]
fn a_commit_is_one_sync_whatever_is_in_it() {
    const CALLERS: u64 = 64;
    const CALLS: u64 = 20;
    let home = Home::new();
    // A burst of one: every charge needs the disk.
    let store = home.open(vec![policy("bucket", bucket(1))], START);
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (store, admitted) = (&store, &admitted);
            scope.spawn(move || {
                for call in 0..CALLS {
                    let key = key(&format!("{caller} {call}"));
                    admitted.fetch_add(u64::from(admits(store, 0, &key, 1, START)), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1_000, "there is room for 1,000 keys, and nobody else is admitted");
    let (syncs, growths) = store.syncs();
    assert!(store.commits() < 1_000, "callers share commits: {}", store.commits());
    // Opening has its own.
    assert!(
        syncs <= store.commits() + growths + 8,
        "{syncs} syncs, {} commits, {growths} growths",
        store.commits()
    );
}

#[test]
fn what_refilled_needs_no_disk_after_a_restart() {
    let home = Home::new();
    let second = Limit::gcra(Rate::per_second(1), 10).expect("the limit can be kept");
    let store = home.open(vec![policy("bucket", second.clone())], START);
    assert!(admits(&store, 0, &key("client"), 10, START));
    drop(store);
    let later = START.after(Duration::from_secs(4));
    let store = home.open(vec![policy("bucket", second)], later);
    assert_eq!(left(&store, 0, &key("client"), later), 4, "what refilled meanwhile is there");
    assert_eq!(store.live_keys(later), 1);
    assert_eq!(store.live_keys(Nanos(later.0 + 6_000_000_001)), 0, "full again");
}

#[test]
fn a_reset_is_durable() {
    let home = Home::new();
    let store = home.open(vec![policy("bucket", bucket(10))], START);
    assert!(admits(&store, 0, &key("client"), 9, START));
    assert!(admits(&store, 0, &key("other"), 9, START));
    run(store.reset(&[charge(0, &key("client"), 0)], START)).expect("it forgets");
    drop(store);
    let store = home.open(vec![policy("bucket", bucket(10))], START);
    assert_eq!(left(&store, 0, &key("client"), START), 10);
    assert!(left(&store, 0, &key("other"), START) <= 1);
}
