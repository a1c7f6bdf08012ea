//! What is given back, and when.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use ratelimit_core::{Limit, Rate};
use tower::{Layer, Service, ServiceExt};

use crate::buckets::{Calls, bucket, from, layer, rule, send, status, with};

fn cost(response: tower_layers::keys::ResponseHead<'_>) -> Option<u64> {
    response.headers.get("cost")?.to_str().ok()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cost_less_than_was_charged_gets_the_rest_back() {
    let service =
        Calls::default().behind(&layer(vec![bucket("units", 10).with_cost(|_| 8).with_response_cost(cost)]));
    assert_eq!(status(&service, with("a", "costs", "1")).await, 200);
    // 9 are left: another 8 fit, then no more.
    assert_eq!(status(&service, with("a", "costs", "8")).await, 200);
    assert_eq!(status(&service, with("a", "costs", "8")).await, 429);
    // Without a word of the response the charge stands.
    assert_eq!(status(&service, from("b")).await, 200);
    assert_eq!(status(&service, from("b")).await, 429);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cost_more_owes_the_rest_where_the_limit_allows_debt() {
    let owing = Limit::gcra_with_debt(Rate::per_second(1), 10, 20).expect("a limit");
    let service = Calls::default().behind(&layer(vec![rule("units", owing).with_response_cost(cost)]));
    assert_eq!(status(&service, with("a", "costs", "25")).await, 200);
    tokio::time::advance(Duration::from_millis(15_500)).await;
    assert_eq!(status(&service, from("a")).await, 429);
    tokio::time::advance(Duration::from_millis(501)).await;
    assert_eq!(status(&service, from("a")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_is_read_or_dropped() {
    let permits = Limit::concurrency(1, Duration::from_secs(60)).expect("a limit");
    let service = Calls::default().behind(&layer(vec![rule("permits", permits)]));
    let mut answer = send(&service, from("a")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(status(&service, from("a")).await, 429);
    assert_eq!(status(&service, from("b")).await, 200);
    while let Some(frame) = answer.body_mut().frame().await {
        assert_eq!(status(&service, from("a")).await, 429);
        frame.expect("a frame");
    }
    let dropped = send(&service, from("a")).await;
    assert_eq!(dropped.status(), 200);
    drop(dropped);
    assert_eq!(status(&service, from("a")).await, 200);
}

/// Ready only after it was told so.
#[derive(Clone)]
struct Unready(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Service<http::Request<Full<Bytes>>> for Unready {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        if self.0.load(std::sync::atomic::Ordering::SeqCst) {
            std::task::Poll::Ready(Ok(()))
        } else {
            std::task::Poll::Pending
        }
    }

    fn call(&mut self, _: http::Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_charged_for_a_request_that_is_never_served_is_given_back() {
    let hour = Limit::gcra(Rate::per_hour(1), 2).expect("a limit");
    let policy =
        tower_layers::rate_limit::WaitPolicy { deadline: Duration::from_secs(7_200), waiting_max: 10 };
    let layer = layer(vec![rule("units", hour)]).wait(policy).expect("a layer");
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut service = layer.layer(Unready(std::sync::Arc::clone(&ready)));
    for _ in 0..2 {
        assert_eq!(
            service.ready().await.expect("ready").call(from("a")).await.expect("answered").status(),
            200
        );
    }
    // The third waits an hour, is admitted, and leaves while the service is not ready.
    let third = service.ready().await.expect("ready").call(from("a"));
    ready.store(false, std::sync::atomic::Ordering::SeqCst);
    let left = tokio::time::timeout(Duration::from_secs(3_601), third).await;
    assert!(left.is_err(), "it was served");
    ready.store(true, std::sync::atomic::Ordering::SeqCst);
    let fourth = service.ready().await.expect("ready").call(from("a"));
    let fourth = tokio::time::timeout(Duration::from_secs(1), fourth).await.expect("there is one at once");
    assert_eq!(fourth.expect("answered").status(), 200);
}
