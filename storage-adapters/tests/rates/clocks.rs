//! Wall clocks that step between two runs, and epochs that change.

use std::time::Duration;

use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{HORIZON_NS, Limit, Nanos, Rate};
use storage_adapters::redb::rates::{RateOptions, RedbRateError, RedbRateStore};

use super::world::{EPOCH, HOUR, Home, START, admits, bucket, key, left, options, policy};

const DAY: Duration = Duration::from_secs(86_400);

fn seconds(burst: u64) -> Limit {
    Limit::gcra(Rate::per_second(1), burst).expect("the limit can be kept")
}

fn before(now: Nanos, earlier: Duration) -> Nanos {
    Nanos(now.0.saturating_sub(Nanos::from_duration(earlier).0))
}

#[test]
fn a_clock_that_went_back_locks_nobody_out_for_longer_than_a_full_bucket() {
    for back in [Duration::from_secs(1), HOUR, DAY] {
        let home = Home::new();
        let now = START.after(DAY * 2);
        let store = home.open(vec![policy("bucket", seconds(10))], now);
        assert!(admits(&store, 0, &key("client"), 10, now));
        drop(store);
        // Opened twice at the wrong time: the second finds what the first has corrected.
        let earlier = before(now, back);
        drop(home.open(vec![policy("bucket", seconds(10))], earlier));
        let store = home.open(vec![policy("bucket", seconds(10))], earlier);
        assert_eq!(left(&store, 0, &key("client"), earlier), 0, "what was used stays used");
        let refilled = earlier.after(Duration::from_secs(10));
        assert_eq!(left(&store, 0, &key("client"), refilled), 10, "back by {back:?}");
    }
}

#[test]
fn a_clock_that_went_back_ends_a_window_when_the_window_of_that_time_ends() {
    let home = Home::new();
    let limit = || Limit::fixed_window(5, HOUR).expect("the limit can be kept");
    let now = Nanos::from_duration(HOUR * 1_000);
    let store = home.open(vec![policy("window", limit())], now);
    assert!(admits(&store, 0, &key("client"), 5, now));
    drop(store);
    let earlier = before(now, DAY * 30);
    let store = home.open(vec![policy("window", limit())], earlier);
    assert_eq!(left(&store, 0, &key("client"), earlier), 0);
    assert_eq!(left(&store, 0, &key("client"), earlier.after(HOUR)), 5);
}

#[test]
fn a_clock_that_went_ahead_opens_what_that_time_would_have_opened() {
    let home = Home::new();
    let store = home.open(vec![policy("bucket", seconds(100))], START);
    assert!(admits(&store, 0, &key("client"), 100, START));
    drop(store);
    let ahead = START.after(Duration::from_secs(30));
    let store = home.open(vec![policy("bucket", seconds(100))], ahead);
    assert_eq!(left(&store, 0, &key("client"), ahead), 30);
    drop(store);
    // And when it is set right again, nothing opens a second time.
    let store = home.open(vec![policy("bucket", seconds(100))], START);
    assert_eq!(left(&store, 0, &key("client"), START), 0);
}

#[test]
fn a_clock_from_before_the_epoch_is_no_harm() {
    let home = Home::new();
    let store = home.open(vec![policy("bucket", bucket(10))], START);
    assert!(admits(&store, 0, &key("client"), 10, START));
    drop(store);
    let store = home.open(vec![policy("bucket", bucket(10))], Nanos(0));
    assert_eq!(left(&store, 0, &key("client"), Nanos(0)), 0);
    assert_eq!(left(&store, 0, &key("client"), Nanos::from_duration(HOUR * 10)), 10);
}

/// All limits, each as somebody has it who counts from that long after [`EPOCH`].
fn from_epoch(later: Duration) -> Vec<ratelimit_core::ports::Policy> {
    let days = (0..100).map(|day| Nanos::from_duration((DAY * day).saturating_sub(later)));
    let mut days: Vec<Nanos> = days.collect();
    days.dedup();
    let boundaries = Boundaries::new(CalendarUnit::Day, "UTC", days).expect("ascending");
    let window = Limit::fixed_window_from(20, DAY, later);
    vec![
        policy("bucket", bucket(20)),
        policy("window", window.expect("the limit can be kept")),
        policy("calendar", Limit::calendar(20, boundaries).expect("the limit can be kept")),
    ]
}

#[test]
fn another_epoch_converts_what_is_there_and_never_widens_it() {
    let home = Home::new();
    let now = Nanos::from_duration(DAY * 3 + HOUR);
    let store = home.open(from_epoch(Duration::ZERO), now);
    for policy in 0..3 {
        assert!(admits(&store, policy, &key("client"), 9, now));
    }
    drop(store);
    assert_eq!(RedbRateStore::recorded_epoch(&home.path()).expect("it can be read"), Some(EPOCH));
    // A day and ten minutes later by the new count, which is the same instant.
    let later = DAY + Duration::from_secs(600);
    let options = RateOptions { epoch: EPOCH + later, ..options() };
    let now = before(now, later);
    for round in 0..3 {
        let store = home.try_open(from_epoch(later), options, now).expect("the store opens");
        for policy in 0..3 {
            let left = left(&store, policy, &key("client"), now);
            assert!((8..=11).contains(&left), "policy {policy}, round {round}: {left} are left");
        }
    }
    assert_eq!(RedbRateStore::recorded_epoch(&home.path()).expect("it can be read"), Some(EPOCH + later));
    let store = home.try_open(from_epoch(later), options, now).expect("the store opens");
    let tomorrow = now.after(DAY);
    assert_eq!(left(&store, 1, &key("client"), tomorrow), 20, "a window ends where it would have ended");
    assert_eq!(left(&store, 2, &key("client"), tomorrow), 20);
    assert!(left(&store, 1, &key("client"), now.after(HOUR * 22)) <= 11, "and not before");
}

#[test]
fn a_clock_that_is_so_far_from_the_epoch_that_time_would_stand_still_is_refused_and_told() {
    let home = Home::new();
    let last = Nanos(HORIZON_NS - 1);
    drop(home.open(vec![policy("bucket", bucket(10))], START));
    drop(home.open(vec![policy("bucket", bucket(10))], last));
    let refused = home.try_open(vec![policy("bucket", bucket(10))], options(), Nanos(HORIZON_NS));
    let error = refused.expect_err("nothing would ever refill");
    assert!(matches!(error, RedbRateError::FarFromEpoch { days: 3_335, days_max: 3_335, .. }), "{error:?}");
    assert!(error.to_string().contains("nearer to the present"), "{error}");
}

#[test]
fn there_is_no_epoch_where_there_is_no_file() {
    let home = Home::new();
    assert_eq!(RedbRateStore::recorded_epoch(&home.path()).expect("it can be looked for"), None);
}
