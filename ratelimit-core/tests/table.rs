//! Many keys, many threads: bounded memory without a way around the limit.
#![expect(clippy::disallowed_methods, reason = "the claim is about threads")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ratelimit_core::{HashSecret, Limit, Limiter, Nanos, Rate, TableSize};

const SECRET: HashSecret = HashSecret([5; 16]);

fn per_hour(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

fn every_kind(size: u64) -> Vec<Limit> {
    let hour = Duration::from_secs(3_600);
    vec![
        per_hour(size),
        Limit::fixed_window(size, hour).expect("a limit"),
        Limit::sliding_window(size, hour).expect("a limit"),
        Limit::sliding_log(size, hour).expect("a limit"),
        Limit::concurrency(size, hour).expect("a limit"),
    ]
}

#[test]
fn of_n_plus_one_requests_at_once_exactly_n_are_admitted() {
    for limit in every_kind(50) {
        for threads in [1, 2, 8, 51] {
            let limiter =
                Limiter::<u64>::new(limit.clone(), TableSize::for_keys(100), SECRET).expect("memory");
            for key in 0..20 {
                let (barrier, admitted) = (Barrier::new(threads), AtomicU64::new(0));
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let requests = 51 / threads + usize::from(thread < 51 % threads);
                        let (barrier, admitted, limiter) = (&barrier, &admitted, &limiter);
                        scope.spawn(move || {
                            barrier.wait();
                            for _ in 0..requests {
                                if limiter.check(&key, Nanos(1)).is_allowed() {
                                    admitted.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        });
                    }
                });
                assert_eq!(admitted.into_inner(), 50, "{threads} threads, {limit:?}");
            }
        }
    }
}

/// limitador with a cache of 100 admits a victim of one per hour 20 times of 20 while 1,000 other keys go by between.
#[test]
fn f6_a_flood_of_keys_never_gives_a_victim_a_second_burst() {
    for limit in every_kind(1) {
        for sketch_bytes in [0, 4_096, 1 << 20] {
            let limiter = Limiter::<u64>::new(limit.clone(), TableSize { keys: 100, sketch_bytes }, SECRET)
                .expect("memory");
            let reserved = limiter.reserved_bytes();
            let mut admitted = 0;
            for round in 0..20u64 {
                let now = Nanos(round * 1_000_000_000);
                admitted += u64::from(limiter.check(&u64::MAX, now).is_allowed());
                for attacker in 0..1_000 {
                    limiter.check(&(round * 1_000 + attacker), now);
                }
            }
            assert_eq!(admitted, 1, "sketch of {sketch_bytes} bytes, {limit:?}");
            assert!(limiter.overflowed() > 0, "the table was full");
            assert_eq!(limiter.reserved_bytes(), reserved);
        }
    }
}

#[test]
fn f6_a_victim_that_comes_after_the_flood_is_admitted_at_most_once_too() {
    for sketch_bytes in [4_096, 1 << 20] {
        let limiter =
            Limiter::<u64>::new(per_hour(1), TableSize { keys: 100, sketch_bytes }, SECRET).expect("memory");
        let mut admitted = vec![0; 3_000];
        for _ in 0..3 {
            for key in 0..3_000u64 {
                admitted[key as usize] += u64::from(limiter.check(&key, Nanos(1)).is_allowed());
            }
        }
        assert!(admitted.iter().all(|count| *count <= 1));
        let passed: u64 = admitted.iter().sum();
        assert!(
            sketch_bytes == 4_096 || passed > 2_990,
            "a sketch with room denies hardly anyone early: {passed}"
        );
    }
}

#[test]
fn dead_keys_make_room_for_new_ones_without_any_sweep() {
    let limiter =
        Limiter::<u64>::new(per_hour(1), TableSize { keys: 1_000, sketch_bytes: 0 }, SECRET).expect("memory");
    for hour in 0..50u64 {
        let now = Nanos::from_duration(Duration::from_secs(hour * 3_600));
        let admitted = (0..800).filter(|key| limiter.check(&(hour * 800 + key), now).is_allowed()).count();
        assert!(admitted >= 795, "{admitted} of 800 in hour {hour}");
        assert_eq!(limiter.live_keys(now), admitted as u64, "those of the hour before are dead");
    }
}

#[test]
fn a_key_that_leaves_the_sketch_for_a_slot_keeps_what_it_used() {
    let limiter = Limiter::<u64>::new(per_hour(10), TableSize { keys: 10, sketch_bytes: 1 << 16 }, SECRET)
        .expect("memory");
    // The table is full of keys that are live for an hour.
    for key in 0..1_000u64 {
        limiter.check(&key, Nanos(0));
    }
    let full = limiter.overflowed();
    assert!(full > 0);
    let victim = 999_999;
    let mut admitted = 0;
    for minute in 0..59 {
        let now = Nanos::from_duration(Duration::from_secs(minute * 60));
        admitted += u64::from(limiter.check(&victim, now).is_allowed());
    }
    assert!((1..=10).contains(&admitted));
    assert!(limiter.overflowed() > full, "it was in the sketch");
    // An hour later the slots are dead, and the victim gets one: with one cell that refilled.
    let now = Nanos::from_duration(Duration::from_secs(3_601));
    let after = (0..20).filter(|_| limiter.check(&victim, now).is_allowed()).count();
    assert!(admitted + after as u64 <= 11, "{admitted} and {after}");
}

