//! Who wants more than a limit gives, and what goes wrong around it, each by name. What is not here:
//!
//! | attack or fault | where |
//! |---|---|
//! | keys without number, and victims among them | `table.rs` (`f6_…`), and `cargo run -p strongroom-benches --example distinct_keys` at 100 million |
//! | numbers at the ends of their types | `extremes.rs`, `gcra.rs` (`f2_…`, `f3_…`) |
//! | clocks that jump, lag or stand | `extremes.rs`, `gcra.rs`, and here |
//! | grants and permits that are given back late, twice or elsewhere | `refunds.rs` (`f8_…`), `permits.rs`, and here |
//! | several limits, of which one denies | `limit_set.rs` (`f5_…`) |
//! | limits that change back and forth | `changes.rs`, `succession.rs` |
//! | proxies that nobody here wrote | `ratelimit-server/tests/protocols/rls_bytes.rs` (`f1_…`), `strongroom/tests/cli/judges/envoy.rs` (`f1_…`, where Envoy is installed) |
//! | bytes that are no request | `ratelimit-server/tests/resp/hostile.rs` (`f4_…`) |
//! | forged addresses and credentials | `tower-layers/tests/{client_ip,keys}` |
#![expect(clippy::disallowed_methods, reason = "one claim is about threads")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Grant, HashSecret, Hasher, Key, KeyParts, Limit, Limiter, Nanos, Rate, TableSize};

const HOUR: Duration = Duration::from_secs(3_600);

fn per_hour(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(burst), burst).expect("a limit")
}

fn at(seconds: f64) -> Nanos {
    Nanos::from_duration(Duration::from_secs_f64(seconds))
}

/// Integers whose tags under this secret all begin with the same 16 bits, and so share a line of any table.
fn crowding(secret: HashSecret, count: usize) -> Vec<u64> {
    let hasher = Hasher::new(secret);
    (0..u64::MAX).filter(|key| key.tag(&hasher) >> 48 == 0x1234).take(count).collect()
}

