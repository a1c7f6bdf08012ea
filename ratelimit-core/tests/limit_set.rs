//! Several limits at once: all or nothing.
#![expect(clippy::disallowed_methods, reason = "one claim is about threads")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{
    Enforcement, HITS_MAX, HashSecret, Hit, Limit, LimitId, LimitSet, Nanos, Outcome, Rate, TableSize,
};

const SIZE: TableSize = TableSize { keys: 100, sketch_bytes: 1 << 12 };
const HOUR: Duration = Duration::from_secs(3_600);

fn set(limits: &[Limit]) -> (LimitSet, Vec<LimitId>) {
    let mut set = LimitSet::new(HashSecret([6; 16]));
    let ids = limits
        .iter()
        .map(|limit| set.add(limit.clone(), SIZE, Enforcement::Enforced).expect("memory"))
        .collect();
    (set, ids)
}

fn per_hour(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

fn left(set: &LimitSet, hit: Hit, now: Nanos) -> u64 {
    set.peek(&[hit.with_cost(0)], now).expect("few hits").decisions()[0].remaining()
}

/// envoyproxy/ratelimit increments every descriptor before it decides; limitador checks, then acts.
#[test]
fn f5_when_one_limit_denies_nothing_is_taken_of_the_others() {
    let limits = [
        per_hour(10),
        Limit::fixed_window(10, HOUR).expect("a limit"),
        Limit::sliding_window(10, HOUR).expect("a limit"),
        Limit::sliding_log(10, HOUR).expect("a limit"),
        Limit::concurrency(10, HOUR).expect("a limit"),
    ];
    for narrow in [per_hour(2), Limit::sliding_log(2, HOUR).expect("a limit"), Limit::DenyAll] {
        let mut limits = limits.to_vec();
        limits.push(narrow.clone());
        let (set, ids) = set(&limits);
        let hits: Vec<Hit> = ids.iter().map(|id| set.hit(*id, "acme", 1)).collect();
        let admitted =
            (0..100).filter(|_| set.check(&hits, Nanos(0)).expect("few hits").is_allowed()).count();
        assert_eq!(admitted as u64, narrow.size());
        for hit in &hits[..5] {
            assert_eq!(left(&set, *hit, Nanos(0)), 10 - narrow.size(), "{narrow:?}");
        }
        let denied = set.check(&hits, Nanos(0)).expect("few hits");
        assert_eq!(denied.decided_by(), Some(5));
        assert!(denied.decisions()[..5].iter().all(|decision| decision.remaining() == 10 - narrow.size()));
    }
}

#[test]
fn f5_threads_that_compete_for_several_limits_are_charged_everywhere_or_nowhere() {
    let (set, ids) = set(&[per_hour(1_000), per_hour(300), Limit::sliding_log(60, HOUR).expect("a limit")]);
    let admitted: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (set, ids, admitted) = (&set, &ids, &admitted);
            scope.spawn(move || {
                for round in 0..600u64 {
                    let user = (round + thread) % 8;
                    // The order of the hits differs from thread to thread.
                    let mut hits = [
                        set.hit(ids[0], "all", 1),
                        set.hit(ids[1], &(user % 2), 1),
                        set.hit(ids[2], &user, 1),
                    ];
                    hits.rotate_left((thread % 3) as usize);
                    if set.check(&hits, Nanos(0)).expect("few hits").is_allowed() {
                        admitted[user as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let count = |user: usize| admitted[user].load(Ordering::Relaxed);
    let total: u64 = (0..8).map(count).sum();
    assert_eq!(left(&set, set.hit(ids[0], "all", 1), Nanos(0)), 1_000 - total);
    for user in 0..8 {
        assert_eq!(left(&set, set.hit(ids[2], &(user as u64), 1), Nanos(0)), 60 - count(user));
    }
    assert_eq!(total, 480, "60 for each of 8 users; their organizations and the whole have more");
}

#[test]
fn the_same_key_twice_in_a_request_costs_both() {
    let (set, ids) = set(&[per_hour(3)]);
    let hits = [set.hit(ids[0], "a", 2), set.hit(ids[0], "a", 2)];
    assert_eq!(set.check(&hits, Nanos(0)).expect("few hits").decisions()[0].outcome(), Outcome::NeverFits);
    let hits = [set.hit(ids[0], "a", 2), set.hit(ids[0], "a", 1), set.hit(ids[0], "b", 1)];
    let verdict = set.check(&hits, Nanos(0)).expect("few hits");
    assert!(verdict.is_allowed());
    assert_eq!(
        verdict.decisions().iter().map(|decision| decision.remaining()).collect::<Vec<_>>(),
        [0, 0, 2]
    );
}

#[test]
fn a_limit_in_shadow_is_counted_and_reported_and_denies_nobody() {
    let mut set = LimitSet::new(HashSecret([6; 16]));
    let enforced = set.add(per_hour(5), SIZE, Enforcement::Enforced).expect("memory");
    let shadow = set.add(per_hour(2), SIZE, Enforcement::Shadow).expect("memory");
    let hits = [set.hit(enforced, "a", 1), set.hit(shadow, "a", 1)];
    let verdicts: Vec<_> = (0..7).map(|_| set.check(&hits, Nanos(0)).expect("few hits")).collect();
    let allowed: Vec<bool> = verdicts.iter().map(|verdict| verdict.is_allowed()).collect();
    let by_shadow: Vec<bool> = verdicts.iter().map(|verdict| verdict.decisions()[1].is_allowed()).collect();
    assert_eq!(allowed, [true, true, true, true, true, false, false]);
    assert_eq!(by_shadow, [true, true, false, false, false, false, false]);
    assert!(verdicts.iter().all(|verdict| verdict.decided_by() == Some(0)));
}

#[test]
fn of_quotas_one_that_admits_is_enough() {
    let mut set = LimitSet::new(HashSecret([6; 16]));
    let quotas = [2, 4].map(|size| set.add(per_hour(size), SIZE, Enforcement::Quota).expect("memory"));
    let enforced = set.add(per_hour(10), SIZE, Enforcement::Enforced).expect("memory");
    let hits = [quotas[0], quotas[1], enforced].map(|id| set.hit(id, "a", 1));
    let allowed: Vec<bool> =
        (0..6).map(|_| set.check(&hits, Nanos(0)).expect("few hits").is_allowed()).collect();
    assert_eq!(allowed, [true, true, true, true, false, false]);
    assert_eq!(set.check(&hits, Nanos(0)).expect("few hits").decided_by(), Some(0));
    assert_eq!(left(&set, hits[2], Nanos(0)), 6);
}

#[test]
fn the_decision_that_counts_is_the_longest_wait_or_the_least_that_is_left() {
    let (set, ids) = set(&[per_hour(3), Limit::gcra(Rate::per_second(1), 2).expect("a limit"), per_hour(5)]);
    let hits: Vec<Hit> = ids.iter().map(|id| set.hit(*id, "a", 1)).collect();
    let decided = |now| set.check(&hits, now).expect("few hits").decided_by();
    assert_eq!(decided(Nanos(0)), Some(1), "one left there");
    assert_eq!(decided(Nanos(0)), Some(1), "none left there");
    assert_eq!(decided(Nanos(0)), Some(1), "a second to wait");
    assert_eq!(decided(Nanos(1_000_000_000)), Some(0), "admitted; the first and the second have none left");
    assert_eq!(decided(Nanos(1_000_000_000)), Some(0), "an hour to wait");
}

#[test]
fn a_grant_of_several_limits_is_given_back_everywhere() {
    let (set, ids) = set(&[per_hour(3), Limit::concurrency(2, HOUR).expect("a limit")]);
    let hits: Vec<Hit> = ids.iter().map(|id| set.hit(*id, "a", 2)).collect();
    let (verdict, grant) = set.acquire(&hits, Nanos(0)).expect("few hits");
    assert!(verdict.is_allowed());
    assert_eq!(hits.iter().map(|hit| left(&set, *hit, Nanos(0))).collect::<Vec<_>>(), [1, 0]);
    set.refund(grant.expect("a grant"), Nanos(0));
    assert_eq!(hits.iter().map(|hit| left(&set, *hit, Nanos(0))).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn requests_of_no_limits_pass_and_of_too_many_are_refused() {
    let (set, ids) = set(&[per_hour(3)]);
    assert!(set.check(&[], Nanos(0)).expect("few hits").is_allowed());
    let hits = vec![set.hit(ids[0], "a", 1); HITS_MAX + 1];
    assert_eq!(set.check(&hits, Nanos(0)).expect_err("too many").hits, HITS_MAX + 1);
    assert_eq!(left(&set, hits[0], Nanos(0)), 3);
}

proptest! {
    /// Against the simplest model there is: a count per limit and key, no time.
    #[test]
    fn a_set_is_charged_all_or_nothing(
        sizes in prop::collection::vec(1..12u64, 1..5),
        requests in prop::collection::vec(prop::collection::vec((0..5usize, 0..3u64, 0..4u64), 0..6), 1..60),
    ) {
        let (set, ids) = set(&sizes.iter().map(|size| per_hour(*size)).collect::<Vec<_>>());
        let mut used = std::collections::BTreeMap::new();
        for request in requests {
            let request: Vec<_> = request.into_iter().filter(|(limit, ..)| *limit < sizes.len()).collect();
            let hits: Vec<Hit> = request.iter().map(|(limit, key, cost)| set.hit(ids[*limit], key, *cost)).collect();
            let mut after = used.clone();
            for (limit, key, cost) in &request {
                *after.entry((*limit, *key)).or_insert(0) += cost;
            }
            let fits = after.iter().all(|((limit, _), used)| *used <= sizes[*limit]);
            prop_assert_eq!(set.peek(&hits, Nanos(0)).expect("few hits").is_allowed(), fits);
            prop_assert_eq!(set.check(&hits, Nanos(0)).expect("few hits").is_allowed(), fits);
            used = if fits { after } else { used };
            for ((limit, key), used) in &used {
                prop_assert_eq!(left(&set, set.hit(ids[*limit], key, 1), Nanos(0)), sizes[*limit] - used);
            }
        }
    }
}

/// A hit that names a smaller size is decided as by a limit of that size which has seen all hits of the key.
#[test]
fn a_hit_within_a_part_of_a_limit_sees_what_others_took_of_all_of_it() {
    let minute = Duration::from_secs(60);
    for limit in [
        Limit::fixed_window(10, minute).expect("a limit"),
        Limit::gcra(Rate::new(10, minute), 10).expect("a limit"),
        Limit::sliding_log(10, minute).expect("a limit"),
    ] {
        let mut set = LimitSet::new(HashSecret([1; 16]));
        let id = set.add(limit.clone(), TableSize::for_keys(10), Enforcement::Enforced).expect("memory");
        let now = Nanos(1_000);
        let take = |within: u64, cost: u64| {
            let verdict = set.check(&[set.hit(id, "k", cost).within(within)], now).expect("few hits");
            let decision = verdict.decisions()[0];
            let peek = set.peek(&[set.hit(id, "k", 0).within(within)], now).expect("few hits");
            assert_eq!(peek.decisions()[0].remaining(), decision.remaining(), "{limit:?}");
            (decision.outcome(), decision.limit(), decision.remaining())
        };
        let (allowed, denied, never) = (Outcome::Allowed, Outcome::Denied, Outcome::NeverFits);
        assert_eq!(take(3, 4), (never, 3, 3), "{limit:?}");
        assert_eq!(take(3, 3), (allowed, 3, 0), "{limit:?}");
        assert_eq!(take(3, 1), (denied, 3, 0), "{limit:?}");
        assert_eq!(take(5, 1), (allowed, 5, 1), "{limit:?}");
        assert_eq!(take(4, 1), (denied, 4, 0), "{limit:?}");
        assert_eq!(take(0, 1).0, never, "{limit:?}");
        assert_eq!(take(99, 6), (allowed, 10, 0), "larger than the limit is the limit: {limit:?}");
    }
    let mut set = LimitSet::new(HashSecret([1; 16]));
    let id = set.add(Limit::Unlimited, TableSize::for_keys(10), Enforcement::Enforced).expect("memory");
    let verdict = set.check(&[set.hit(id, "k", 9).within(3)], Nanos(0)).expect("few hits");
    assert_eq!((verdict.is_allowed(), verdict.decisions()[0].limit()), (true, u64::MAX));
}

/// Nor does it matter that threads name different sizes at once.
#[test]
fn hits_of_several_sizes_on_one_key_never_have_more_together_than_the_largest() {
    let mut set = LimitSet::new(HashSecret([1; 16]));
    let limit = Limit::fixed_window(1 << 20, Duration::from_secs(60)).expect("a limit");
    let id = set.add(limit, TableSize::for_keys(10), Enforcement::Enforced).expect("memory");
    let passed: usize = std::thread::scope(|scope| {
        let take =
            |size: u64| set.check(&[set.hit(id, "k", 1).within(size)], Nanos(0)).expect("few").is_allowed();
        let threads: Vec<_> = (0..4u64)
            .map(|thread| scope.spawn(move || (0..5_000).filter(|_| take(700 + thread * 100)).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    assert_eq!(passed, 1_000);
}
