use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Harness;
use crate::key::{HashSecret, KeyParts};
use crate::limit::{Limit, Rate};
use crate::limit_set::{Enforcement, HITS_MAX, Verdict};
use crate::memory::MemoryStore;
use crate::ports::{Charge, Policy, PolicyId, RateStore, RateStoreError};
use crate::table::TableSize;
use crate::ticks::Nanos;

/// Long enough that nothing refills while a test runs.
const HOUR: Duration = Duration::from_secs(3_600);

/// When tests begin: not at the epoch, where everything is easy.
const START: Nanos = Nanos(1_000_000_000_000);

fn policy(name: &str, limit: Limit) -> Policy {
    Policy { name: name.to_owned(), limit, enforcement: Enforcement::Enforced }
}

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::new(1, HOUR), burst).expect("the limit can be kept")
}

fn key(text: &str) -> KeyParts {
    KeyParts::new([text])
}

fn charge(policy: u32, key: &KeyParts, cost: u64) -> Charge<'_> {
    Charge { policy: PolicyId(policy), key, cost }
}

fn checked<H: Harness>(harness: &H, store: &H::Store, charges: &[Charge<'_>], now: Nanos) -> Verdict {
    harness
        .run(async { store.check(charges, now).await.map(|(verdict, _)| verdict) })
        .expect("the store decides")
}

fn granted<H: Harness>(
    harness: &H,
    store: &H::Store,
    charges: &[Charge<'_>],
    now: Nanos,
) -> Option<<H::Store as RateStore>::Grant> {
    harness.run(store.check(charges, now)).expect("the store decides").1
}

fn left<H: Harness>(harness: &H, store: &H::Store, policy: u32, key: &KeyParts, now: Nanos) -> u64 {
    let verdict = harness.run(store.peek(&[charge(policy, key, 0)], now)).expect("the store looks");
    verdict.decisions().first().map_or(0, |decision| decision.remaining())
}

/// Requests from several threads at once; how many were admitted.
#[expect(clippy::disallowed_methods, reason = "the guarantee is about threads")]
fn raced<H: Harness>(harness: &H, store: &H::Store, requests: u64, charges: &[Charge<'_>]) -> u64 {
    const THREADS: u64 = 8;
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let admitted = &admitted;
            scope.spawn(move || {
                for _ in (thread..requests).step_by(THREADS as usize) {
                    if checked(harness, store, charges, START).is_allowed() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    admitted.into_inner()
}

/// Of `n + 1` requests for `n` cells exactly `n` are admitted, on each of several counters.
pub fn g1_exact<H: Harness>(harness: &H) {
    let fixed = Limit::fixed_window(100, HOUR).expect("the limit can be kept");
    let store = harness.open(&[policy("bucket", bucket(100)), policy("window", fixed)]);
    for policy in 0..2 {
        for round in 0..10 {
            let key = key(&format!("client {round}"));
            assert_eq!(raced(harness, &store, 101, &[charge(policy, &key, 1)]), 100, "policy {policy}");
            assert_eq!(left(harness, &store, policy, &key, START), 0);
        }
    }
}

/// What one counter denies is taken of no other, whoever else asks at the same time.
pub fn g2_all_or_nothing<H: Harness>(harness: &H) {
    let store = harness.open(&[policy("all", bucket(1_000)), policy("user", bucket(30))]);
    let (all, users) = (key("all"), [key("a"), key("b"), key("c")]);
    let admitted: u64 =
        users.iter().map(|user| raced(harness, &store, 50, &[charge(0, &all, 1), charge(1, user, 1)])).sum();
    assert_eq!(admitted, 90);
    assert_eq!(left(harness, &store, 0, &all, START), 1_000 - 90, "denied requests took nothing");
    let other = key("d");
    let twice = [charge(1, &other, 20), charge(1, &other, 20)];
    assert!(!checked(harness, &store, &twice, START).is_allowed(), "charges of one counter add up");
    assert_eq!(left(harness, &store, 1, &other, START), 30);
}

/// A request that is denied changes nothing.
pub fn g3_denials_are_free<H: Harness>(harness: &H) {
    let store = harness.open(&[policy("bucket", bucket(10))]);
    let key = key("client");
    assert!(checked(harness, &store, &[charge(0, &key, 7)], START).is_allowed());
    for cost in [4, 5, 10, 11, u64::MAX] {
        assert!(!checked(harness, &store, &[charge(0, &key, cost)], START).is_allowed(), "cost {cost}");
    }
    assert_eq!(left(harness, &store, 0, &key, START), 3);
    assert!(checked(harness, &store, &[charge(0, &key, 3)], START).is_allowed());
}

/// A long trace gets the decisions of the store in memory.
pub fn g4_faithful<H: Harness>(harness: &H) {
    let limits = [
        Limit::gcra(Rate::per_second(3), 10),
        Limit::gcra(Rate::per_minute(7), 2),
        Limit::fixed_window(5, Duration::from_secs(2)),
    ];
    let policies: Vec<Policy> = limits
        .into_iter()
        .enumerate()
        .map(|(number, limit)| policy(&format!("policy {number}"), limit.expect("the limit can be kept")))
        .collect();
    let size = TableSize::for_keys(100);
    let reference = MemoryStore::new(policies.clone(), size, HashSecret([1; 16])).expect("memory");
    let store = harness.open(&policies);
    let (mut now, mut random) = (START, 1u64);
    for _ in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        now = now.after(Duration::from_millis(random >> 33 & 0x1ff));
        let (policy, key) = ((random >> 45) as u32 % 3, key(if random >> 50 & 1 == 0 { "a" } else { "b" }));
        let charges = [charge(policy, &key, random >> 52 & 3)];
        let (expected, _) = harness.run(reference.check(&charges, now)).expect("memory decides");
        let verdict = checked(harness, &store, &charges, now);
        assert_eq!(verdict.is_allowed(), expected.is_allowed(), "at {now:?}: {charges:?}");
        for (ours, theirs) in verdict.decisions().iter().zip(expected.decisions()) {
            assert_eq!((ours.limit(), ours.remaining()), (theirs.limit(), theirs.remaining()), "at {now:?}");
            assert_eq!(ours.outcome(), theirs.outcome());
            assert!(ours.retry_after() >= theirs.retry_after(), "never early");
        }
    }
}

/// Keys with separators, empty parts and zero bytes, and one key under two policies, have counters of their own.
pub fn g5_injective<H: Harness>(harness: &H) {
    let store = harness.open(&[policy("one", bucket(1)), policy("two", bucket(1))]);
    let keys = [
        KeyParts::new(["a", "b_c"]),
        KeyParts::new(["a_b", "c"]),
        KeyParts::new(["a", "b", "c"]),
        KeyParts::new(["abc"]),
        KeyParts::new(["a:b", "{c}"]),
        KeyParts::new(["a", ""]),
        KeyParts::new(["", "a"]),
        KeyParts::new(["a\0", "b"]),
        KeyParts::new([&b"\xff\xfe"[..], &b"\0"[..]]),
        KeyParts::default(),
    ];
    for policy in 0..2 {
        for key in &keys {
            assert!(checked(harness, &store, &[charge(policy, key, 1)], START).is_allowed(), "{key:?}");
        }
        for key in &keys {
            assert!(!checked(harness, &store, &[charge(policy, key, 1)], START).is_allowed(), "{key:?}");
        }
    }
}

/// Stamps that go back and forth open nothing.
pub fn g6_time<H: Harness>(harness: &H) {
    let fixed = Limit::fixed_window(10, HOUR).expect("the limit can be kept");
    let store = harness.open(&[policy("bucket", bucket(10)), policy("window", fixed)]);
    for policy in 0..2 {
        let key = key("client");
        let mut admitted = 0;
        // A day back and forth, half an hour at a time, within one hour of real time.
        for step in 0..60 {
            let back = Duration::from_secs(if step % 2 == 0 { 0 } else { 900 });
            let now = Nanos(START.after(HOUR * 24).0 - Nanos::from_duration(back).0);
            admitted += u64::from(checked(harness, &store, &[charge(policy, &key, 1)], now).is_allowed());
        }
        assert_eq!(admitted, 10, "policy {policy}");
    }
}

/// `peek` answers as `check` would, and changes nothing.
pub fn g7_looks<H: Harness>(harness: &H) {
    let store = harness.open(&[policy("bucket", bucket(5)), policy("other", bucket(3))]);
    let key = key("client");
    for round in 0..6 {
        let charges = [charge(0, &key, 1), charge(1, &key, 1)];
        for _ in 0..3 {
            let looked = harness.run(store.peek(&charges, START)).expect("the store looks");
            assert_eq!(looked.is_allowed(), round < 3, "round {round}");
        }
        assert_eq!(checked(harness, &store, &charges, START).is_allowed(), round < 3, "round {round}");
    }
    assert_eq!(left(harness, &store, 0, &key, START), 2);
}

/// What is given back is aged, never lifts a counter above full, and is given back once.
pub fn g8_refunds_age<H: Harness>(harness: &H) {
    let limit = Limit::gcra(Rate::per_second(1), 10).expect("the limit can be kept");
    let policies = [policy("bucket", limit)];
    let store = harness.open(&policies);
    let (key, later) = (key("client"), START.after(Duration::from_secs(3)));
    let mut grant = granted(harness, &store, &[charge(0, &key, 4)], START);
    assert!(grant.is_some(), "a grant");
    assert!(checked(harness, &store, &[charge(0, &key, 6)], START).is_allowed());
    for _ in 0..2 {
        harness.run(store.refund(&mut grant, later)).expect("the store gives back");
        assert!(grant.is_none(), "what was given back is gone");
        assert_eq!(left(harness, &store, 0, &key, later), 4, "3 refilled, and 1 of the 4 is left to give");
    }
    let full = START.after(Duration::from_secs(100));
    let mut grant = granted(harness, &store, &[charge(0, &key, 4)], full);
    assert!(grant.is_some(), "a grant");
    harness.run(store.refund(&mut grant, full.after(Duration::from_secs(9)))).expect("the store gives back");
    assert_eq!(left(harness, &store, 0, &key, full.after(Duration::from_secs(9))), 10, "full, and not more");
}

/// Policies that do not exist and too many charges are errors, and change nothing.
pub fn g9_refusals<H: Harness>(harness: &H) {
    let store = harness.open(&[policy("bucket", bucket(10))]);
    let key = key("client");
    let unknown = [charge(0, &key, 1), charge(1, &key, 1)];
    let error = harness.run(store.check(&unknown, START)).err();
    assert!(matches!(error, Some(RateStoreError::UnknownPolicy { policy: PolicyId(1), .. })), "{error:?}");
    assert!(harness.run(store.peek(&unknown, START)).is_err());
    assert!(harness.run(store.reset(&unknown, START)).is_err());
    let many = vec![charge(0, &key, 0); HITS_MAX + 1];
    let error = harness.run(store.check(&many, START)).err();
    assert!(matches!(error, Some(RateStoreError::TooMany(_))), "{error:?}");
    assert_eq!(left(harness, &store, 0, &key, START), 10);
    assert!(checked(harness, &store, &[charge(0, &key, 4)], START).is_allowed());
    harness.run(store.reset(&[charge(0, &key, 0)], START)).expect("the store forgets");
    assert_eq!(left(harness, &store, 0, &key, START.after(Duration::from_nanos(1_000))), 10);
}

/// Of durable stores: what is opened again admits no more than what was closed would have.
pub fn g10_durable<H: Harness>(harness: &H) {
    let policies = [policy("bucket", bucket(10))];
    let key = key("client");
    let store = harness.open(&policies);
    assert!(checked(harness, &store, &[charge(0, &key, 7)], START).is_allowed());
    drop(store);
    let store = harness.open(&policies);
    assert!(left(harness, &store, 0, &key, START) <= 3);
    assert!(!checked(harness, &store, &[charge(0, &key, 4)], START).is_allowed());
}
