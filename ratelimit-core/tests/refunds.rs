//! Giving back never admits what would not have been admitted without the grant.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Grant, HashSecret, Limit, Limiter, Nanos, Rate, TableSize};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(limit: &Limit) -> Limiter<u64> {
    Limiter::new(limit.clone(), TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([3; 16]))
        .expect("memory")
}

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::per_second(1), burst).expect("a limit")
}

fn at_ms(ms: u64) -> Nanos {
    Nanos::from_duration(Duration::from_millis(ms))
}

#[derive(Debug, Clone)]
enum Act {
    Acquire {
        cost: u64,
    },
    /// Gives back a part of one of the grants.
    Refund {
        which: usize,
        part: u64,
    },
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let wait = prop_oneof![Just(0u64), 0..300u64, 0..1_500u64, 0..9_000u64];
    let act = prop_oneof![
        3 => (1..6u64).prop_map(|cost| Act::Acquire { cost }),
        2 => (0..8usize, 1..6u64).prop_map(|(which, part)| Act::Refund { which, part }),
    ];
    prop::collection::vec((wait, act), 1..80)
}

fn limits() -> impl Strategy<Value = Limit> {
    prop_oneof![
        4 => (1..12u64).prop_map(bucket),
        1 => (1..12u64).prop_map(|limit| Limit::fixed_window(limit, SECOND * 3).expect("a limit")),
        1 => (1..12u64).prop_map(|limit| Limit::sliding_window(limit, SECOND * 3).expect("a limit")),
        1 => (1..12u64).prop_map(|limit| Limit::sliding_log(limit, SECOND * 3).expect("a limit")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Replays everything that was kept, without what was given back, in a fresh limiter: all of it must pass. A refund of
    /// the whole amount fails this for buckets, see below.
    #[test]
    fn f8_what_passes_beside_refunds_passes_without_the_grants(limit in limits(), acts in acts()) {
        let real = limiter(&limit);
        let mut now = 0;
        let mut grants: Vec<(usize, Grant)> = Vec::new();
        let mut kept: Vec<(u64, u64)> = Vec::new();
        for (wait_ms, act) in acts {
            now += wait_ms;
            match act {
                Act::Acquire { cost } => {
                    if let (_, Some(grant)) = real.acquire(&7, cost, at_ms(now)) {
                        grants.push((kept.len(), grant));
                        kept.push((now, cost));
                    }
                }
                Act::Refund { which, part } if !grants.is_empty() => {
                    let index = which % grants.len();
                    let (admission, grant) = &mut grants[index];
                    let back = grant.split(part);
                    kept[*admission].1 -= back.cost();
                    real.refund(back, at_ms(now));
                }
                Act::Refund { .. } => {}
            }
        }
        let without = limiter(&limit);
        for (at, cost) in kept {
            prop_assert!(without.check_cost(&7, cost, at_ms(at)).is_allowed(), "{cost} at {at} ms");
        }
    }
}

/// A refund of the whole amount, late, is what breaks buckets elsewhere.
#[test]
fn f8_what_has_refilled_since_the_grant_is_not_given_twice() {
    let limiter = limiter(&bucket(10));
    let (_, grant) = limiter.acquire(&1, 4, at_ms(0));
    assert!(limiter.check_cost(&1, 6, at_ms(0)).is_allowed());
    limiter.refund(grant.expect("a grant"), at_ms(3_000));
    // 3 refilled, and of the 4 only 1 is left to give.
    assert_eq!(limiter.peek(&1, 0, at_ms(3_000)).remaining(), 4);
}

#[test]
fn f8_a_refund_never_lifts_a_bucket_above_its_burst() {
    let limiter = limiter(&bucket(10));
    let (_, first) = limiter.acquire(&1, 4, at_ms(0));
    let (_, second) = limiter.acquire(&1, 4, at_ms(0));
    limiter.refund(first.expect("a grant"), at_ms(0));
    limiter.refund(second.expect("a grant"), at_ms(7_000));
    assert_eq!(limiter.peek(&1, 0, at_ms(7_000)).remaining(), 10);
    assert!(!limiter.peek(&1, 11, at_ms(7_000)).is_allowed());
}

#[test]
fn f8_a_refund_after_the_bucket_was_full_again_does_nothing() {
    let limiter = limiter(&bucket(10));
    let (_, grant) = limiter.acquire(&1, 4, at_ms(0));
    assert!(limiter.check_cost(&1, 3, at_ms(5_000)).is_allowed());
    limiter.refund(grant.expect("a grant"), at_ms(5_000));
    assert_eq!(limiter.peek(&1, 0, at_ms(5_000)).remaining(), 7);
}

#[test]
fn a_grant_of_another_limiter_gives_nothing_back() {
    let (one, two) = (limiter(&bucket(10)), limiter(&bucket(10)));
    assert!(two.check_cost(&1, 9, at_ms(0)).is_allowed());
    let (_, grant) = one.acquire(&1, 9, at_ms(0));
    two.refund(grant.expect("a grant"), at_ms(0));
    assert_eq!(two.peek(&1, 0, at_ms(0)).remaining(), 1);
}

#[test]
fn a_denied_request_and_one_of_no_cost_have_no_grant() {
    let limiter = limiter(&bucket(2));
    assert_eq!(limiter.acquire(&1, 3, at_ms(0)).1, None);
    assert_eq!(limiter.acquire(&1, 0, at_ms(0)).1, None);
}

#[test]
fn a_reservation_settles_at_what_was_really_used() {
    let limiter = limiter(&bucket(10));
    let left = |now| limiter.peek(&1, 0, now).remaining();
    let (_, reservation) = limiter.reserve(&1, 8, SECOND * 30, at_ms(0));
    assert_eq!(left(at_ms(0)), 2);
    limiter.commit(reservation.expect("a reservation"), 3, at_ms(0));
    assert_eq!(left(at_ms(0)), 7);
    let (_, reservation) = limiter.reserve(&1, 7, SECOND * 30, at_ms(0));
    limiter.release(reservation.expect("a reservation"), at_ms(2_000));
    // 2 refilled, and of the 7 the 2 that refilled meanwhile are not given back.
    assert_eq!(left(at_ms(2_000)), 7);
}

#[test]
fn a_reservation_that_expires_is_paid_in_full() {
    let limiter = limiter(&bucket(10));
    let (_, reservation) = limiter.reserve(&1, 10, SECOND, at_ms(0));
    let reservation = reservation.expect("a reservation");
    assert_eq!(reservation.expires_at(), at_ms(1_000));
    limiter.release(reservation, at_ms(1_000));
    assert_eq!(limiter.peek(&1, 0, at_ms(1_000)).remaining(), 1);
}

#[test]
fn more_than_reserved_is_owed_down_to_the_debt_that_is_allowed() {
    let limit = Limit::gcra_with_debt(Rate::per_second(1), 10, 5).expect("a limit");
    let limiter = limiter(&limit);
    let (_, reservation) = limiter.reserve(&1, 10, SECOND, at_ms(0));
    limiter.commit(reservation.expect("a reservation"), 13, at_ms(0));
    let wait = |now| limiter.peek(&1, 1, now).retry_after().expect("denied");
    assert_eq!(wait(at_ms(0)), SECOND * 4, "three owed, and one to have");
    assert!(!limiter.peek(&1, 0, at_ms(0)).is_allowed(), "in debt");
    let limiter = self::limiter(&limit);
    let (_, reservation) = limiter.reserve(&1, 1, SECOND, at_ms(0));
    limiter.commit(reservation.expect("a reservation"), u64::MAX, at_ms(0));
    assert_eq!(limiter.peek(&1, 1, at_ms(0)).retry_after(), Some(SECOND * 6), "five owed at most");
}
