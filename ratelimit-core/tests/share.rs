//! Shares of a limit, and counters that follow others.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Enforcement, HashSecret, Limit, LimitSet, Nanos, Rate, TableSize};

fn nodes(nodes: u32) -> NonZeroU32 {
    NonZeroU32::new(nodes).expect("not zero")
}

fn set(limit: &Limit) -> LimitSet {
    let mut set = LimitSet::new(HashSecret([3; 16]));
    set.add(limit.clone(), TableSize { keys: 100, sketch_bytes: 0 }, Enforcement::Enforced).expect("memory");
    set
}

fn taken(set: &LimitSet, most: u64, now: Nanos) -> u64 {
    let id = set.ids().next().expect("a limit");
    let hit = set.hit(id, "key", 1);
    (0..most).take_while(|_| set.check(&[hit], now).expect("one hit").is_allowed()).count() as u64
}

fn limits() -> impl Strategy<Value = Limit> {
    let gcra = (1..50u64, 1..5_000u64, 1..40u64)
        .prop_map(|(count, ms, burst)| Limit::gcra(Rate::new(count, Duration::from_millis(ms)), burst));
    let window = (1..50u64, 1..5_000u64).prop_map(|(limit, ms)| {
        Limit::fixed_window_from(limit, Duration::from_millis(ms), Duration::from_millis(ms / 3))
    });
    prop_oneof![gcra, window].prop_map(|limit| limit.expect("a limit"))
}

proptest! {
    #[test]
    fn the_shares_of_all_nodes_admit_at_once_at_most_one_less_than_nodes_more_than_the_limit(
        limit in limits(), count in 1..9u32,
    ) {
        let share = limit.share(nodes(count)).expect("a share");
        let together: u64 = (0..count).map(|_| taken(&set(&share), 100, Nanos(7))).sum();
        prop_assert!(together >= limit.size());
        prop_assert!(together < limit.size() + u64::from(count));
    }

    #[test]
    fn what_follows_another_counter_never_has_more_left_and_a_share_of_one_has_as_much(
        limit in limits(), used in 0..60u64, wait_ms in 0..3_000u64, count in 1..5u32,
    ) {
        let (there, start) = (set(&limit), Nanos(11));
        taken(&there, used, start);
        let now = start.after(Duration::from_millis(wait_ms));
        let id = there.ids().next().expect("a limit");
        let seen = there.peek(&[there.hit(id, "key", 0)], now).expect("one hit").decisions()[0];
        let share = limit.share(nodes(count)).expect("a share");
        let here = set(&share);
        here.observe(&here.hit(id, "key", 0), &seen, now);
        let left = taken(&here, 100, now);
        prop_assert!(left <= seen.remaining(), "{left} of {seen:?}");
        if count == 1 {
            prop_assert!(left + 1 >= seen.remaining(), "{left} of {seen:?}");
        }
        // What is said later of less use gives nothing back.
        let idle = set(&limit);
        let unused = idle.peek(&[idle.hit(id, "key", 0)], now).expect("one hit").decisions()[0];
        here.observe(&here.hit(id, "key", 0), &unused, now);
        prop_assert_eq!(taken(&here, 100, now), 0);
    }
}
