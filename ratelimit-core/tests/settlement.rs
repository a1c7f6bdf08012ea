//! Grants of several limits, settled at what a request has really cost.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Enforcement, HashSecret, Limit, LimitId, LimitSet, Nanos, Rate, TableSize};

const SIZE: TableSize = TableSize { keys: 100, sketch_bytes: 4_096 };
const SECOND_NS: u64 = 1_000_000_000;

fn set(limits: Vec<Limit>) -> (LimitSet, Vec<LimitId>) {
    let mut set = LimitSet::new(HashSecret([7; 16]));
    let ids = limits
        .into_iter()
        .map(|limit| set.add(limit, SIZE, Enforcement::Enforced).expect("memory"))
        .collect();
    (set, ids)
}

fn bucket(burst: u64, debt_max: u64) -> Limit {
    Limit::gcra_with_debt(Rate::per_second(1), burst, debt_max).expect("a limit")
}

fn left(set: &LimitSet, id: LimitId, now: Nanos) -> u64 {
    set.peek(&[set.hit(id, "key", 0)], now).expect("few hits").decisions()[0].remaining()
}

proptest! {
    #[test]
    fn settled_at_once_it_is_as_if_the_real_cost_had_been_charged(taken in 1_u64..=50, real in 0_u64..=80) {
        let (set, ids) = set(vec![bucket(50, 50), bucket(100, 50)]);
        let hits = [set.hit(ids[0], "key", taken), set.hit(ids[1], "key", taken)];
        let (_, grant) = set.acquire(&hits, Nanos(0)).expect("few hits");
        set.settle(grant.expect("a grant"), &[hits[0].with_cost(real)], Nanos(0));
        prop_assert_eq!(left(&set, ids[0], Nanos(0)), 50_u64.saturating_sub(real));
        // What is not named stays as it was taken.
        prop_assert_eq!(left(&set, ids[1], Nanos(0)), 100 - taken);
        // What is owed has to refill first.
        let owed_ns = real.saturating_sub(50) * SECOND_NS;
        prop_assert_eq!(left(&set, ids[0], Nanos(owed_ns + SECOND_NS)), (50 - 50_u64.min(real) + 1).min(50));
    }

    #[test]
    fn settled_late_nothing_comes_back_that_has_refilled_anyway(
        taken in 1_u64..=50, real in 0_u64..=50, late_ns in 0..60 * SECOND_NS,
    ) {
        let (set, ids) = set(vec![bucket(50, 0)]);
        let hit = set.hit(ids[0], "key", taken);
        let (_, grant) = set.acquire(&[hit], Nanos(0)).expect("few hits");
        let real = real.min(taken);
        set.settle(grant.expect("a grant"), &[hit.with_cost(real)], Nanos(late_ns));
        let at_most = (50 - real + late_ns / SECOND_NS).min(50);
        prop_assert!(left(&set, ids[0], Nanos(late_ns)) <= at_most);
    }
}

#[test]
fn permits_come_back_together_and_grants_of_other_sets_are_ignored() {
    let permits = || vec![Limit::concurrency(3, Duration::from_secs(60)).expect("a limit")];
    let ((mine, ids), (other, other_ids)) = (set(permits()), set(permits()));
    let hit = mine.hit(ids[0], "key", 2);
    let (_, grant) = mine.acquire(&[hit], Nanos(0)).expect("few hits");
    assert_eq!(left(&mine, ids[0], Nanos(1)), 1);
    mine.settle(grant.expect("a grant"), &[hit.with_cost(0)], Nanos(1));
    assert_eq!(left(&mine, ids[0], Nanos(1)), 3);

    let (_, grant) = mine.acquire(&[hit], Nanos(2)).expect("few hits");
    let (_, _others) = other.acquire(&[other.hit(other_ids[0], "key", 2)], Nanos(2)).expect("few hits");
    other.settle(grant.expect("a grant"), &[other.hit(other_ids[0], "key", 0)], Nanos(3));
    assert_eq!((left(&mine, ids[0], Nanos(3)), left(&other, other_ids[0], Nanos(3))), (1, 1));
}
