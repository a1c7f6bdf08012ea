//! Policies that change, while the store runs and between two runs.

use std::time::Duration;

use ratelimit_core::ports::{Policy, RateStore};
use ratelimit_core::{Carried, Enforcement, KeyParts, Limit, Rate, Verdict};
use storage_adapters::redb::rates::{NAME_BYTES_MAX, RedbRateError, RedbRateStore};

use super::world::{HOUR, Home, START, admits, bucket, charge, key, left, options, policy, run, window};

fn reopened(store: &RedbRateStore, policies: Vec<Policy>) -> Vec<Carried> {
    run(store.reopen(policies, START)).expect("the policies can be exchanged")
}

#[test]
fn a_limit_that_changes_keeps_what_was_left_and_a_restart_keeps_that() {
    let home = Home::new();
    let store = home.open(vec![policy("a", bucket(100)), policy("b", window(100))], START);
    for policy in 0..2 {
        assert!(admits(&store, policy, &key("client"), 60, START));
    }
    let carried = reopened(&store, vec![policy("b", window(50)), policy("a", bucket(1_000))]);
    assert_eq!(carried, [Carried::Cells, Carried::Cells]);
    assert_eq!(left(&store, 1, &key("client"), START), 40, "raised");
    assert_eq!(left(&store, 0, &key("client"), START), 40, "lowered, and 40 still fit");
    assert_eq!(left(&store, 1, &key("other"), START), 1_000);
    drop(store);
    let store = home.open(vec![policy("a", bucket(1_000)), policy("b", window(50))], START);
    for policy in 0..2 {
        assert!(left(&store, policy, &key("client"), START) <= 40);
    }
}

#[test]
fn limits_that_are_raised_and_lowered_for_ever_give_nothing_away() {
    let home = Home::new();
    let mut store = home.open(vec![policy("a", bucket(100))], START);
    assert!(admits(&store, 0, &key("client"), 70, START));
    let mut left_before = 30;
    for round in 0..40 {
        let limit = if round % 2 == 0 { bucket(1_000 + round) } else { window(100) };
        if round % 3 == 0 {
            drop(store);
            store = home.open(vec![policy("a", limit)], START);
        } else {
            reopened(&store, vec![policy("a", limit)]);
        }
        let left = left(&store, 0, &key("client"), START);
        assert!(left <= left_before, "round {round}: {left} after {left_before}");
        left_before = left;
    }
}

#[test]
fn a_policy_with_the_same_limit_keeps_its_counters_and_its_grants_whatever_its_number() {
    let home = Home::new();
    let store = home.open(vec![policy("a", bucket(10)), policy("b", bucket(10))], START);
    let client = key("client");
    let grant = |policy| run(store.check(&[charge(policy, &client, 4)], START)).expect("it decides").1;
    let (mut a, mut b) = (grant(0), grant(1));
    assert!(a.is_some() && b.is_some(), "grants");
    let carried =
        reopened(&store, vec![policy("b", bucket(20)), policy("new", bucket(5)), policy("a", bucket(10))]);
    assert_eq!(carried, [Carried::Cells, Carried::Nothing, Carried::Table]);
    run(store.refund(&mut a, START)).expect("it gives back");
    run(store.refund(&mut b, START)).expect("it gives back nothing");
    assert_eq!(left(&store, 2, &client, START), 10);
    assert_eq!(left(&store, 0, &client, START), 6, "a grant of another limit");
    assert_eq!(left(&store, 1, &client, START), 5);
}

#[test]
fn a_policy_that_goes_takes_its_counters_along() {
    let home = Home::new();
    let store = home.open(vec![policy("a", bucket(10)), policy("b", bucket(10))], START);
    for policy in 0..2 {
        assert!(admits(&store, policy, &key("client"), 10, START));
    }
    assert_eq!(store.live_keys(START), 2);
    reopened(&store, vec![policy("b", bucket(10))]);
    assert_eq!(store.live_keys(START), 1);
    drop(store);
    let store = home.open(vec![policy("a", bucket(10)), policy("b", bucket(10))], START);
    assert_eq!(left(&store, 0, &key("client"), START), 10);
    assert_eq!(left(&store, 1, &key("client"), START), 0);
}