#[test]
fn memory_is_what_was_reserved_and_at_most_24_bytes_a_key() {
    let limiter = Limiter::<u64>::new(per_hour(5), TableSize::for_keys(1_000_000), SECRET).expect("memory");
    let (keys, sketch) = limiter.reserved_bytes();
    assert!(keys <= 24_000_000, "{keys} bytes for a million keys");
    assert_eq!(sketch, 4 << 20);
    for key in 0..1_000_000u64 {
        limiter.check(&key, Nanos(1));
    }
    let live = limiter.live_keys(Nanos(1));
    assert!(live > 990_000, "{live} of a million live keys have a slot");
    assert_eq!(limiter.live_keys(Nanos(1)) + limiter.overflowed(), 1_000_000, "the others are in the sketch");
    assert_eq!(limiter.reserved_bytes(), (keys, sketch));
}

#[test]
fn threads_that_bring_the_same_new_keys_admit_each_exactly_once() {
    for (keys, sketch_bytes) in [(50_000, 1 << 20), (1_000, 1 << 22)] {
        let limiter =
            Limiter::<u64>::new(per_hour(1), TableSize { keys, sketch_bytes }, SECRET).expect("memory");
        let admitted: Vec<AtomicU64> = (0..20_000).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (key, count) in admitted.iter().enumerate() {
                        if limiter.check(&(key as u64), Nanos(1)).is_allowed() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(admitted.iter().all(|count| count.load(Ordering::Relaxed) <= 1));
        let passed: u64 = admitted.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        assert!(passed > 19_900, "{passed} of 20,000");
    }
}

/// A log, or permits, had no place for keys beyond the room: a flood of keys had every new client denied.
#[test]
fn a_flood_of_keys_has_hardly_any_new_client_of_a_log_denied_and_none_admitted_twice() {
    let log = Limit::sliding_log(2, Duration::from_secs(3_600)).expect("a limit");
    let size = TableSize { keys: 100, sketch_bytes: 1 << 20 };
    let limiter = Limiter::<u64>::new(log, size, SECRET).expect("memory");
    for hour in 0..3u64 {
        let now = Nanos::from_duration(Duration::from_secs(hour * 3_601));
        let mut admitted = vec![0; 3_000];
        for _ in 0..3 {
            for key in 0..3_000u64 {
                admitted[key as usize] += u64::from(limiter.check(&key, now).is_allowed());
            }
        }
        assert!(admitted.iter().all(|count| *count <= 2));
        let passed: u64 = admitted.iter().sum();
        assert!(passed > 5_980, "a sketch with room denies hardly anyone early: {passed} in hour {hour}");
    }
}

#[test]
fn a_key_of_a_log_that_leaves_the_sketch_for_a_slot_keeps_what_it_used() {
    let minute = |minute: u64| Nanos::from_duration(Duration::from_secs(minute * 60));
    let log = Limit::sliding_log(5, Duration::from_secs(3_600)).expect("a limit");
    let size = TableSize { keys: 10, sketch_bytes: 1 << 16 };
    let limiter = Limiter::<u64>::new(log, size, SECRET).expect("memory");
    (0..1_000u64).for_each(|key| {
        limiter.check(&key, minute(0));
    });
    let full = limiter.overflowed();
    let victim = 999_999;
    let (first, grant) = limiter.acquire(&victim, 3, minute(30));
    assert!(first.is_allowed() && limiter.overflowed() > full, "it is in the sketch");
    assert_eq!(first.remaining(), 2);
    // The slots are dead; the victim gets one, and a grant of the sketch gives nothing back there.
    assert_eq!(limiter.check(&victim, minute(61)).remaining(), 1);
    limiter.refund(grant.expect("a grant"), minute(61));
    assert_eq!(limiter.peek(&victim, 0, minute(61)).remaining(), 1);
    assert_eq!(limiter.peek(&victim, 0, minute(91)).remaining(), 4);
}

#[test]
fn permits_beyond_the_room_are_denied_and_counted() {
    let permits = Limit::concurrency(2, Duration::from_secs(3_600)).expect("a limit");
    let size = TableSize { keys: 10, sketch_bytes: 1 << 16 };
    let limiter = Limiter::<u64>::new(permits, size, SECRET).expect("memory");
    assert_eq!(limiter.reserved_bytes().1, 0, "no sketch is reserved");
    let admitted = (0..1_000u64).filter(|key| limiter.check(key, Nanos(1)).is_allowed()).count() as u64;
    assert_eq!((admitted, limiter.overflowed()), (limiter.live_keys(Nanos(1)), 1_000 - admitted));
    let before = limiter.overflowed();
    assert!(!limiter.peek(&999, 1, Nanos(1)).is_allowed());
    assert_eq!(limiter.overflowed(), before, "who only looks is not counted");
}
