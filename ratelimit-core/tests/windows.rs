//! Windows, the log and calendar quotas against exact models.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{HashSecret, Limit, LimitError, Limiter, Nanos, Outcome, TableSize};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(limit: Limit) -> Limiter<u64> {
    Limiter::new(limit, TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([2; 16])).expect("memory")
}

/// Admissions of one key: instant and cost.
type Passed = Vec<(u64, u64)>;

/// Drives a limiter with waits and costs; checks of each decision what holds for every algorithm.
fn driven(limiter: &Limiter<u64>, steps: &[(u64, u64)]) -> Result<Passed, TestCaseError> {
    let mut passed = Passed::new();
    let mut now = Nanos(5_000_000_000);
    for (wait_ns, cost) in steps {
        now = Nanos(now.0 + wait_ns);
        let looked = limiter.peek(&7, *cost, now);
        let decision = limiter.check_cost(&7, *cost, now);
        prop_assert_eq!(looked, decision, "a look is the decision");
        match decision.outcome() {
            Outcome::Allowed => passed.push((now.0, *cost)),
            Outcome::Denied => {
                let retry = now.after(decision.retry_after().expect("a wait"));
                prop_assert!(limiter.peek(&7, *cost, retry).is_allowed(), "waited as told, denied");
                let early = Nanos(retry.0 - 1);
                prop_assert!(
                    early <= now || !limiter.peek(&7, *cost, early).is_allowed(),
                    "told to wait too long"
                );
            }
            Outcome::NeverFits => prop_assert!(*cost > decision.limit()),
        }
        let left = limiter.peek(&7, 0, now);
        prop_assert_eq!(left.remaining(), decision.remaining());
        prop_assert!(left.remaining() == 0 || limiter.peek(&7, left.remaining(), now).is_allowed());
        prop_assert!(!limiter.peek(&7, left.remaining() + 1, now).is_allowed());
        if left.remaining() < left.limit() {
            let more = now.after(left.more_after());
            prop_assert!(limiter.peek(&7, left.remaining() + 1, more).is_allowed());
        }
        prop_assert_eq!(limiter.peek(&7, 0, now.after(left.reset_after())).remaining(), left.limit());
    }
    Ok(passed)
}

/// The most that passed in any interval `[t, t + length)`.
fn most_within(passed: &Passed, length: u64) -> u64 {
    let from =
        |first: usize| passed.iter().skip(first).take_while(move |(at, _)| *at < passed[first].0 + length);
    (0..passed.len()).map(|first| from(first).map(|(_, cost)| cost).sum()).max().unwrap_or(0)
}

fn steps(period_ns: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    let wait = prop_oneof![Just(0), 0..period_ns / 8, 0..period_ns, 0..period_ns * 3, Just(period_ns)];
    prop::collection::vec((wait, prop_oneof![6 => 1..4u64, 1 => 0..70u64, 1 => Just(u64::MAX)]), 1..150)
}

const PERIOD_NS: u64 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_fixed_window_admits_at_most_its_limit(limit in 1..40u64, steps in steps(PERIOD_NS)) {
        let passed = driven(&limiter(Limit::fixed_window(limit, SECOND).expect("a limit")), &steps)?;
        for window in passed.iter().map(|(at, _)| at / PERIOD_NS) {
            let sum: u64 = passed.iter().filter(|(at, _)| at / PERIOD_NS == window).map(|(_, cost)| cost).sum();
            prop_assert!(sum <= limit);
        }
        prop_assert!(most_within(&passed, PERIOD_NS) <= 2 * limit);
    }

    #[test]
    fn a_fixed_window_denies_only_what_exceeds_it(limit in 1..40u64, steps in steps(PERIOD_NS)) {
        let limiter = limiter(Limit::fixed_window(limit, SECOND).expect("a limit"));
        let (mut window, mut count, mut now) = (0, 0u64, 0);
        for (wait_ns, cost) in steps {
            now += wait_ns;
            if now / PERIOD_NS != window {
                (window, count) = (now / PERIOD_NS, 0);
            }
            let fits = count.checked_add(cost).is_some_and(|after| after <= limit);
            prop_assert_eq!(limiter.check_cost(&7, cost, Nanos(now)).is_allowed(), fits);
            count += if fits { cost } else { 0 };
        }
    }

    #[test]
    fn a_sliding_window_admits_exactly_what_its_estimate_allows(limit in 1..40u64, steps in steps(PERIOD_NS)) {
        let sliding = limiter(Limit::sliding_window(limit, SECOND).expect("a limit"));
        let mut passed = Passed::new();
        let mut now = 0;
        for (wait_ns, cost) in &steps {
            now += wait_ns;
            let window = now / PERIOD_NS;
            let count = |of: u64| passed.iter().filter(|(at, _)| at / PERIOD_NS == of).map(|(_, cost)| cost).sum::<u64>();
            let before = if window == 0 { 0 } else { count(window - 1) };
            // (before · covered + here · period) / period + cost <= limit, without dividing.
            let covered = u128::from(PERIOD_NS - now % PERIOD_NS);
            let used = u128::from(before) * covered + u128::from(count(window)) * u128::from(PERIOD_NS);
            let fits = used + u128::from(*cost) * u128::from(PERIOD_NS) <= u128::from(limit) * u128::from(PERIOD_NS);
            prop_assert_eq!(sliding.check_cost(&7, *cost, Nanos(now)).is_allowed(), fits);
            if fits {
                passed.push((now, *cost));
            }
        }
        prop_assert!(most_within(&passed, PERIOD_NS) < 2 * limit.max(1));
        driven(&limiter(Limit::sliding_window(limit, SECOND).expect("a limit")), &steps)?;
    }

    #[test]
    fn a_log_admits_exactly_its_limit_in_any_period(limit in 1..65u64, steps in steps(PERIOD_NS)) {
        let log = limiter(Limit::sliding_log(limit, SECOND).expect("a limit"));
        let mut passed = Passed::new();
        let mut now = 0;
        for (wait_ns, cost) in &steps {
            now += wait_ns;
            let used: u64 = passed.iter().filter(|(at, _)| at + PERIOD_NS > now).map(|(_, cost)| cost).sum();
            let fits = used.checked_add(*cost).is_some_and(|after| after <= limit);
            prop_assert_eq!(log.check_cost(&7, *cost, Nanos(now)).is_allowed(), fits);
            if fits {
                passed.push((now, *cost));
            }
        }
        prop_assert!(most_within(&passed, PERIOD_NS) <= limit);
        driven(&limiter(Limit::sliding_log(limit, SECOND).expect("a limit")), &steps)?;
    }

    /// Buckets are reported to admit twice the limit in a period: governor#16, #39, #219.
    #[test]
    fn a_strict_window_never_admits_more_than_its_limit_in_any_period(limit in 1..300u64, steps in steps(PERIOD_NS)) {
        let strict = limiter(Limit::strict_window(limit, SECOND).expect("a limit"));
        let mut passed = driven(&strict, &steps)?;
        // And the worst there is: as much as possible, as soon as possible.
        let mut now = Nanos(1_000_000_000_000);
        for _ in 0..2 * limit {
            let decision = strict.check(&7, now);
            match decision.retry_after() {
                None => passed.push((now.0, 1)),
                Some(wait) => now = now.after(wait),
            }
        }
        prop_assert!(most_within(&passed, PERIOD_NS) <= limit);
    }
}

