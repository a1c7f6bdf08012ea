//! A limit that changes while it is in use.

#![expect(clippy::disallowed_methods, reason = "one claim is about threads")]

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ratelimit_core::{
    CannotSucceed, GENERATIONS_MAX, HashSecret, Heir, Keep, Limit, Limiter, Nanos, Rate, TableSize,
};

const HOUR: Duration = Duration::from_secs(3_600);
const SIZE: TableSize = TableSize { keys: 1_000, sketch_bytes: 1 << 16 };

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

fn limiter(limit: Limit) -> Limiter<u64> {
    Limiter::new(limit, SIZE, HashSecret([1; 16])).expect("memory")
}

fn left(limiter: &Limiter<u64>, key: u64, now: Nanos) -> u64 {
    limiter.peek(&key, 0, now).remaining()
}

#[test]
fn each_key_keeps_what_it_had_left_and_new_ones_have_the_new_size() {
    let old = limiter(bucket(10));
    old.check_cost(&1, 7, Nanos(5));
    let new = old.succeed(bucket(100), Keep::Cells, SIZE).expect("a successor");
    assert_eq!([1, 2].map(|key| left(&new, key, Nanos(5))), [3, 100]);
    assert!(!new.check_cost(&1, 4, Nanos(5)).is_allowed());
    assert!(new.check_cost(&1, 3, Nanos(5)).is_allowed());
}

#[test]
fn whoever_still_asks_the_old_one_is_answered_by_the_new_one() {
    let old = limiter(bucket(10));
    old.check_cost(&1, 7, Nanos(5));
    let new = old.succeed(bucket(20), Keep::Cells, SIZE).expect("a successor");
    assert!(old.check_cost(&1, 2, Nanos(5)).is_allowed());
    assert_eq!((left(&old, 1, Nanos(5)), left(&new, 1, Nanos(5))), (1, 1));
    drop(new);
    assert!(!old.check(&1, Nanos(5)).is_allowed(), "nobody keeps the key");
}

#[test]
fn raising_and_lowering_in_a_loop_gives_nobody_a_cell() {
    let mut limiter = limiter(bucket(10));
    assert!(limiter.check_cost(&1, 6, Nanos(5)).is_allowed());
    for round in 0..20 {
        let limit = match round % 3 {
            0 => bucket(1_000),
            1 => Limit::fixed_window(50, HOUR).expect("a limit"),
            _ => bucket(5),
        };
        limiter = limiter.succeed(limit, Keep::Cells, SIZE).expect("a successor");
        assert_eq!(left(&limiter, 1, Nanos(5)), 4, "round {round}");
    }
}

#[test]
fn keys_that_were_in_the_sketch_gain_nothing_either() {
    let small = TableSize { keys: 10, sketch_bytes: 1 << 16 };
    let old = Limiter::<u64>::new(bucket(2), small, HashSecret([1; 16])).expect("memory");
    let admitted = |limiter: &Limiter<u64>| {
        (0..500u64).map(|key| u64::from(limiter.check(&key, Nanos(5)).is_allowed())).sum::<u64>()
    };
    assert_eq!(admitted(&old), 500);
    assert!(old.overflowed() > 0);
    let new = old.succeed(bucket(2), Keep::Cells, small).expect("a successor");
    assert!(admitted(&new) <= 500);
    assert_eq!(admitted(&new), 0);
}

#[test]
fn what_was_before_is_forgotten_when_its_keys_are_dead() {
    let old = limiter(Limit::gcra(Rate::per_second(1), 10).expect("a limit"));
    old.check_cost(&1, 10, Nanos(0));
    let new = old.succeed(bucket(5), Keep::Cells, SIZE).expect("a successor");
    assert_eq!(left(&new, 1, Nanos(0)), 0);
    let later = Nanos::from_duration(HOUR * 6);
    assert_eq!([1, 2].map(|key| left(&new, key, later)), [5, 5]);
}

#[test]
fn nobody_is_succeeded_twice() {
    let old = limiter(bucket(5));
    let _new = old.succeed(bucket(5), Keep::Cells, SIZE).expect("a successor");
    assert_eq!(old.succeed(bucket(5), Keep::Cells, SIZE).err(), Some(CannotSucceed::HasSuccessor));
}

