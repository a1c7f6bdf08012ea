//! Logs and permits that change: what was used stays used, and what is held stays held.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Grant, HashSecret, Keep, Limit, Limiter, Nanos, Rate, TableSize};

const SECRET: HashSecret = HashSecret([6; 16]);
const ROOMY: TableSize = TableSize { keys: 100, sketch_bytes: 1 << 12 };
/// 64 slots, which fewer than a hundred keys fill.
const SMALL: TableSize = TableSize { keys: 1, sketch_bytes: 1 << 12 };

fn log(limit: u64, period: u64) -> Limit {
    Limit::sliding_log(limit, Duration::from_nanos(period)).expect("a limit")
}

fn limiter(limit: Limit, size: TableSize) -> Limiter<u64> {
    Limiter::new(limit, size, SECRET).expect("memory")
}

fn left(limiter: &Limiter<u64>, key: u64, now: u64) -> u64 {
    limiter.peek(&key, 0, Nanos(now)).remaining()
}

fn taken(limiter: &Limiter<u64>, key: u64, count: u64, now: u64) {
    for _ in 0..count {
        assert!(limiter.check(&key, Nanos(now)).is_allowed());
    }
}

fn succeeded(limiter: &Limiter<u64>, limit: Limit) -> Limiter<u64> {
    limiter.succeed(limit, Keep::Cells, ROOMY).expect("a successor")
}

#[test]
fn a_log_keeps_its_newest_cells_for_the_new_period() {
    let old = limiter(log(5, 100), ROOMY);
    (10..14).for_each(|now| taken(&old, 1, 1, now));
    let longer = succeeded(&old, log(5, 1_000));
    assert_eq!([20, 1_009, 1_010, 1_012, 1_013].map(|now| left(&longer, 1, now)), [1, 1, 2, 4, 5]);

    let old = limiter(log(5, 1_000), ROOMY);
    (10..14).for_each(|now| taken(&old, 1, 1, now));
    let shorter = succeeded(&old, log(5, 100));
    assert_eq!([20, 119, 120].map(|now| left(&shorter, 1, now)), [1, 1, 5], "a new period from the change");

    let old = limiter(log(5, 100), ROOMY);
    (10..14).for_each(|now| taken(&old, 1, 1, now));
    let smaller = succeeded(&old, log(2, 100));
    assert_eq!([20, 111, 112, 113].map(|now| left(&smaller, 1, now)), [0, 0, 1, 2], "the two newest count");
}

#[test]
fn a_larger_log_gives_nobody_more_at_once_unless_that_is_asked_for() {
    for (keep, expected) in [(Keep::Cells, 2), (Keep::Share, 4)] {
        let old = limiter(log(5, 100), ROOMY);
        taken(&old, 1, 3, 10);
        let new = old.succeed(log(10, 100), keep, ROOMY).expect("a successor");
        assert_eq!(
            [left(&new, 1, 20), left(&new, 2, 20), left(&new, 1, 120)],
            [expected, 10, 10],
            "{keep:?}"
        );
    }
}

#[test]
fn from_kind_to_kind_what_was_not_left_counts_as_used_for_a_new_period() {
    let period = Duration::from_nanos(1_000);
    let kinds = |size| {
        [
            log(size, 1_000),
            Limit::concurrency(size, period).expect("a limit"),
            Limit::fixed_window(size, period).expect("a limit"),
            Limit::gcra(Rate::new(size, period), size).expect("a limit"),
        ]
    };
    for from in kinds(5) {
        for to in kinds(8) {
            if std::mem::discriminant(&from) == std::mem::discriminant(&to) {
                continue;
            }
            let old = limiter(from.clone(), ROOMY);
            taken(&old, 1, 3, 10);
            let new = succeeded(&old, to.clone());
            let seen = [left(&new, 1, 20), left(&new, 2, 20), left(&new, 1, 1_100)];
            assert_eq!(seen, [2, 8, 8], "{from:?} to {to:?}");
        }
    }
}

#[test]
fn more_permits_than_there_are_now_stay_held_and_can_be_released() {
    let permits = |count| Limit::concurrency(count, Duration::from_nanos(1_000)).expect("a limit");
    let old = limiter(permits(5), ROOMY);
    let mut grants: Vec<Grant> = (0..5).map(|_| old.acquire(&1, 1, Nanos(10)).1.expect("a permit")).collect();
    let new = succeeded(&old, permits(2));
    for grant in grants.drain(..3) {
        assert!(!new.check(&1, Nanos(20)).is_allowed());
        // Whoever got it of the old one need not know of the new one.
        old.refund(grant, Nanos(20));
    }
    let denied = new.check(&1, Nanos(20));
    assert_eq!(denied.retry_after(), Some(Duration::from_nanos(990)), "two are held by two");
    assert!(new.renew(&grants[0], Nanos(30)));
    new.refund(grants.remove(1), Nanos(30));
    assert!(new.check(&1, Nanos(30)).is_allowed());
    assert_eq!([1_029, 1_030].map(|now| left(&new, 1, now)), [0, 2]);
}