#[test]
fn every_strict_bucket_to_300_attains_its_limit_and_never_exceeds_it() {
    for limit in 2..300u64 {
        let strict = limiter(Limit::strict_bucket(limit, SECOND, limit.div_ceil(2)).expect("a limit"));
        let (mut passed, mut now) = (Passed::new(), Nanos(0));
        while passed.len() < 3 * limit as usize {
            match strict.check(&7, now).retry_after() {
                None => passed.push((now.0, 1)),
                Some(wait) => now = now.after(wait),
            }
        }
        // Closed: both ends count.
        assert_eq!(most_within(&passed, PERIOD_NS + 1), limit, "limit {limit}");
    }
}

#[test]
fn a_stamp_of_an_earlier_window_counts_in_the_stored_one() {
    let limiter = limiter(Limit::fixed_window(3, SECOND).expect("a limit"));
    let (early, late) = (Nanos(999_999_999), Nanos(1_000_000_000));
    assert_eq!(limiter.check_cost(&1, 2, late).remaining(), 1);
    assert_eq!(limiter.check(&1, early).remaining(), 0);
    assert!(!limiter.check(&1, late).is_allowed());
}

fn days(starts: &[u64]) -> Boundaries {
    let hour = 3_600_000_000_000;
    let starts = starts.iter().map(|start| Nanos(start * hour)).collect();
    Boundaries::new(CalendarUnit::Day, "Europe/Berlin 2026a", starts).expect("boundaries")
}

#[test]
fn a_calendar_quota_begins_anew_at_each_boundary_whatever_its_length() {
    // A day of 23 hours, one of 25, and one of 24.
    let quota = limiter(Limit::calendar(2, days(&[10, 33, 58, 82])).expect("a limit"));
    let hour = |hours: u64| Nanos(hours * 3_600_000_000_000);
    for (begin, end) in [(0, 10), (10, 33), (33, 58), (58, 82)] {
        assert_eq!(quota.check_cost(&1, 2, hour(begin)).remaining(), 0);
        let denied = quota.check(&1, Nanos(hour(end).0 - 1));
        assert_eq!(denied.retry_after(), Some(Duration::from_nanos(1)), "day to hour {end}");
        assert_eq!(quota.check(&1, hour(begin)).reset_after(), SECOND * 3_600 * (end - begin) as u32);
    }
    assert!(quota.check_cost(&1, 2, hour(82)).is_allowed());
    assert!(!quota.check(&1, Nanos(u64::MAX)).is_allowed(), "a table that has run out denies");
}

#[test]
fn a_wall_clock_that_is_set_back_reopens_no_day() {
    let quota = limiter(Limit::calendar(2, days(&[24, 48])).expect("a limit"));
    let hour = |hours: u64| Nanos(hours * 3_600_000_000_000);
    assert!(quota.check_cost(&1, 2, hour(20)).is_allowed());
    assert!(quota.check_cost(&1, 2, hour(25)).is_allowed(), "set ahead: a boundary was crossed");
    assert!(!quota.check(&1, hour(20)).is_allowed(), "set back: the new day counts on");
}

#[test]
fn boundaries_that_are_no_boundaries_are_refused() {
    for starts in [vec![], vec![Nanos(1)], vec![Nanos(2), Nanos(1)], vec![Nanos(2), Nanos(2)]] {
        let count = starts.len();
        let refused = Boundaries::new(CalendarUnit::Month, "UTC", starts).expect_err("they were taken");
        assert_eq!(refused, LimitError::Boundaries { count });
    }
}