/// A table without a sketch was full of live keys when its limit changed. The first request about a key took it out of the old
/// table, and found no slot in the new one: with the next slot that became free the key began anew.
#[test]
fn a_key_for_which_the_successor_has_no_room_stays_where_it_is() {
    let full = TableSize { keys: 1, sketch_bytes: 0 };
    for kind in [
        bucket(1),
        Limit::sliding_log(1, HOUR).expect("a limit"),
        Limit::concurrency(1, HOUR).expect("a limit"),
    ] {
        let old = Limiter::<u64>::new(kind.clone(), full, HashSecret([1; 16])).expect("memory");
        assert!(old.check(&0, Nanos(5)).is_allowed());
        let raised = match &kind {
            Limit::Gcra(_) => bucket(2),
            Limit::SlidingLog(_) => Limit::sliding_log(2, HOUR).expect("a limit"),
            _ => Limit::concurrency(2, HOUR).expect("a limit"),
        };
        let new = old.succeed(raised, Keep::Cells, full).expect("a successor");
        // Others fill the new table and let go of it again.
        let others: Vec<_> = (1..2_000u64).map(|key| (key, new.acquire(&key, 2, Nanos(5)).1)).collect();
        new.check(&0, Nanos(5));
        for (key, grant) in others {
            if let Some(grant) = grant {
                new.refund(grant, Nanos(5));
            }
            new.reset(&key, Nanos(5));
        }
        let admitted = u64::from(new.check(&0, Nanos(6)).is_allowed());
        let expected = u64::from(matches!(kind, Limit::Concurrency(_)));
        assert_eq!(admitted, expected, "one was used of {kind:?}, one more may be of two permits");
        assert!(!new.check(&0, Nanos(6)).is_allowed(), "{kind:?}");
    }
}

/// Ten a second became ten an hour. Whoever had used all of it just before, and came back two seconds later, had all of it again:
/// the old limit went on refilling until the key was asked about.
#[test]
fn a_key_is_carried_over_as_it_was_when_the_limit_changed() {
    let mut set = ratelimit_core::LimitSet::new(HashSecret([1; 16]));
    let second = Duration::from_secs(1);
    let log = |period| Limit::sliding_log(10, period).expect("a limit");
    let window = |period| Limit::fixed_window(10, period).expect("a limit");
    let gcra = |period| Limit::gcra(Rate::new(10, period), 10).expect("a limit");
    let limits = |period| [log(period), window(period), gcra(period)];
    let enforced = ratelimit_core::Enforcement::Enforced;
    let ids = limits(second).map(|limit| set.add(limit, SIZE, enforced).expect("memory"));
    let now = Nanos(100);
    for id in ids {
        assert!(set.check(&[set.hit(id, &1u64, 10)], now).expect("few hits").is_allowed());
    }
    let heir =
        |(limit, id)| Heir { limit, size: SIZE, enforcement: enforced, of: Some(id), keep: Keep::Cells };
    set.succeed(limits(HOUR).into_iter().zip(ids).map(heir).collect(), now).expect("successors");
    for id in ids {
        let hit = set.hit(id, &1u64, 1);
        let verdict = set.check(&[hit], Nanos::from_duration(second * 20)).expect("few hits");
        assert!(!verdict.is_allowed(), "{:?}", set.limit(id));
    }
}

#[test]
fn limits_whose_keys_wait_do_not_pile_up() {
    let mut limiter = limiter(bucket(10));
    let refused = (0..100).find_map(|_| match limiter.succeed(bucket(10), Keep::Cells, SIZE) {
        Ok(new) => {
            limiter = new;
            None
        }
        Err(refused) => Some(refused),
    });
    assert_eq!(refused, Some(CannotSucceed::TooManyGenerations { generations_max: GENERATIONS_MAX }));
}

#[test]
fn threads_that_charge_while_limits_change_admit_exactly_the_size() {
    let kinds = [
        (bucket(50), 50),
        (bucket(500), 500),
        (Limit::sliding_log(40, HOUR).expect("a limit"), 40),
        (Limit::concurrency(50, HOUR).expect("a limit"), 50),
    ];
    for (limit, size) in kinds {
        let current = RwLock::new(limiter(limit.clone()));
        let admitted: Vec<AtomicU64> = (0..20).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..size {
                        for (key, count) in admitted.iter().enumerate() {
                            let limiter = current.read().expect("no panic");
                            if limiter.check(&(key as u64), Nanos(5)).is_allowed() {
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
            for _ in 0..10 {
                let new = current.read().expect("no panic").succeed(limit.clone(), Keep::Cells, SIZE);
                *current.write().expect("no panic") = new.expect("a successor");
            }
        });
        for (key, count) in admitted.iter().enumerate() {
            assert_eq!(count.load(Ordering::Relaxed), size, "key {key}, {limit:?}");
        }
    }
}
