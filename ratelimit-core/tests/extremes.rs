//! No number makes anything panic, and none makes a limit wide.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{
    AdHoc, CannotSucceed, Enforcement, Grant, HashSecret, Heir, Keep, Limit, LimitSet, Limiter, Nanos,
    Outcome, Rate, Reservation, TableError, TableSize,
};

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
        let limiter = Limiter::<u64>::new(limit, size, HashSecret([3; 16])).expect("memory");
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
        let limiter = Limiter::<u64>::new(limit, TableSize { keys: 4, sketch_bytes: 64 }, HashSecret([3; 16])).expect("memory");
        let admitted = stamps.iter().filter(|now| limiter.check(&1, Nanos(**now)).is_allowed()).count() as u64;
        let farthest = stamps.iter().max().copied().unwrap_or(0);
        prop_assert!(admitted <= burst + farthest / 1_000_000_000);
    }
}

/// `Limiter::new` for 2^64 - 1 keys panicked, and a reload to a log of 64 for a hundred million keys ended the server.
#[test]
fn a_table_that_cannot_be_had_is_an_error_and_changes_nothing() {
    let secret = HashSecret([3; 16]);
    let hour = Duration::from_secs(3_600);
    let gcra = |burst| Limit::gcra(Rate::per_hour(1), burst).expect("a limit");
    let too_large = |keys, bytes| TableError::TooLarge { keys, bytes, bytes_max: TableSize::BYTES_MAX };
    // Two words, and those of a log or of permits, for 1.45 slots a key; 1,024 stripes and seven words to align the rest.
    let bytes = |keys: u64, words: u128| u128::from(keys) * 145 / 400 * 4 * words * 8 + 1_031 * 8;
    let log = Limit::sliding_log(64, hour).expect("a limit");
    let permits = Limit::concurrency(1_024, hour).expect("a limit");
    for (limit, keys, words) in [(gcra(5), u64::MAX, 2), (log, 100_000_000, 66), (permits, 1_000_000, 2_050)]
    {
        let size = TableSize { keys, sketch_bytes: 0 };
        let refused = too_large(keys, bytes(keys, words));
        let new = Limiter::<u64>::new(limit.clone(), size, secret).err();
        assert_eq!(new, Some(refused));

        let old = Limiter::<u64>::new(gcra(3), TableSize::for_keys(10), secret).expect("memory");
        assert!(old.check_cost(&1, 2, Nanos(5)).is_allowed());
        let succeeded = old.succeed(limit.clone(), Keep::Cells, size).err();
        assert_eq!(succeeded, Some(CannotSucceed::Table(refused)));
        assert_eq!(old.check(&1, Nanos(5)).remaining(), 0, "the old one goes on");

        let mut set = LimitSet::new(secret);
        assert_eq!(set.add(limit.clone(), size, Enforcement::Enforced), Err(refused));
        let small = TableSize::for_keys(10);
        let ids = [3, 4].map(|burst| set.add(gcra(burst), small, Enforcement::Enforced).expect("memory"));
        let take = |set: &LimitSet| {
            ids.map(|id| set.check(&[set.hit(id, &1u64, 2)], Nanos(5)).expect("few hits").is_allowed())
        };
        assert_eq!(take(&set), [true, true]);
        let heir = |limit, size, of| {
            let enforcement = Enforcement::Enforced;
            Heir { limit, size, enforcement, of: Some(of), keep: Keep::Cells }
        };
        let heirs = vec![heir(gcra(30), small, ids[0]), heir(limit, size, ids[1])];
        let replaced = set.succeed(heirs, Nanos(5)).expect_err("it cannot be had");
        assert_eq!((replaced.heir, replaced.reason), (1, CannotSucceed::Table(refused)));
        assert_eq!(take(&set), [false, true], "the limits of before, and what was left of them");
    }
    let size = TableSize { keys: 1, sketch_bytes: usize::MAX };
    assert!(AdHoc::new(size, secret).is_err());
    let lowest = TableSize { keys: 0, sketch_bytes: 0 };
    assert!(Limiter::<u64>::new(gcra(1), lowest, secret).expect("memory").check(&1, Nanos(5)).is_allowed());
}

/// Ends beyond 63 bits were cut where a slot keeps them: the key was not found again, and admitted without limit.
#[test]
fn a_period_of_centuries_is_not_over_before_it_has_begun() {
    for period in [1 << 63, (1 << 63) + 5, u64::MAX - 1, u64::MAX].map(Duration::from_nanos) {
        for limit in [Limit::sliding_log(2, period), Limit::concurrency(2, period)] {
            for sketch_bytes in [0, 4_096] {
                let size = TableSize { keys: 4, sketch_bytes };
                let limit = limit.clone().expect("a limit");
                let limiter = Limiter::<u64>::new(limit, size, HashSecret([3; 16])).expect("memory");
                let admitted =
                    (1..100).filter(|now| limiter.check(&1, Nanos(now * now)).is_allowed()).count();
                assert_eq!(admitted, 2, "{period:?}");
            }
        }
    }
}