#[test]
fn keys_chosen_to_crowd_a_line_crowd_it_only_for_who_knows_the_secret() {
    let (known, other) = (HashSecret([1; 16]), HashSecret([2; 16]));
    let chosen = crowding(known, 40);
    let size = TableSize { keys: 10_000, sketch_bytes: 0 };
    let denied = |secret| {
        let limiter = Limiter::<u64>::new(per_hour(5), size, secret).expect("memory");
        chosen.iter().filter(|key| !limiter.check(key, Nanos(1)).is_allowed()).count()
    };
    // Their second lines are spread even so: that is what the second line is for.
    assert!(denied(known) <= 8, "{} of 40", denied(known));
    assert_eq!(denied(other), 0);
    // Both lines crowded: 40 keys for 8 slots, when the tag's other half is the same too.
    let both = |secret: HashSecret, keys: &[u64]| {
        let hasher = Hasher::new(secret);
        keys.iter()
            .map(|key| key.tag(&hasher).rotate_left(32) >> 48)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert!(both(other, &chosen).len() > 30, "under another secret nothing of the choice is left");
}

#[test]
fn a_crowd_in_one_line_takes_no_slot_and_no_cell_of_others() {
    let secret = HashSecret([3; 16]);
    let limiter = Limiter::<u64>::new(per_hour(5), TableSize { keys: 1_000, sketch_bytes: 1 << 12 }, secret)
        .expect("memory");
    let victim = 77;
    assert!(limiter.check_cost(&victim, 3, Nanos(1)).is_allowed());
    for key in crowding(secret, 200) {
        limiter.check_cost(&key, 5, Nanos(1));
    }
    assert_eq!(limiter.peek(&victim, 0, Nanos(1)).remaining(), 2);
    let admitted = (0..10).filter(|_| limiter.check(&victim, Nanos(1)).is_allowed()).count();
    assert_eq!(admitted, 2);
}

/// Each key's flood and its own requests, in the sketch and out of it as slots die and are taken: over all of it nobody
/// gets more than the bound of a bucket.
#[test]
fn a_key_that_moves_between_sketch_and_slot_under_a_flood_keeps_its_bound() {
    let burst = 5;
    let limit = Limit::gcra(Rate::per_second(1), burst).expect("a limit");
    let limiter =
        Limiter::<u64>::new(limit, TableSize { keys: 64, sketch_bytes: 1 << 12 }, HashSecret([4; 16]))
            .expect("memory");
    let mut passed: Vec<Vec<u64>> = vec![Vec::new(); 8];
    let mut flood = 1_000;
    let mut in_sketch = false;
    for step in 0..3_000u64 {
        let now = Nanos(step * 20_000_000);
        // Bursts of strangers fill the table, and die while nobody comes.
        if step % 500 < 100 {
            for _ in 0..20 {
                flood += 1;
                limiter.check_cost(&flood, burst, now);
            }
        }
        in_sketch |= limiter.overflowed() > 0;
        for (victim, passed) in passed.iter_mut().enumerate() {
            if limiter.check(&(victim as u64), now).is_allowed() {
                passed.push(now.0);
            }
        }
    }
    assert!(in_sketch, "the flood filled the table");
    for passed in passed {
        assert!(passed.len() > 50, "nobody is locked out: {}", passed.len());
        for (index, from) in passed.iter().enumerate() {
            for (more, to) in passed.iter().enumerate().skip(index) {
                let admitted = (more - index + 1) as u64;
                assert!(admitted <= burst + (to - from) / 1_000_000_000, "{admitted} in {} ns", to - from);
            }
        }
    }
}

#[test]
fn a_clock_an_hour_back_or_ahead_gives_nobody_a_second_burst() {
    for algorithm in [
        per_hour(10),
        Limit::fixed_window(10, HOUR).expect("a limit"),
        Limit::sliding_log(10, HOUR).expect("a limit"),
    ] {
        let limiter = Limiter::<u64>::new(algorithm.clone(), TableSize::for_keys(100), HashSecret([5; 16]))
            .expect("memory");
        let drained = |now| (0..50).filter(|_| limiter.check(&1, now).is_allowed()).count();
        assert_eq!(drained(at(7_200.0)), 10);
        assert_eq!(drained(at(3_600.0)), 0, "{algorithm:?}, an hour back");
        assert_eq!(drained(at(7_200.0)), 0, "{algorithm:?}, and forth again");
        // A jump ahead opens what that hour would have opened; coming back does not open it again.
        assert!(drained(at(10_800.0)) <= 10);
        assert_eq!(drained(at(7_200.0)), 0);
        assert_eq!(drained(at(10_800.0)), 0);
    }
}

/// The clock that counts stops while the machine sleeps: what was taken before is still taken after.
#[test]
fn a_machine_that_slept_has_refilled_nothing() {
    let limiter =
        Limiter::<u64>::new(per_hour(10), TableSize::for_keys(100), HashSecret([5; 16])).expect("memory");
    assert!(limiter.check_cost(&1, 10, at(100.0)).is_allowed());
    assert!(!limiter.check(&1, at(100.0)).is_allowed());
    assert_eq!(limiter.peek(&1, 0, at(100.0)).remaining(), 0);
}

#[test]
fn a_permit_released_twice_or_after_its_end_frees_nobody_else() {
    let limit = Limit::concurrency(2, Duration::from_secs(10)).expect("a limit");
    let limiter = Limiter::<u64>::new(limit, TableSize::for_keys(100), HashSecret([6; 16])).expect("memory");
    let taken = |now| limiter.acquire(&1, 1, now).1;
    let mut first = taken(at(0.0)).expect("a permit");
    // All that it holds is split off: what stays has nothing to give.
    let copy = first.split(u64::MAX);
    limiter.refund(copy, at(1.0));
    limiter.refund(first, at(1.0));
    assert_eq!(limiter.peek(&1, 0, at(1.0)).remaining(), 2);
    let (late, _held) = (taken(at(2.0)).expect("a permit"), taken(at(11.0)).expect("a permit"));
    let _third = taken(at(12.5)).expect("the first one has expired");
    limiter.refund(late, at(13.0));
    assert!(taken(at(13.0)).is_none(), "two are held");
}

#[test]
fn a_grant_given_back_in_parts_by_many_threads_gives_back_no_more_than_it_took() {
    let limiter =
        Limiter::<u64>::new(per_hour(1_000), TableSize::for_keys(100), HashSecret([7; 16])).expect("memory");
    let mut grant = limiter.acquire(&1, 400, Nanos(0)).1.expect("a grant");
    assert!(limiter.check_cost(&1, 600, Nanos(0)).is_allowed());
    let parts: Vec<Grant> = (0..8).map(|_| grant.split(60)).collect();
    assert_eq!(parts.iter().map(Grant::cost).sum::<u64>(), 400, "60 each, the last ones less");
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for part in parts {
            let (limiter, admitted) = (&limiter, &admitted);
            scope.spawn(move || {
                limiter.refund(part, Nanos(0));
                let here = (0..200).filter(|_| limiter.check(&1, Nanos(0)).is_allowed()).count();
                admitted.fetch_add(here as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(admitted.into_inner(), 400);
}

/// What separates parts elsewhere, quotes, ends of text, and nothing at all.
#[test]
fn keys_with_separators_in_them_have_counters_of_their_own() {
    let limiter = Limiter::<KeyParts>::new(per_hour(1), TableSize::for_keys(1_000), HashSecret([8; 16]))
        .expect("memory");
    let parts: [&[&[u8]]; 14] = [
        &[b"a_b", b"c"],
        &[b"a", b"b_c"],
        &[b"a", b"b", b"c"],
        &[b"a_b_c"],
        &[b"a|b", b"c"],
        &[b"a", b"b|c"],
        &[b"", b"a"],
        &[b"a", b""],
        &[b"a"],
        &[b""],
        &[],
        &[b"a\0", b"b"],
        &[b"a", b"\0b"],
        &[b"\0\0\0\x01a"],
    ];
    for parts in parts {
        assert!(
            limiter.check(&KeyParts::new(parts), Nanos(0)).is_allowed(),
            "{parts:?} had a counter already"
        );
        assert!(!limiter.check(&KeyParts::new(parts), Nanos(0)).is_allowed());
    }
}

proptest! {
    /// Elsewhere no bound is stated for nodes that decide without asking each other. Here it is the limit of the whole, and
    /// for each node less than one cell by which its share of the burst was rounded up; their clocks need not agree.
    #[test]
    fn f7_nodes_that_count_their_own_share_admit_together_at_most_the_stated_bound(
        nodes in 1..9u64,
        burst in 1..60u64,
        requests in prop::collection::vec((0..3_000u64, 0..9usize, 1..4u64), 1..300),
        ahead_ms in prop::collection::vec(0..500u64, 9),
    ) {
        let cell_ms = 100;
        let share = burst.div_ceil(nodes);
        // One cell per `nodes` cell times, and the burst in equal parts, rounded up.
        let limit = Limit::gcra(Rate::new(1, Duration::from_millis(cell_ms * nodes)), share).expect("a limit");
        let limiters: Vec<Limiter<u64>> = (0..nodes)
            .map(|_| Limiter::new(limit.clone(), TableSize { keys: 10, sketch_bytes: 0 }, HashSecret([9; 16])).expect("memory"))
            .collect();
        let mut now_ms = 0;
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (wait_ms, node, cost) in requests {
            now_ms += wait_ms / 8;
            let node = node % limiters.len();
            let stamp = Nanos::from_duration(Duration::from_millis(now_ms + ahead_ms[node]));
            if limiters[node].check_cost(&1, cost, stamp).is_allowed() {
                passed.push((now_ms, cost));
            }
        }
        for (index, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (to, cost) in passed.iter().skip(index) {
                sum += cost;
                let refilled = nodes * ((to - from) / (cell_ms * nodes));
                prop_assert!(sum <= nodes * share + refilled, "{sum} in {} ms", to - from);
                prop_assert!(nodes * share < burst + nodes);
            }
        }
    }
}
