//! Policies that come with each request, against an exact model, and the defects that other servers of them were seen to
//! have.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{AdHoc, AdHocPolicy, HashSecret, LimitError, Nanos, Outcome, Rate, TableSize};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn keys() -> AdHoc {
    AdHoc::new(TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([1; 16])).expect("memory")
}

fn policy(count: u64, period: Duration, burst: u64) -> AdHocPolicy {
    AdHocPolicy::new(Rate::new(count, period), burst).expect("a policy that can be kept")
}

fn admitted(keys: &AdHoc, key: u64, policy: &AdHocPolicy, now: Nanos, most: u64) -> u64 {
    (0..most).take_while(|_| keys.check(&key, policy, 1, now).is_allowed()).count() as u64
}

/// One key in wide arithmetic: the instant at which it is full, in eighths of a nanosecond. A cell is rounded up to whole
/// eighths, which is all that separates a policy from the exact one.
#[derive(Default)]
struct Model {
    full_at: u128,
}

#[derive(Debug)]
struct Asked {
    count: u64,
    period: Duration,
    burst: u64,
    cost: u64,
    now: Nanos,
}

impl Asked {
    fn cell(&self) -> u128 {
        (self.period.as_nanos() * 8).div_ceil(u128::from(self.count))
    }

    fn capacity(&self) -> u128 {
        self.cell() * u128::from(self.burst)
    }

    fn tick(&self) -> u128 {
        u128::from(self.now.0) * 8
    }
}

impl Model {
    fn outcome(&self, asked: &Asked) -> Outcome {
        let owed = self.full_at.max(asked.tick()) + asked.cell() * u128::from(asked.cost);
        if asked.cost > asked.burst {
            Outcome::NeverFits
        } else if asked.cost == 0 || owed <= asked.tick() + asked.capacity() {
            Outcome::Allowed
        } else {
            Outcome::Denied
        }
    }

    fn charge(&mut self, asked: &Asked) {
        if asked.cost > 0 && self.outcome(asked) == Outcome::Allowed {
            self.full_at = self.full_at.max(asked.tick()) + asked.cell() * u128::from(asked.cost);
        }
    }

    fn remaining(&self, asked: &Asked) -> u64 {
        let owed = self.full_at.saturating_sub(asked.tick());
        (asked.capacity().saturating_sub(owed) / asked.cell()) as u64
    }

    fn reset_after(&self, asked: &Asked) -> Duration {
        Duration::from_nanos(self.full_at.saturating_sub(asked.tick()).div_ceil(8) as u64)
    }
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let count = prop_oneof![1..20u64, 1..2_000_000u64];
    let period = prop_oneof![1..5u64, 1..100_000u64].prop_map(Duration::from_secs);
    let cost = prop_oneof![4 => Just(1), 2 => 0..12u64, 1 => any::<u64>()];
    (count, period, 1..12u64, cost, 0..40_000_000_000u64)
        .prop_map(|(count, period, burst, cost, step)| Asked { count, period, burst, cost, now: Nanos(step) })
}

proptest! {
    #[test]
    fn every_answer_is_that_of_the_model_whichever_policies_follow_each_other(
        mut asked in prop::collection::vec(any_asked(), 1..60), same: bool,
    ) {
        let (keys, mut model, mut now) = (keys(), Model::default(), Nanos(0));
        let (count, period, burst) = (asked[0].count, asked[0].period, asked[0].burst);
        for asked in &mut asked {
            now = now.after(Duration::from_nanos(asked.now.0));
            asked.now = now;
            if same {
                (asked.count, asked.period, asked.burst) = (count, period, burst);
            }
            let policy = policy(asked.count, asked.period, asked.burst);
            let look = keys.peek("key", &policy, asked.cost, now);
            let decision = keys.check("key", &policy, asked.cost, now);
            prop_assert_eq!(decision.outcome(), model.outcome(asked));
            prop_assert_eq!(look.outcome(), decision.outcome());
            model.charge(asked);
            prop_assert_eq!(decision.remaining(), model.remaining(asked));
            prop_assert_eq!(decision.reset_after(), model.reset_after(asked));
            prop_assert_eq!(decision.limit(), asked.burst);
            prop_assert_eq!(decision.retry_after().is_some(), decision.outcome() == Outcome::Denied);
            if let Some(wait) = decision.retry_after() {
                let early = now.after(wait.saturating_sub(Duration::from_nanos(1)));
                prop_assert!(keys.peek("key", &policy, asked.cost, now.after(wait)).is_allowed());
                prop_assert!(!keys.peek("key", &policy, asked.cost, early).is_allowed());
            }
        }
    }

    #[test]
    fn f2_after_a_drain_and_any_time_idle_no_more_pass_than_have_refilled(
        count in 1..2_000_000u64, seconds in 1..1_000u64, burst in 1..30u64, idle_ns: u32,
    ) {
        let (keys, period) = (keys(), Duration::from_secs(seconds));
        let policy = policy(count, period, burst);
        prop_assert_eq!(admitted(&keys, 7, &policy, Nanos(5), 100), burst);
        let refilled = u128::from(idle_ns) * u128::from(count) / period.as_nanos();
        let passed = admitted(&keys, 7, &policy, Nanos(5 + u64::from(idle_ns)), 100);
        prop_assert!(u128::from(passed) <= refilled.min(u128::from(burst)));
        let slower = refilled * 999 / 1_000;
        prop_assert!(u128::from(passed) >= slower.min(u128::from(burst)).saturating_sub(1));
    }

    #[test]
    fn nothing_panics_and_no_bucket_grows_whatever_the_numbers(
        asked in prop::collection::vec((any::<[u64; 5]>(), any::<u32>(), 0..3u8), 1..20),
    ) {
        let keys = keys();
        for ([count, seconds, burst, cost, now], nanos, key) in asked {
            let wide = Rate::new(count, Duration::new(seconds, nanos % 1_000_000_000));
            let narrow = Rate::new(count % 1_000, Duration::from_nanos(seconds));
            for (rate, burst, cost, now) in [(wide, burst, cost, now), (narrow, burst % 50, cost % 50, now >> 6)] {
                if let Ok(policy) = AdHocPolicy::new(rate, burst) {
                    let decision = keys.check(&u64::from(key), &policy, cost, Nanos(now));
                    prop_assert!(decision.remaining() <= burst && decision.limit() == burst);
                    let _ = (decision.retry_after(), decision.reset_after(), decision.more_after());
                    let _ = (policy.cell_time(), keys.live_keys(Nanos(now)));
                }
            }
        }
    }
}

