use ratelimit_server::rls::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use ratelimit_server::rls::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tonic::Code as GrpcCode;

use crate::server::{Setup, TestServers};

pub fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..RateLimitDescriptor::default() }
}

pub fn asking(descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest { domain: "web".to_owned(), descriptors, hits_addend: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_have_the_length_and_order_of_the_descriptors_and_tell_the_limit() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let request = || {
        asking(vec![
            descriptor(&[("unknown", "x")]),
            descriptor(&[("client_ip", "a")]),
            descriptor(&[("friend", "f")]),
            descriptor(&[("trial", "t")]),
        ])
    };
    for round in 0..4u32 {
        let answer = client.should_rate_limit(request()).await.expect("decided").into_inner();
        let code = if round < 3 { Code::Ok } else { Code::OverLimit };
        assert_eq!(answer.overall_code(), code);
        assert_eq!(answer.statuses.len(), 4);
        assert!(answer.statuses[0].current_limit.is_none() && answer.statuses[0].code() == Code::Ok);
        let limited = &answer.statuses[1];
        assert_eq!(limited.code(), code);
        assert_eq!(limited.limit_remaining, 2u32.saturating_sub(round));
        let limit = limited.current_limit.as_ref().expect("a limit");
        assert_eq!((limit.name.as_str(), limit.requests_per_unit, limit.unit), ("per-client", 3, 2));
        let seconds = limited.duration_until_reset.as_ref().expect("a time").seconds;
        let expected = if round < 3 { i64::from(20 * (round + 1)) } else { 20 };
        assert!((expected - 2..=expected).contains(&seconds), "{seconds}");
        assert_eq!((answer.statuses[2].code(), answer.statuses[2].limit_remaining), (Code::Ok, u32::MAX));
        // In shadow: denied from the second on, and told as OK.
        assert_eq!(answer.statuses[3].code(), Code::Ok);
        let retry = answer.response_headers_to_add.iter().find(|header| header.key == "retry-after");
        assert_eq!(retry.is_some(), round == 3);
        assert!(answer.response_headers_to_add.iter().any(|header| header.key == "ratelimit"));
    }
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_a_descriptor_win_and_zero_looks() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let mut remaining = async |hits: Option<u64>, of_request: u32, negative: bool| {
        let mut described = descriptor(&[("client_ip", "a")]);
        (described.hits_addend, described.is_negative_hits) = (hits, negative);
        let request = RateLimitRequest { hits_addend: of_request, ..asking(vec![described]) };
        let answer = client.should_rate_limit(request).await.expect("decided").into_inner();
        (answer.overall_code(), answer.statuses[0].limit_remaining)
    };
    assert_eq!(remaining(Some(0), 1, false).await, (Code::Ok, 3));
    assert_eq!(remaining(None, 0, false).await, (Code::Ok, 2));
    // Negative hits carry no grant: nothing is given back, and nothing is taken.
    assert_eq!(remaining(Some(2), 1, true).await.0, Code::Ok);
    assert_eq!(remaining(Some(2), 1, false).await, (Code::Ok, 0));
    assert_eq!(remaining(Some(0), 1, false).await, (Code::OverLimit, 0));
    assert_eq!(remaining(None, 2, false).await.0, Code::OverLimit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_denies_charges_no_other() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    for _ in 0..5 {
        let request = asking(vec![descriptor(&[("client_ip", "a")]), descriptor(&[("banned", "b")])]);
        let answer = client.should_rate_limit(request).await.expect("decided").into_inner();
        assert_eq!(answer.overall_code(), Code::OverLimit);
        assert_eq!((answer.statuses[0].code(), answer.statuses[1].code()), (Code::Ok, Code::OverLimit));
        assert_eq!(answer.statuses[0].limit_remaining, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_an_error_of_grpc_and_never_unknown() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let mut wrong_unit = descriptor(&[("client_ip", "a")]);
    wrong_unit.limit = Some(RateLimitOverride { requests_per_unit: 5, unit: 99 });
    for request in [
        RateLimitRequest::default(),
        asking(vec![]),
        asking(vec![descriptor(&[])]),
        asking(vec![descriptor(&[("", "x")])]),
        asking(vec![descriptor(&[("k", "v")]); 33]),
        asking(vec![wrong_unit]),
    ] {
        let error = client.should_rate_limit(request).await.expect_err("refused");
        assert_eq!(error.code(), GrpcCode::InvalidArgument, "{error}");
    }
}

/// A path of 5,000 bytes was `INVALID_ARGUMENT`, and Envoy lets pass what was not decided: a client with a long URL had no limits.
#[tokio::test(flavor = "multi_thread")]
async fn long_text_counts_like_any_other_and_what_is_too_long_is_over_the_limit() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let mut code = async |value: &str| {
        let request = asking(vec![descriptor(&[("client_ip", value)]), descriptor(&[("path", value)])]);
        let answer = client.should_rate_limit(request).await.expect("decided").into_inner();
        answer.overall_code()
    };
    let long = "v".repeat(60 << 10);
    for expected in [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit] {
        assert_eq!(code(&long).await, expected);
    }
    assert_eq!(code(&long[1..]).await, Code::Ok);
    // Beyond what a request may have, and beyond what a message may have.
    for bytes in [129 << 10, 1 << 20] {
        assert_eq!(code(&"v".repeat(bytes)).await, Code::OverLimit, "{bytes}");
    }
    let tokened = TestServers::start(Setup { check_token: Some("check"), ..Setup::default() }).await;
    let error = tokened.rls().await.should_rate_limit(asking(vec![])).await.expect_err("refused");
    assert_eq!(error.code(), GrpcCode::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_shows_its_token() {
    let servers = TestServers::start(Setup { check_token: Some("check"), ..Setup::default() }).await;
    let mut client = servers.rls().await;
    let ask = |token: Option<&str>| {
        let mut request = tonic::Request::new(asking(vec![descriptor(&[("client_ip", "a")])]));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a value");
            request.metadata_mut().insert("authorization", value);
        }
        request
    };
    for token in [None, Some("wrong")] {
        let error = client.should_rate_limit(ask(token)).await.expect_err("refused");
        assert_eq!(error.code(), GrpcCode::Unauthenticated);
    }
    assert!(client.should_rate_limit(ask(Some("check"))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_serving() {
    let servers = TestServers::open().await;
    let channel = tonic::transport::Endpoint::new(format!("http://{}", servers.rls)).expect("a URL");
    let channel = channel.connect().await.expect("a connection");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = tonic_health::pb::HealthCheckRequest {
        service: "envoy.service.ratelimit.v3.RateLimitService".to_owned(),
    };
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    assert_eq!(health.check(asked).await.expect("an answer").into_inner().status(), serving);
}