#[test]
fn limits_that_count_nothing_answer_and_write_nothing() {
    let home = Home::new();
    let store = home.open(vec![policy("all", Limit::Unlimited), policy("none", Limit::DenyAll)], START);
    assert!(admits(&store, 0, &key("client"), u64::MAX, START));
    assert!(!admits(&store, 1, &key("client"), 1, START));
    assert_eq!((store.commits(), store.live_keys(START)), (0, 0));
    let carried = reopened(&store, vec![policy("all", bucket(3)), policy("none", Limit::DenyAll)]);
    assert_eq!(carried, [Carried::Nothing, Carried::Table]);
    assert!(admits(&store, 0, &key("client"), 3, START) && !admits(&store, 0, &key("client"), 1, START));
    reopened(&store, vec![policy("all", Limit::Unlimited)]);
    assert_eq!(store.live_keys(START), 0);
}

#[test]
fn shadows_and_quotas_decide_as_they_do_in_memory() {
    let home = Home::new();
    let with = |name: &str, burst, enforcement| Policy { enforcement, ..policy(name, bucket(burst)) };
    let policies = vec![
        with("enforced", 10, Enforcement::Enforced),
        with("shadow", 1, Enforcement::Shadow),
        with("one", 2, Enforcement::Quota),
        with("two", 4, Enforcement::Quota),
    ];
    let store = home.open(policies.clone(), START);
    let secret = ratelimit_core::HashSecret([3; 16]);
    let memory =
        ratelimit_core::memory::MemoryStore::new(policies, ratelimit_core::TableSize::for_keys(10), secret)
            .expect("memory");
    let client = key("client");
    for round in 0..12 {
        let charges: Vec<_> = (0..4).map(|policy| charge(policy, &client, 1)).collect();
        let ours = run(store.check(&charges, START)).expect("it decides").0;
        let theirs = run(memory.check(&charges, START)).expect("it decides").0;
        assert_eq!(told(&ours), told(&theirs), "round {round}");
    }
}

fn told(verdict: &Verdict) -> (bool, Option<usize>, Vec<(u64, bool)>) {
    let decisions = verdict.decisions().iter().map(|decision| (decision.remaining(), decision.is_allowed()));
    (verdict.is_allowed(), verdict.decided_by(), decisions.collect())
}

#[test]
fn limits_that_a_file_cannot_keep_are_refused_by_name_and_change_nothing() {
    let refused = [
        Limit::sliding_window(10, HOUR).expect("a limit"),
        Limit::sliding_log(10, HOUR).expect("a limit"),
        Limit::strict_window(10, HOUR).expect("a limit"),
        Limit::concurrency(10, HOUR).expect("a limit"),
    ];
    let home = Home::new();
    let store = home.open(vec![policy("a", bucket(10))], START);
    assert!(admits(&store, 0, &key("client"), 7, START));
    for limit in refused {
        let policies = vec![policy("a", bucket(10)), policy("slow", limit)];
        let error = run(store.reopen(policies.clone(), START)).expect_err("it cannot be kept");
        assert!(matches!(&error, RedbRateError::Unsupported { name } if name == "slow"), "{error}");
        let elsewhere = Home::new();
        let error = elsewhere.try_open(policies, options(), START).expect_err("it cannot be kept");
        assert!(error.to_string().contains("slow"), "{error}");
        assert!(!elsewhere.path().exists(), "no file was made");
    }
    let twice = vec![policy("a", bucket(10)), policy("a", bucket(20))];
    assert!(matches!(run(store.reopen(twice, START)), Err(RedbRateError::SameName { .. })));
    let long = vec![policy(&"n".repeat(NAME_BYTES_MAX + 1), bucket(10))];
    assert!(matches!(run(store.reopen(long, START)), Err(RedbRateError::NameTooLong { .. })));
    assert_eq!(left(&store, 0, &key("client"), START), 3, "nothing has changed");
    assert!(Limit::strict_window(100, HOUR).expect("a limit").stored().is_some(), "a bucket from 64 on");
}

#[test]
fn policies_are_exchanged_between_two_requests() {
    let home = Home::new();
    let limit = |burst| Limit::gcra(Rate::new(1, HOUR), burst).expect("a limit");
    let store = home.open(vec![policy("a", limit(500))], START);
    let client: KeyParts = key("client");
    let admitted = std::thread::scope(|scope| {
        let (store, client) = (&store, &client);
        let ask = move || (0..200).filter(|_| admits(store, 0, client, 1, START)).count();
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for round in 0..20 {
            reopened(store, vec![policy("a", limit(500 + round % 2))]);
        }
        asking.into_iter().map(|asking| asking.join().expect("no panic")).sum::<usize>()
    });
    assert!((500..=501).contains(&admitted), "{admitted}: what was left stays, unless nothing was used yet");
    assert!(!admits(&store, 0, &client, 1, START.after(Duration::from_secs(1))));
}
