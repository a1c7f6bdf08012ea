//! What is settled later, calendars and strict windows, each beside a model in whole milliseconds that is exact.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{Grant, HashSecret, Limit, Limiter, Nanos, Outcome, Rate, Reservation, TableSize};

/// A cell takes so long: a power of two, so that each millisecond is a whole number of ticks.
const CELL_MS: u64 = 1_024;

fn limiter(limit: Limit) -> Limiter<u64> {
    Limiter::new(limit, TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([8; 16])).expect("memory")
}

fn at_ms(ms: u64) -> Nanos {
    Nanos::from_duration(Duration::from_millis(ms))
}

/// A bucket as it is defined: `owed_ms` is what it still takes to be full.
#[derive(Debug)]
struct Bucket {
    burst: u64,
    debt_max: u64,
    owed_ms: u64,
    now_ms: u64,
}

impl Bucket {
    fn advance(&mut self, now_ms: u64) {
        self.owed_ms = self.owed_ms.saturating_sub(now_ms - self.now_ms);
        self.now_ms = now_ms;
    }

    fn charge(&mut self, cost: u64) -> bool {
        let fits = self.owed_ms + cost * CELL_MS <= self.burst * CELL_MS;
        self.owed_ms += if fits { cost * CELL_MS } else { 0 };
        fits
    }

    fn debit(&mut self, cost: u64) {
        let most = (self.burst + self.debt_max) * CELL_MS;
        self.owed_ms = (self.owed_ms + cost * CELL_MS).min(most).max(self.owed_ms);
    }

    /// What was granted at `granted_ms` comes back, less what has refilled since.
    fn give_back(&mut self, cost: u64, granted_ms: u64) {
        let aged = (cost * CELL_MS).saturating_sub(self.now_ms - granted_ms);
        self.owed_ms = self.owed_ms.saturating_sub(aged);
    }

    fn remaining(&self) -> u64 {
        (self.burst * CELL_MS).saturating_sub(self.owed_ms) / CELL_MS
    }
}

