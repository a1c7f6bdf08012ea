//! Wall clocks that are years apart between two starts of a server with `--engine redb:FILE`.
//!
//! Until November 2026 a server always counted from the instant at which its file had been made. One that was made while the clock
//! stood in 1970 denied for ever once it was right: nine years behind its epoch time stands still. One that was made by a
//! clock that was ahead began anew at each start.

use std::path::Path;
use std::time::Duration;

use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore};
use ratelimit_core::{Enforcement, KeyParts, Limit, Nanos, Rate};
use ratelimit_server::{DurableStore, EPOCH_AGE_MAX, WallClock};
use tower_layers::rate_limit::Clock;

const YEAR_S: u64 = 365 * 86_400;
const IN_1970: Duration = Duration::from_secs(5);
const IN_2026: Duration = Duration::from_secs(56 * YEAR_S);
const IN_2100: Duration = Duration::from_secs(130 * YEAR_S);

const SIZE: u64 = 10;

fn policies() -> Vec<Policy> {
    let bucket = Limit::gcra(Rate::per_second(1), SIZE).expect("a limit");
    let window = Limit::fixed_window(SIZE, Duration::from_secs(60)).expect("a limit");
    let policy =
        |name: &str, limit| Policy { name: name.to_owned(), limit, enforcement: Enforcement::Enforced };
    vec![policy("bucket", bucket), policy("window", window)]
}

/// The store has a thread of its own, and needs no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

struct Started {
    store: DurableStore,
    now: Nanos,
}

fn start(path: &Path, wall: Duration) -> Started {
    let clock = WallClock::at(path, wall).expect("the file can be read");
    let store = DurableStore::open(path, policies(), &clock, 1_000).expect("it opens");
    Started { store, now: clock.now() }
}

impl Started {
    fn left(&self, policy: u32, later: Duration) -> u64 {
        let key = KeyParts::new(["client"]);
        let charges = [Charge { policy: PolicyId(policy), key: &key, cost: 0 }];
        let verdict = block_on(self.store.peek(&charges, self.now.after(later))).expect("it looks");
        verdict.decisions()[0].remaining()
    }

    /// Takes what there is. How much that was.
    fn drain(&self, policy: u32, later: Duration) -> u64 {
        let key = KeyParts::new(["client"]);
        let charges = [Charge { policy: PolicyId(policy), key: &key, cost: 1 }];
        let now = self.now.after(later);
        let admits = |_: &u64| block_on(self.store.check(&charges, now)).expect("it decides").0.is_allowed();
        (0..3 * SIZE).take_while(admits).count() as u64
    }
}

#[test]
fn whatever_the_clock_showed_when_the_file_was_made_limits_refill_and_nobody_has_two() {
    let walls = [IN_1970, IN_2026, IN_2100, IN_2026 + EPOCH_AGE_MAX * 2];
    for made in walls {
        for found in walls {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("counters.db");
            let first = start(&path, made);
            for policy in 0..2 {
                assert_eq!(first.drain(policy, Duration::ZERO), SIZE);
            }
            drop(first);
            // What a clock that went ahead opens, and one that stands or went back does not.
            let opened = if found > made { SIZE } else { 0 };
            let second = start(&path, found);
            for policy in 0..2 {
                assert_eq!(second.drain(policy, Duration::ZERO), opened, "made {made:?}, found {found:?}");
            }
            drop(second);
            let third = start(&path, found);
            for policy in 0..2 {
                assert_eq!(third.drain(policy, Duration::ZERO), 0, "no second time");
            }
            assert_eq!(third.left(0, Duration::from_secs(3)), 3, "made {made:?}, found {found:?}");
            assert_eq!(third.left(0, Duration::from_secs(SIZE)), SIZE);
            assert_eq!(third.left(1, Duration::from_secs(60)), SIZE, "a window ends");
        }
    }
}

#[test]
fn a_clock_that_goes_back_and_forth_opens_one_burst_each_time_that_it_goes_ahead() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("counters.db");
    let mut admitted = 0;
    for round in 0..3 {
        for wall in [IN_2026, IN_1970, IN_1970, IN_2026, IN_2026] {
            admitted += start(&path, wall).drain(0, Duration::ZERO);
        }
        assert_eq!(admitted, SIZE * (round + 2));
    }
}

#[test]
fn a_file_that_is_not_too_old_keeps_its_epoch_and_its_counters_to_the_cell() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("counters.db");
    assert_eq!(start(&path, IN_2026).drain(0, Duration::ZERO), SIZE);
    let epoch = |wall| WallClock::at(&path, wall).expect("the file can be read").epoch();
    assert_eq!(epoch(IN_2026 + EPOCH_AGE_MAX), IN_2026);
    let later = IN_2026 + EPOCH_AGE_MAX + Duration::from_secs(1);
    assert_eq!(epoch(later), later);
    let earlier = IN_2026 - Duration::from_secs(1);
    assert_eq!(epoch(earlier), earlier, "an epoch ahead of the clock would begin anew at each start");
    assert_eq!(epoch(IN_2026), IN_2026, "nothing has changed by asking");
}
