//! A bounded number of keys.

use std::time::Duration;

use ratelimit_core::{Limit, Rate};
use storage_adapters::redb::rates::RateOptions;

use super::world::{Home, START, admits, charge, key, left, options, policy, run, window};
use ratelimit_core::ports::RateStore;

#[test]
fn without_room_a_new_key_is_denied_and_counted_and_those_inside_keep_their_limits() {
    let home = Home::new();
    let options = RateOptions { keys_max: 100, ..options() };
    let policies = || vec![policy("window", window(3))];
    let store = home.try_open(policies(), options, START).expect("the store opens");
    assert_eq!(store.room_keys(), 100);
    for client in 0..100 {
        assert!(admits(&store, 0, &key(&client.to_string()), 1, START));
    }
    for client in 100..1_100 {
        assert!(!admits(&store, 0, &key(&client.to_string()), 1, START), "{client} has no room");
    }
    assert_eq!(store.overflowed(), 1_000);
    assert_eq!(store.live_keys(START), 100);
    let verdict = run(store.check(&[charge(0, &key("one more"), 1)], START)).expect("it decides").0;
    let wait = verdict.decisions().first().and_then(|decision| decision.retry_after());
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "it is told when to come back: {wait:?}");
    for client in 0..100 {
        let admitted = (0..5).filter(|_| admits(&store, 0, &key(&client.to_string()), 1, START)).count();
        assert_eq!(admitted, 2, "client {client} had one of three");
    }
    drop(store);
    let store = home.try_open(policies(), options, START).expect("the store opens");
    assert_eq!(store.live_keys(START), 100, "denied keys left nothing");
}

#[test]
fn keys_that_are_full_again_make_room_in_memory_and_in_the_file() {
    let home = Home::new();
    let options = RateOptions { keys_max: 200, ..options() };
    let limit = Limit::gcra(Rate::per_second(1), 2).expect("the limit can be kept");
    let policies = || vec![policy("bucket", limit.clone())];
    let store = home.try_open(policies(), options, START).expect("the store opens");
    let mut now = START;
    for client in 0..5_000 {
        now = now.after(Duration::from_millis(20));
        assert!(admits(&store, 0, &key(&client.to_string()), 1, now), "client {client}");
    }
    assert_eq!(store.overflowed(), 0, "a hundred keys are live at a time");
    drop(store);
    let store = home.try_open(policies(), options, now).expect("the store opens");
    // A word on the disk is a cell, which is a second, ahead.
    assert!(store.live_keys(now) <= 101, "{}", store.live_keys(now));
    drop(store);
    let bytes = std::fs::metadata(home.path()).expect("there is a file").len();
    assert!(bytes < 4 << 20, "the file stays small: {bytes}");
}

#[test]
fn a_request_about_more_keys_than_there_is_room_for_takes_nothing() {
    let home = Home::new();
    let options = RateOptions { keys_max: 2, ..options() };
    let store = home.try_open(vec![policy("window", window(3))], options, START).expect("the store opens");
    let keys = [key("a"), key("b"), key("c")];
    let charges: Vec<_> = keys.iter().map(|key| charge(0, key, 1)).collect();
    assert!(!run(store.check(&charges, START)).expect("it decides").0.is_allowed());
    assert!(!run(store.peek(&charges, START)).expect("it looks").is_allowed(), "a look says the same");
    assert_eq!((store.live_keys(START), store.overflowed()), (0, 1));
    assert!(run(store.check(&charges[..2], START)).expect("it decides").0.is_allowed());
    assert_eq!(left(&store, 0, &keys[0], START), 2);
}

/// Until November 2026 all policies had one room, and whoever filled it under one rule shut out the new clients of all others.
#[test]
fn a_flood_under_one_policy_leaves_every_other_one_its_part_of_the_room() {
    let home = Home::new();
    let options = RateOptions { keys_max: 120, ..options() };
    let policies =
        || vec![policy("flooded", window(3)), policy("logins", window(3)), policy("resets", window(3))];
    let store = home.try_open(policies(), options, START).expect("the store opens");
    let admitted = |policy, from: u32, to: u32| {
        let keys = (from..to).map(|client| key(&client.to_string()));
        keys.filter(|key| admits(&store, policy, key, 1, START)).count()
    };
    // Half of the room in three parts is 20 each; the other 60 are for whoever comes first.
    assert_eq!(admitted(0, 0, 1_000), 80);
    assert_eq!(admitted(1, 0, 1_000), 20);
    assert_eq!(admitted(2, 0, 10), 10, "and nobody else has used this one's");
    assert_eq!(admitted(0, 1_000, 1_010), 0);
    assert_eq!(admitted(2, 10, 1_000), 10);
    assert_eq!(store.live_keys(START), 120);
    // A request that needs two places of which there is one takes none.
    run(store.reset(&[charge(2, &key("0"), 0)], START)).expect("it forgets");
    let two = [key("new"), key("newer")];
    let charges: Vec<_> = two.iter().map(|key| charge(2, key, 1)).collect();
    assert!(!run(store.check(&charges, START)).expect("it decides").0.is_allowed());
    assert!(admits(&store, 2, &two[0], 1, START));
    // What is freed in common is anybody's.
    run(store.reset(&[charge(0, &key("0"), 0)], START)).expect("it forgets");
    assert!(admits(&store, 1, &two[0], 1, START));
    assert!(!admits(&store, 0, &two[0], 1, START));
}

#[test]
fn a_policy_that_is_alone_or_comes_later_has_its_part() {
    let home = Home::new();
    let options = RateOptions { keys_max: 100, ..options() };
    let store = home.try_open(vec![policy("a", window(3))], options, START).expect("the store opens");
    for client in 0..100 {
        assert!(admits(&store, 0, &key(&client.to_string()), 1, START), "all is its own");
    }
    run(store.reopen(vec![policy("a", window(3)), policy("b", window(3))], START)).expect("it is durable");
    assert!(!admits(&store, 1, &key("0"), 1, START), "there is no room at all yet");
    for client in 0..30 {
        run(store.reset(&[charge(0, &key(&client.to_string()), 0)], START)).expect("it forgets");
    }
    for client in 0..25 {
        assert!(
            !admits(&store, 0, &key(&format!("new {client}")), 1, START) || client < 5,
            "client {client}"
        );
        assert!(admits(&store, 1, &key(&client.to_string()), 1, START), "client {client}");
    }
}
