//! Who waits, in which order, and how long.

use std::time::Duration;

use ratelimit_core::{Limit, Rate};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_layers::keys::Everyone;
use tower_layers::rate_limit::{RateLimitRule, WaitPolicy};

use crate::buckets::{Calls, Limited, bucket, from, layer, name, rule, send, status};

fn waiting(rules: Vec<RateLimitRule>, deadline_ms: u64, waiting_max: usize) -> Limited {
    let policy = WaitPolicy { deadline: Duration::from_millis(deadline_ms), waiting_max };
    Calls::default().behind(&layer(rules).wait(policy).expect("a layer"))
}

/// Sends a request in the background, and lets it come as far as it does.
async fn sent(service: &Limited, client: &'static str) -> JoinHandle<(u16, Duration)> {
    let (service, began) = (service.clone(), Instant::now());
    let task = tokio::spawn(async move { (status(&service, from(client)).await, began.elapsed()) });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    task
}

fn seconds(waited: Duration) -> u64 {
    (waited.as_millis() as u64 + 50) / 1_000
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_in_the_order_of_arrival_and_at_the_rate() {
    let service = waiting(vec![bucket("burst", 2)], 60_000, 100);
    let (done, mut order) = mpsc::unbounded_channel();
    let began = Instant::now();
    for number in 0..6_u64 {
        let (service, done) = (service.clone(), done.clone());
        tokio::spawn(async move {
            assert_eq!(status(&service, from("a")).await, 200);
            done.send((number, seconds(began.elapsed()))).expect("counted");
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    drop(done);
    let mut served = Vec::new();
    while let Some(one) = order.recv().await {
        served.push(one);
    }
    assert_eq!(served, [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_who_waits() {
    let service = waiting(vec![bucket("burst", 1)], 60_000, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let first = sent(&service, "a").await;
    // At the very instant in which there is one again, the one that waits gets it.
    tokio::time::advance(Duration::from_millis(1_000)).await;
    let second = sent(&service, "a").await;
    let (first, second) = (first.await.expect("ended"), second.await.expect("ended"));
    assert_eq!((first.0, seconds(first.1)), (200, 1));
    assert_eq!((second.0, seconds(second.1)), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_the_deadline_or_for_nothing() {
    let service = waiting(vec![bucket("burst", 1)], 2_500, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(sent(&service, "a").await);
    }
    let mut ended = Vec::new();
    for task in tasks {
        let (status, waited) = task.await.expect("ended");
        assert!(waited < Duration::from_millis(2_600), "{waited:?}");
        ended.push(status);
    }
    assert_eq!(ended, [200, 200, 429, 429, 429]);
    // Who cannot make it is told at once.
    let hour =
        RateLimitRule::new(name("hour"), Limit::gcra(Rate::per_hour(1), 1).expect("a limit"), Everyone);
    let service = waiting(vec![hour], 2_500, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let (refused, waited) = sent(&service, "a").await.await.expect("ended");
    assert_eq!((refused, waited), (429, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_while_waiting_has_consumed_nothing_and_holds_nobody_up() {
    let service = waiting(vec![bucket("burst", 1)], 60_000, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let (first, second, third) =
        (sent(&service, "a").await, sent(&service, "a").await, sent(&service, "a").await);
    first.abort();
    assert!(first.await.expect_err("gone").is_cancelled());
    second.abort();
    assert!(second.await.expect_err("gone").is_cancelled());
    let (served, waited) = third.await.expect("ended");
    assert_eq!((served, seconds(waited)), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait_and_places_are_free_again_afterwards() {
    let service = waiting(vec![bucket("burst", 1)], 60_000, 2);
    for client in ["a", "b"] {
        assert_eq!(status(&service, from(client)).await, 200);
    }
    let (first, second) = (sent(&service, "a").await, sent(&service, "b").await);
    let (refused, waited) = sent(&service, "a").await.await.expect("ended");
    assert_eq!((refused, waited), (429, Duration::ZERO));
    assert_eq!((first.await.expect("ended").0, second.await.expect("ended").0), (200, 200));
    let (served, waited) = sent(&service, "a").await.await.expect("ended");
    assert_eq!((served, seconds(waited)), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn clients_wait_for_their_own_limit_and_not_for_each_other() {
    let service = waiting(vec![bucket("burst", 1)], 60_000, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let first = sent(&service, "a").await;
    let (served, waited) = sent(&service, "b").await.await.expect("ended");
    assert_eq!((served, waited), (200, Duration::ZERO));
    assert_eq!(first.await.expect("ended").0, 200);
}

fn own(limit: Limit) -> RateLimitRule {
    rule("own", limit)
}

/// The rule that denies is another one when the turn comes.
#[tokio::test(start_paused = true)]
async fn who_waits_for_its_own_limit_and_then_for_that_of_all_is_served_when_both_have_room() {
    let all =
        RateLimitRule::new(name("all"), Limit::gcra(Rate::per_second(1), 1).expect("a limit"), Everyone);
    let slow = Limit::gcra(Rate::new(1, Duration::from_secs(2)), 1).expect("a limit");
    let service = waiting(vec![own(slow), all], 60_000, 100);
    assert_eq!(status(&service, from("a")).await, 200);
    let again = sent(&service, "a").await;
    tokio::time::advance(Duration::from_millis(1_500)).await;
    let (served, waited) = sent(&service, "b").await.await.expect("ended");
    assert_eq!((served, waited), (200, Duration::ZERO));
    let (served, waited) = again.await.expect("ended");
    assert_eq!((served, waited.as_millis() / 100), (200, 25), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_permit_gets_it_when_it_is_returned_and_in_order() {
    let permits = Limit::concurrency(1, Duration::from_secs(600)).expect("a limit");
    let service = waiting(vec![rule("permits", permits)], 5_000, 100);
    let held = send(&service, from("a")).await;
    let (first, second) = (sent(&service, "a").await, sent(&service, "a").await);
    tokio::time::advance(Duration::from_secs(2)).await;
    drop(held);
    // The answer of each is dropped as soon as its status is known, which is when the next one gets the permit.
    for waits in [first, second] {
        let (served, waited) = waits.await.expect("ended");
        assert_eq!((served, seconds(waited)), (200, 2));
    }
    let held = send(&service, from("a")).await;
    let (refused, waited) = sent(&service, "a").await.await.expect("ended");
    assert_eq!((refused, seconds(waited)), (429, 5));
    drop(held);
    assert_eq!(status(&service, from("a")).await, 200);
}
