//! The table under every interleaving that a model checker finds with a few preemptions, memory ordering included.
//!
//! Tables here are tiny: two keys share the two lines that the smallest table of a model has.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

use super::word::{Patience, Word};
use super::*;
use crate::algorithms::{Gcra, Words as _};
use crate::limit::Rate;
use crate::ticks::Nanos;

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        AtomicU64::new(value)
    }

    fn zeroed(count: usize) -> Option<Box<[Self]>> {
        Some((0..count).map(|_| AtomicU64::new(0)).collect())
    }

    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Release);
    }

    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    fn raise(&self, value: u64) {
        self.fetch_max(value, Ordering::AcqRel);
    }

    fn pause(_patience: Patience) {
        loom::thread::yield_now();
    }
}

type Small = Table<AtomicU64>;

/// One line, few stripes, one sketch cell per row if any: everything meets.
fn tiny(sketch_bytes: usize) -> Small {
    of_one_line(0, sketch_bytes)
}

fn of_one_line(more_words: usize, sketch_bytes: usize) -> Small {
    Small::with(Room { lines: 1, stripes: 2, more_words, sketch_bytes, bytes: 0 }).expect("memory")
}

fn bucket(burst: u64) -> Gcra {
    Gcra::new(Rate::new(1, Duration::from_secs(1)), burst, 0).expect("a limit")
}

/// Runs `threads` in every interleaving of at most two preemptions, within a bounded time, and then `after`.
fn explored(build: fn() -> Small, threads: &'static [fn(&Small) -> u64], after: fn(&Small, &[u64])) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 100_000;
    model.checkpoint_interval = 200; // how often it looks at the time
    model.max_duration = Some(Duration::from_secs(10));
    model.check(move || {
        let table = Arc::new(build());
        let running: Vec<_> = threads
            .iter()
            .map(|thread| {
                let table = table.clone();
                loom::thread::spawn(move || thread(&table))
            })
            .collect();
        let results: Vec<u64> = running.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        after(&table, &results);
    });
}

fn charge(table: &Small, burst: u64, tag: u64, now_s: u64) -> u64 {
    let gcra = bucket(burst);
    let at = gcra.at(Nanos::from_duration(Duration::from_secs(now_s)));
    u64::from(table.charge(&gcra, tag, at, 1).is_some_and(|step| step.decision.is_allowed()))
}

/// Fills the four slots with keys whose buckets are full again after `seconds`.
fn filled(sketch_bytes: usize, seconds: u64) -> Small {
    let table = tiny(sketch_bytes);
    for tag in 100..104 {
        for _ in 0..seconds {
            assert_eq!(charge(&table, 10, tag, 0), 1);
        }
    }
    table
}

/// A table whose keys have one word more: how many permits are taken. A head is one larger, so 1 is dead.
fn permits() -> Small {
    of_one_line(1, 0)
}

/// Changes the number of permits taken, if `change` does; 1 if so.
fn permit(table: &Small, tag: u64, change: fn(u64) -> Option<u64>) -> u64 {
    let _stripe = table.lock_stripe(table.stripe(tag));
    let mut held = table.hold(tag, |head| head <= 1);
    let Some(mut words) = held.words() else { return 0 };
    let before = words.word(0);
    let after = change(before);
    words.replace(0, after.unwrap_or(before));
    held.keep_words(after.unwrap_or(before) + 1);
    u64::from(after.is_some())
}

fn acquire(table: &Small, tag: u64) -> u64 {
    permit(table, tag, |taken| (taken == 0).then_some(1))
}

fn release(table: &Small, tag: u64) -> u64 {
    permit(table, tag, |taken| taken.checked_sub(1))
}

#[test]
fn a_slot_that_changed_hands_and_has_its_old_head_again_is_not_taken_for_the_old_key() {
    explored(
        || {
            let table = permits();
            // One slot may be given away, that of key 7, whose permit is back.
            for tag in [100, 101, 102, 7] {
                assert_eq!(acquire(&table, tag), 1);
            }
            assert_eq!(release(&table, 7), 1);
            table
        },
        &[|table| acquire(table, 7), |table| acquire(table, 8) + release(table, 8)],
        |table, taken| {
            let has_slot =
                table.lines_of(7).any(|slot| Word::load(slot.tag) == 7 && Word::load(slot.head) == 2);
            assert_eq!(taken[0] == 1, has_slot, "a permit of key 7 is in the slot of key 7");
        },
    );
}

#[test]
fn a_new_key_that_two_threads_bring_gets_one_slot_and_one_burst() {
    explored(
        || tiny(0),
        &[|table| charge(table, 1, 7, 5), |table| charge(table, 1, 7, 5)],
        |table, admitted| {
            assert_eq!(admitted.iter().sum::<u64>(), 1);
            assert_eq!(table.live(|state| state == 0), 1);
        },
    );
}

#[test]
fn a_known_key_admits_exactly_what_is_left() {
    explored(
        || {
            let table = tiny(0);
            charge(&table, 2, 7, 5);
            table
        },
        &[|table| charge(table, 2, 7, 5), |table| charge(table, 2, 7, 5)],
        |_, admitted| assert_eq!(admitted.iter().sum::<u64>(), 1),
    );
}

#[test]
fn a_dead_slot_that_is_taken_while_its_key_comes_back_loses_nothing() {
    // Every slot is dead at second 5. Key 100 comes back while key 7 takes a slot, which may be the one of key 100.
    explored(
        || filled(0, 1),
        &[
            |table| charge(table, 1, 100, 5) + charge(table, 1, 100, 5),
            |table| charge(table, 1, 7, 5) + charge(table, 1, 7, 5),
        ],
        |table, admitted| {
            assert_eq!(admitted, [1, 1]);
            assert_eq!(charge(table, 1, 100, 5) + charge(table, 1, 7, 5), 0, "both buckets are empty");
        },
    );
}