#[test]
fn f2_a_burst_of_one_admits_one_and_no_burst_is_cut_to_32_bits() {
    assert_eq!(admitted(&keys(), 1, &policy(1, SECOND, 1), Nanos(0), 10_000), 1);
    let (keys, large) = (keys(), (1 << 32) + 1);
    let policy = policy(1_000_000_000, SECOND, large);
    assert!(keys.check(&1u64, &policy, large, Nanos(0)).is_allowed());
    assert!(!keys.check(&1u64, &policy, 1, Nanos(0)).is_allowed());
}

#[test]
fn f3_what_cannot_be_counted_is_refused_and_nothing_wraps() {
    for (count, period, burst) in [
        (1, DAY, 213_504),
        (1, DAY, 1_000_000),
        (600_000_001, SECOND, 10),
        (3_000_000_000, SECOND, 1),
        (1, Duration::from_secs(u64::MAX / 1_000_000_000), 1),
        (1, SECOND, u64::MAX),
        (u64::MAX, Duration::from_nanos(1), 1),
    ] {
        let refused = AdHocPolicy::new(Rate::new(count, period), burst);
        assert!(matches!(refused, Err(LimitError::DoesNotFit { .. })), "{count} per {period:?}, {burst}");
    }
    assert_eq!(AdHocPolicy::new(Rate::new(0, SECOND), 1), Err(LimitError::ZeroCount));
    assert_eq!(AdHocPolicy::new(Rate::new(1, Duration::ZERO), 1), Err(LimitError::ZeroPeriod));
    assert_eq!(AdHocPolicy::new(Rate::new(1, SECOND), 0), Err(LimitError::ZeroBurst));
}

#[test]
fn f3_accepted_rates_are_never_exceeded_in_a_long_run() {
    for (count, period) in [(7, SECOND), (999_999, SECOND), (1_000_000_000, SECOND), (3, DAY)] {
        let (keys, policy) = (keys(), policy(count, period, 5));
        // At each step the time of six cells has passed, so a full bucket is asked for again.
        let step = Duration::from_nanos((period.as_nanos() * 6).div_ceil(u128::from(count)) as u64);
        let mut now = Nanos(0);
        for _ in 0..200 {
            assert_eq!(admitted(&keys, 1, &policy, now, 10), 5);
            now = now.after(step);
        }
        // Cell by cell, as soon as each is there: never earlier than the rate says.
        let begin = now;
        let mut cells = 0u128;
        for _ in 0..10_000 {
            let decision = keys.check(&2u64, &policy, 1, now);
            cells += u128::from(decision.is_allowed());
            now = now.after(decision.retry_after().unwrap_or_default());
        }
        let exact = now.since(begin).as_nanos() * u128::from(count) / period.as_nanos();
        assert!(cells <= 5 + exact + 1, "{count} per {period:?}: {cells} cells in the time of {exact}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "threads that race are the test")]
fn n_plus_one_requests_at_once_admit_exactly_n_under_two_policies_at_a_time() {
    for round in 0..50u64 {
        let (keys, passed) = (keys(), AtomicU64::new(0));
        let (one, other) = (policy(1, DAY, 100), policy(2, DAY * 2, 100));
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let policy = if thread.is_multiple_of(2) { &one } else { &other };
                let (keys, passed) = (&keys, &passed);
                scope.spawn(move || {
                    passed.fetch_add(admitted(keys, round, policy, Nanos(round), 101), Ordering::Relaxed)
                });
            }
        });
        assert_eq!(passed.into_inner(), 100);
    }
}

#[test]
fn f6_a_flood_of_keys_denies_some_early_and_gives_nobody_a_second_burst() {
    for sketch_bytes in [0, 4_096] {
        let keys = AdHoc::new(TableSize { keys: 100, sketch_bytes }, HashSecret([3; 16])).expect("memory");
        let policy = policy(1, DAY, 2);
        let mut victim = admitted(&keys, u64::MAX, &policy, Nanos(0), 9);
        for flood in 0..20_000u64 {
            assert!(admitted(&keys, flood, &policy, Nanos(flood), 9) <= 2);
            if flood.is_multiple_of(100) {
                victim += admitted(&keys, u64::MAX, &policy, Nanos(flood), 9);
            }
        }
        assert_eq!(victim, 2);
        assert!(keys.overflowed() > 0);
    }
}

#[test]
fn a_key_that_is_reset_is_full_again() {
    let (keys, policy) = (keys(), policy(1, DAY, 3));
    assert_eq!(admitted(&keys, 1, &policy, Nanos(1), 9), 3);
    keys.reset(&1u64);
    assert_eq!(admitted(&keys, 1, &policy, Nanos(1), 9), 3);
    assert_eq!(keys.live_keys(Nanos(1)), 1);
}
