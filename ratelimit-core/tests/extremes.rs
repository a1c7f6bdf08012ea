//! No number makes anything panic, and none makes a limit wide.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{Grant, HashSecret, Keep, Limit, Limiter, Nanos, Outcome, Rate, Reservation, TableSize};

fn any_number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 63, 64, 65, 1_023, 1_024, 1 << 31, 1 << 32, 1 << 58, 1 << 61, 1 << 62, 1 << 63];
    let near = (prop::sample::select(edges.to_vec()), 0..3u64);
    prop_oneof![
        any::<u64>(),
        0..1_000u64,
        near.prop_map(|(edge, more): (u64, u64)| edge.wrapping_add(more)),
        (0..5u64).prop_map(|less| u64::MAX - less),
    ]
}

fn any_period() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any_number().prop_map(Duration::from_nanos),
        any_number().prop_map(Duration::from_secs),
        Just(Duration::MAX),
        Just(Duration::from_secs(60)),
    ]
}

/// Limits that can be built of any numbers at all.
fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    (0..9u8, any_number(), any_number(), any_number(), any_period()).prop_map(|(kind, a, b, c, period)| {
        match kind {
            0 => Limit::gcra(Rate::new(a, period), b).ok(),
            1 => Limit::gcra_with_debt(Rate::new(a, period), b, c).ok(),
            2 => Limit::fixed_window(a, period).ok(),
            3 => Limit::sliding_window(a, period).ok(),
            4 => Limit::sliding_log(a, period).ok(),
            5 => Limit::strict_window(a, period).ok(),
            6 => Limit::concurrency(a % 1_100, period).ok(),
            7 => Boundaries::new(CalendarUnit::Day, "UTC", vec![Nanos(b.min(c)), Nanos(b.max(c))])
                .and_then(|boundaries| Limit::calendar(a, boundaries))
                .ok(),
            _ => Some(if a % 2 == 0 { Limit::Unlimited } else { Limit::DenyAll }),
        }
    })
}

type Act = (u8, u64, u64, u64);

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec((0..9u8, 0..3u64, any_number(), any_number()), 0..40)
}

fn done(
    limiter: &Limiter<u64>,
    (kind, key, cost, now): Act,
    grants: &mut Vec<Grant>,
    reservations: &mut Vec<Reservation>,
) {
    let now = Nanos(now);
    match kind {
        0..=2 => {
            let decision = limiter.check_cost(&key, cost, now);
            assert!(decision.remaining() <= decision.limit());
            assert_eq!(decision.retry_after().is_some(), decision.outcome() == Outcome::Denied);
            let _ = (decision.more_after(), decision.reset_after());
            assert!(cost <= decision.limit() || !decision.is_allowed());
        }
        3 => grants.extend(limiter.acquire(&key, cost, now).1),
        4 => reservations.extend(limiter.reserve(&key, cost, Duration::from_nanos(cost), now).1),
        5 => {
            if let Some(mut grant) = grants.pop() {
                limiter.renew(&grant, now);
                limiter.refund(grant.split(cost), now);
                limiter.refund(grant, now);
            }
        }
        6 => {
            if let Some(reservation) = reservations.pop() {
                limiter.commit(reservation, cost, now);
            }
        }
        7 => limiter.reset(&key, now),
        _ => {
            let _ = (limiter.peek(&key, cost, now), limiter.live_keys(now), limiter.overflowed());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn nothing_panics_whatever_the_numbers(limit in any_limit(), next in any_limit(), acts in acts()) {
        let Some(limit) = limit else { return Ok(()) };
        let size = TableSize { keys: 4, sketch_bytes: 64 };
        let limiter = Limiter::<u64>::new(limit, size, HashSecret([3; 16]));
        let (mut grants, mut reservations) = (Vec::new(), Vec::new());
        for act in &acts {
            done(&limiter, *act, &mut grants, &mut reservations);
        }
        let Some(Ok(limiter)) = next.map(|next| limiter.succeed(next, Keep::Share, size)) else { return Ok(()) };
        for act in &acts {
            done(&limiter, *act, &mut grants, &mut reservations);
        }
    }

    /// Words from outside: a store that was written by another clock, another limit, or is damaged.
    #[test]
    fn any_word_is_some_state_and_locks_nobody_out_for_longer_than_a_full_bucket(
        limit in any_limit(), word in any_number(), now in 0..1u64 << 58, cost in any_number(), stamp in any_number(),
    ) {
        let Some(limit) = limit else { return Ok(()) };
        let Some(stored) = limit.stored() else { return Ok(()) };
        let (word, now) = (word >> 1, Nanos(now));
        let step = stored.decide(word, cost, now);
        prop_assert!(step.next.is_none_or(|next| next >> 63 == 0));
        let _ = (stored.refunded(word, stamp, cost, now), stored.debited(word, cost, now), stored.is_dead(word, now));
        let clamped = stored.clamped(word, now);
        prop_assert!(clamped <= word);
        if let Limit::Gcra(gcra) = &limit {
            let wait = stored.decide(clamped, 1, now).decision.reset_after();
            let full = Limit::gcra_with_debt(gcra.rate(), gcra.burst(), 0).expect("a limit");
            let Limit::Gcra(full) = full else { panic!("a bucket") };
            let two_ticks = full.clock().instant(2).since(Nanos(0));
            prop_assert!(gcra.debt_max() > 0 || wait <= full.refill_time() + two_ticks);
        }
    }

    /// A clock that goes wherever it wants never opens a limit: what a limit that takes years to refill admits is its size.
    #[test]
    fn a_clock_that_jumps_admits_what_its_farthest_stamp_would(
        burst in 1..50u64, stamps in prop::collection::vec(0..1u64 << 40, 1..200),
    ) {
        let limit = Limit::gcra(Rate::per_second(1), burst).expect("a limit");
        let limiter = Limiter::<u64>::new(limit, TableSize { keys: 4, sketch_bytes: 64 }, HashSecret([3; 16]));
        let admitted = stamps.iter().filter(|now| limiter.check(&1, Nanos(**now)).is_allowed()).count() as u64;
        let farthest = stamps.iter().max().copied().unwrap_or(0);
        prop_assert!(admitted <= burst + farthest / 1_000_000_000);
    }
}