#[test]
fn two_new_keys_never_share_a_slot() {
    explored(
        || {
            // Three live slots, one dead.
            let table = filled(0, 1);
            for tag in 100..103 {
                for _ in 0..9 {
                    charge(&table, 10, tag, 0);
                }
            }
            table
        },
        &[|table| charge(table, 1, 7, 5), |table| charge(table, 1, 8, 5)],
        |table, admitted| {
            assert_eq!(admitted.iter().sum::<u64>(), 1, "one slot, no sketch");
            assert_eq!(charge(table, 1, 7, 5) + charge(table, 1, 8, 5), 0);
        },
    );
}

#[test]
fn a_key_in_the_sketch_admits_its_burst_once_also_when_it_moves_to_a_slot() {
    // All slots are live until second 9. At second 5 key 7 is counted in the sketch; at second 9 it gets a slot.
    explored(
        || filled(4 * 8, 9),
        &[|table| charge(table, 1, 7, 5), |table| charge(table, 1, 7, 5)],
        |table, admitted| {
            assert_eq!(admitted.iter().sum::<u64>(), 1);
            let gcra = bucket(8);
            let state = table.state(&gcra, 7, gcra.at(Nanos(0)));
            assert_eq!(state, gcra.at(Nanos::from_duration(Duration::from_secs(6))).point);
        },
    );
}

#[test]
fn a_slot_that_becomes_free_takes_over_what_the_sketch_knows() {
    explored(
        || {
            let table = filled(4 * 8, 9);
            assert_eq!(charge(&table, 3, 7, 8), 1);
            table
        },
        // One thread's clock is at second 9, where slots are dead; the other's is behind.
        &[|table| charge(table, 3, 7, 9), |table| charge(table, 3, 7, 8)],
        |table, admitted| {
            let rest: u64 = (0..3).map(|_| charge(table, 3, 7, 9)).sum();
            assert_eq!(admitted.iter().sum::<u64>() + rest, 3, "three and what refilled, less the first");
        },
    );
}

/// A decision about two keys beside charges of each: all or nothing, and nothing twice.
#[test]
fn holding_two_keys_excludes_everyone_else() {
    fn both(table: &Small) -> u64 {
        let gcra = bucket(1);
        let at = gcra.at(Nanos::from_duration(Duration::from_secs(5)));
        let stripes = std::collections::BTreeSet::from([table.stripe(7), table.stripe(8)]);
        let _guards: Vec<_> = stripes.into_iter().map(|stripe| table.lock_stripe(stripe)).collect();
        let held = [7, 8].map(|tag| table.hold(tag, |state| gcra.is_dead(state, at)));
        let next = held.each_ref().map(|held| gcra.decide(held.state(&gcra, at), at, 1).next);
        let all = next.iter().all(Option::is_some);
        for (held, next) in held.into_iter().zip(next) {
            match next.filter(|_| all) {
                Some(next) => held.keep(&gcra, next),
                None => held.leave(),
            }
        }
        u64::from(all)
    }
    explored(
        || tiny(0),
        &[both, |table| charge(table, 1, 8, 5)],
        |table, admitted| {
            assert_eq!(admitted.iter().sum::<u64>(), 1, "key 8 has one cell");
            assert_eq!(charge(table, 1, 8, 5), 0);
            assert_eq!(charge(table, 1, 7, 5), 1 - admitted[0], "key 7 was charged only with key 8");
        },
    );
    explored(
        || tiny(0),
        &[both, both],
        |table, admitted| {
            assert_eq!(admitted.iter().sum::<u64>(), 1);
            assert_eq!(charge(table, 1, 8, 5) + charge(table, 1, 7, 5), 0);
        },
    );
}

#[test]
fn a_refund_beside_a_charge_gives_back_once() {
    explored(
        || {
            let table = tiny(0);
            charge(&table, 2, 7, 5);
            charge(&table, 2, 7, 5);
            table
        },
        &[
            |table| {
                let gcra = bucket(2);
                let at = gcra.at(Nanos::from_duration(Duration::from_secs(5)));
                table.lower(7, |state| gcra.refund(state, at, at.point, 1));
                0
            },
            |table| charge(table, 2, 7, 5) + charge(table, 2, 7, 5),
        ],
        |table, admitted| assert_eq!(admitted[1] + charge(table, 2, 7, 5) + charge(table, 2, 7, 5), 1),
    );
}

/// A successor takes a key while others charge it: each charge is seen by it, or goes to it.
#[test]
fn a_key_that_a_successor_takes_is_charged_here_before_or_not_at_all() {
    for known in [0, 1] {
        let build: fn() -> Small = if known == 0 {
            || tiny(0)
        } else {
            || {
                let table = tiny(0);
                charge(&table, 9, 7, 5);
                table
            }
        };
        explored(
            build,
            &[
                |table| {
                    let gcra = bucket(9);
                    let at = gcra.at(Nanos::from_duration(Duration::from_secs(5)));
                    table.seal();
                    let _stripe = table.lock_stripe(table.stripe(7));
                    gcra.used(table.take(&gcra, 7, at), at)
                },
                |table| charge(table, 9, 7, 5) + charge(table, 9, 7, 5),
            ],
            if known == 0 {
                |table, results| {
                    assert_eq!(results[0], results[1], "charged here and seen");
                    assert_eq!(charge(table, 9, 7, 5), 0, "nothing is charged here any more");
                }
            } else {
                |table, results| {
                    assert_eq!(results[0], results[1] + 1, "charged here and seen");
                    assert_eq!(charge(table, 9, 7, 5), 0, "nothing is charged here any more");
                }
            },
        );
    }
}