#[derive(Debug, Clone)]
enum Act {
    Acquire(u64),
    Refund(usize, u64),
    Reserve(u64, u64),
    Commit(usize, u64),
    Release(usize),
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let wait = prop_oneof![Just(0u64), 0..CELL_MS, 0..6 * CELL_MS, Just(CELL_MS)];
    let act = prop_oneof![
        3 => (0..7u64).prop_map(Act::Acquire),
        2 => (0..8usize, 0..7u64).prop_map(|(which, part)| Act::Refund(which, part)),
        3 => (1..7u64, 0..4 * CELL_MS).prop_map(|(cost, within_ms)| Act::Reserve(cost, within_ms)),
        2 => (0..8usize, 0..12u64).prop_map(|(which, cost)| Act::Commit(which, cost)),
        1 => (0..8usize).prop_map(Act::Release),
    ];
    prop::collection::vec((wait, act), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn grants_and_reservations_leave_what_the_model_of_a_bucket_has_left(
        burst in 1..12u64, debt_max in 0..8u64, acts in acts(),
    ) {
        let rate = Rate::new(1, Duration::from_millis(CELL_MS));
        let real = limiter(Limit::gcra_with_debt(rate, burst, debt_max).expect("a limit"));
        let mut model = Bucket { burst, debt_max, owed_ms: 0, now_ms: 0 };
        let mut grants: Vec<(u64, Grant)> = Vec::new();
        let mut reservations: Vec<(u64, Reservation)> = Vec::new();
        let mut now_ms = 0;
        for (wait_ms, act) in acts {
            now_ms += wait_ms;
            model.advance(now_ms);
            let now = at_ms(now_ms);
            match act {
                Act::Acquire(cost) => {
                    let (decision, grant) = real.acquire(&7, cost, now);
                    prop_assert_eq!(decision.is_allowed(), model.charge(cost));
                    grants.extend(grant.map(|grant| (now_ms, grant)));
                }
                Act::Refund(which, part) if !grants.is_empty() => {
                    let which = which % grants.len();
                    let (granted_ms, grant) = &mut grants[which];
                    let back = grant.split(part);
                    model.give_back(back.cost(), *granted_ms);
                    real.refund(back, now);
                }
                Act::Reserve(cost, within_ms) => {
                    let (decision, reservation) = real.reserve(&7, cost, Duration::from_millis(within_ms), now);
                    prop_assert_eq!(decision.is_allowed(), model.charge(cost));
                    reservations.extend(reservation.map(|reservation| (now_ms, reservation)));
                }
                Act::Commit(which, cost) if !reservations.is_empty() => {
                    let (reserved_ms, reservation) = reservations.remove(which % reservations.len());
                    let taken = reservation.cost();
                    if cost > taken {
                        model.debit(cost - taken);
                    } else if now < reservation.expires_at() {
                        model.give_back(taken - cost, reserved_ms);
                    }
                    real.commit(reservation, cost, now);
                }
                Act::Release(which) if !reservations.is_empty() => {
                    let (reserved_ms, reservation) = reservations.remove(which % reservations.len());
                    if now < reservation.expires_at() {
                        model.give_back(reservation.cost(), reserved_ms);
                    }
                    real.release(reservation, now);
                }
                Act::Refund(..) | Act::Commit(..) | Act::Release(..) => {}
            }
            prop_assert_eq!(real.peek(&7, 0, now).remaining(), model.remaining(), "at {} ms", now_ms);
        }
    }

    /// Days of any length, a wall clock that jumps in both directions, and what is given back.
    #[test]
    fn a_calendar_quota_admits_what_is_left_of_the_farthest_day_that_was_charged(
        limit in 1..30u64,
        lengths in prop::collection::vec(1..100u64, 1..12),
        acts in prop::collection::vec((0..400u64, 0..9u64, any::<bool>()), 1..120),
    ) {
        let starts: Vec<u64> = lengths.iter().scan(0, |end, length| { *end += length; Some(*end) }).collect();
        let mut starts = starts;
        starts.push(starts.last().copied().unwrap_or(0) + 1);
        let boundaries = starts.iter().map(|start| at_ms(*start)).collect();
        let boundaries = Boundaries::new(CalendarUnit::Day, "any", boundaries).expect("ascending");
        let real = limiter(Limit::calendar(limit, boundaries).expect("a limit"));
        // The model: the day of the last charge, and its count.
        let (mut day, mut used) = (0, 0);
        let day_of = |at: u64| starts.iter().filter(|start| **start <= at).count();
        for (at, cost, gives_back) in acts {
            let here = day_of(at).max(day);
            let here_used = if here == day { used } else { 0 };
            let fits = cost <= limit && here_used + cost <= limit;
            let (decision, grant) = real.acquire(&7, cost, at_ms(at));
            prop_assert_eq!(decision.is_allowed(), fits);
            let outcome = if cost > limit { Outcome::NeverFits } else if fits { Outcome::Allowed } else { Outcome::Denied };
            prop_assert_eq!(decision.outcome(), outcome);
            if fits && cost > 0 {
                (day, used) = (here, here_used + cost);
            }
            if let Some(grant) = grant.filter(|_| gives_back) {
                real.refund(grant, at_ms(at));
                used -= cost;
            }
            let expected = if here == day { limit - used } else { limit };
            prop_assert_eq!(real.peek(&7, 0, at_ms(at)).remaining(), expected, "at {}", at);
        }
    }

    /// Above 64 a strict window is a bucket of half the limit; what it may admit is the model's.
    #[test]
    fn a_strict_window_is_the_bucket_that_its_split_says(
        limit in 65..400u64,
        steps in prop::collection::vec((0..3_000u64, 0..30u64), 1..100),
    ) {
        let period = Duration::from_secs(1);
        let strict = limiter(Limit::strict_window(limit, period).expect("a limit"));
        let burst = limit.div_ceil(2);
        let split = limiter(Limit::strict_bucket(limit, period, burst).expect("a limit"));
        let Limit::Gcra(bucket) = strict.limit() else { panic!("a bucket") };
        prop_assert_eq!((bucket.burst(), bucket.rate().count), (burst, limit - burst));
        let mut now_ms = 0;
        for (wait_ms, cost) in steps {
            now_ms += wait_ms;
            prop_assert_eq!(strict.check_cost(&7, cost, at_ms(now_ms)), split.check_cost(&7, cost, at_ms(now_ms)));
        }
    }
}
