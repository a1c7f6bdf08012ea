//! Real servers on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use ratelimit_core::{Limit, Rate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower_layers::client_ip::{ClientIpLayer, ClientIpPolicy, ForwardingHeader, Grouping};
use tower_layers::keys::{ClientAddress, Everyone, Extract, MatchedRoute};
use tower_layers::rate_limit::{RateLimitLayer, RateLimitRule};

use crate::buckets::name;

const ANSWER_MAX: Duration = Duration::from_secs(20);

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// Head and body of the answer to a request on a connection of its own.
async fn answer(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    timeout(ANSWER_MAX, stream.read_to_string(&mut text)).await.expect("in time").expect("read");
    text
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).expect("a status")
}

fn per_hour(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

/// Behind one trusted proxy, which is loopback.
fn behind_proxy() -> ClientIpLayer {
    ClientIpLayer::new(ClientIpPolicy::behind(
        ForwardingHeader::XForwardedFor,
        "127.0.0.1".parse().expect("a list"),
    ))
}

fn by_address(limit: Limit) -> RateLimitRule {
    RateLimitRule::new(name("client"), limit, ClientAddress::new(Grouping::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_requests_at_once_exactly_as_many_are_admitted_as_the_limit_says() {
    let layer = RateLimitLayer::new(vec![by_address(per_hour(10))]).expect("a layer");
    let app = Router::new().route("/", get(async || "served")).layer(layer).layer(behind_proxy());
    let address = serve(app).await;
    let client = |number: u64| {
        // Every second one invents an address to the left of what the proxy says.
        let forged = if number.is_multiple_of(2) { format!("198.51.100.{number}, ") } else { String::new() };
        async move { answer(address, "GET", "/", &format!("X-Forwarded-For: {forged}203.0.113.5\r\n")).await }
    };
    let answers: Vec<_> = (0..40).map(|number| tokio::spawn(client(number))).collect();
    let (mut admitted, mut refused) = (0, 0);
    for answer in answers {
        let answer = answer.await.expect("answered");
        match status(&answer) {
            "200" => admitted += 1,
            "429" => {
                refused += 1;
                // Whose clock was read just before another one's request was charged waits for a moment longer.
                let waits = |seconds: u32| answer.contains(&format!("\r\nretry-after: {seconds}\r\n"));
                assert!(waits(3_600) || waits(3_601), "{answer}");
                assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"), "{answer}");
                assert!(answer.ends_with(r#""violated-policies":["client"]}"#), "{answer}");
            }
            _ => panic!("{answer}"),
        }
    }
    assert_eq!((admitted, refused), (10, 30));
    // Another client is not affected.
    assert_eq!(status(&answer(address, "GET", "/", "X-Forwarded-For: 203.0.113.6\r\n").await), "200");
}

#[tokio::test]
async fn routes_have_limits_of_their_own_by_their_pattern_and_share_those_of_all() {
    let by_route = ClientAddress::new(Grouping::default()).and(MatchedRoute);
    let layer = RateLimitLayer::new(vec![
        RateLimitRule::new(name("route"), per_hour(2), by_route),
        RateLimitRule::new(name("all"), per_hour(5), Everyone),
    ])
    .expect("a layer");
    let app = Router::new()
        .route("/login", post(async || "welcome"))
        .route("/users/{id}", get(async || "ada"))
        .route_layer(layer)
        .layer(behind_proxy());
    let address = serve(app).await;
    let get = async |path: &str| status(&answer(address, "GET", path, "").await).to_owned();
    let log_in =
        async || status(&answer(address, "POST", "/login", "Content-Length: 0\r\n").await).to_owned();
    // Another user's page is the same route.
    assert_eq!([get("/users/1").await, get("/users/2").await, get("/users/3").await], ["200", "200", "429"]);
    assert_eq!([log_in().await, log_in().await, log_in().await], ["200", "200", "429"]);
    // What is no route is not counted.
    assert_eq!(get("/nowhere").await, "404");
    let other = async |path: &str| {
        status(&answer(address, "GET", path, "X-Forwarded-For: 203.0.113.6\r\n").await).to_owned()
    };
    assert_eq!([other("/users/1").await, other("/users/1").await], ["200", "429"], "five of all are used up");
}