/// What may be asked of a key whose log changes.
#[derive(Debug, Clone)]
enum Act {
    Take(u64, u64),
    Change(u64, u64),
}

fn acts(keys: u64) -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        8 => (0..keys, 1..4u64).prop_map(|(key, cost)| Act::Take(key, cost)),
        1 => (1..12u64, 1..2_000u64).prop_map(|(limit, period)| Act::Change(limit, period)),
    ];
    prop::collection::vec((0..300u64, act), 1..150)
}

/// What each key was admitted, and the largest limit and the shortest period that there were.
type Admitted = (HashMap<u64, Vec<(u64, u64)>>, u64, u64);

fn run(first: (u64, u64), size: TableSize, acts: &[(u64, Act)]) -> Result<Admitted, TestCaseError> {
    let mut current = limiter(log(first.0, first.1), size);
    let (mut largest, mut shortest, mut now) = (first.0, first.1, 1);
    let mut admitted: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    // The others keep the table full, if it is a small one.
    (1_000..1_100u64).for_each(|key| {
        current.check(&key, Nanos(now));
    });
    for (wait, act) in acts {
        now += wait;
        match act {
            Act::Take(key, cost) => {
                if current.check_cost(key, *cost, Nanos(now)).is_allowed() {
                    admitted.entry(*key).or_default().push((now, *cost));
                }
            }
            Act::Change(limit, period) => {
                let had = left(&current, 0, now);
                let all = had == current.limit().size();
                let Ok(next) = current.succeed(log(*limit, *period), Keep::Cells, size) else { continue };
                current = next;
                let has = left(&current, 0, now);
                prop_assert!(has <= had || all, "{had} became {has}");
                (largest, shortest) = (largest.max(*limit), shortest.min(*period));
            }
        }
    }
    Ok((admitted, largest, shortest))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn logs_that_change_admit_the_largest_limit_in_the_shortest_period_at_most(
        first in (1..12u64, 1..2_000u64), is_small: bool, acts in acts(4),
    ) {
        let size = if is_small { SMALL } else { ROOMY };
        let (admitted, largest, shortest) = run(first, size, &acts)?;
        for cells in admitted.values() {
            for (from, _) in cells {
                let within = cells.iter().filter(|(at, _)| (*from..from + shortest).contains(at));
                prop_assert!(within.map(|(_, cost)| cost).sum::<u64>() <= largest);
            }
        }
    }

    /// Against a model that knows who holds what: a change only changes the number, and how long is held what is taken from then on.
    #[test]
    fn permits_that_change_are_those_that_are_held(
        first in 1..6u64,
        acts in prop::collection::vec((0..60u64, 0..4u8, 1..6u64, 50..200u64), 1..120),
    ) {
        let permits = |count, expiry| Limit::concurrency(count, Duration::from_nanos(expiry)).expect("a limit");
        let mut current = limiter(permits(first, 100), ROOMY);
        let (mut count, mut expiry, mut now) = (first, 100, 1);
        let mut held: Vec<(Option<Grant>, u64, u64)> = Vec::new();
        for (wait, kind, number, length) in acts {
            now += wait;
            let live = |held: &[(Option<Grant>, u64, u64)]| -> u64 {
                held.iter().filter(|(grant, _, end)| grant.is_some() && *end > now).map(|(_, cost, _)| cost).sum()
            };
            let which = number as usize % held.len().max(1);
            match kind {
                0 | 1 => {
                    let (decision, grant) = current.acquire(&1, number, Nanos(now));
                    prop_assert_eq!(decision.is_allowed(), live(&held) + number <= count);
                    held.extend(grant.map(|grant| (Some(grant), number, now + expiry)));
                }
                2 if !held.is_empty() && length < 120 => {
                    if let Some(grant) = held[which].0.take() {
                        current.refund(grant, Nanos(now));
                    }
                }
                2 if !held.is_empty() => {
                    if let (Some(grant), _, end) = &mut held[which] {
                        prop_assert_eq!(current.renew(grant, Nanos(now)), *end > now);
                        *end = if *end > now { now + expiry } else { *end };
                    }
                }
                _ => {
                    let Ok(next) = current.succeed(permits(number, length), Keep::Cells, ROOMY) else { continue };
                    (current, count, expiry) = (next, number, length);
                }
            }
            prop_assert_eq!(left(&current, 1, now), count.saturating_sub(live(&held)));
        }
    }
}
