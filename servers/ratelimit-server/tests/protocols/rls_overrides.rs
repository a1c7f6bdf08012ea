//! Limits that a proxy sends with a descriptor. The servers' clock begins a window of every unit: no test takes an hour.

use ratelimit_server::rls::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use ratelimit_server::rls::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::RateLimitResponse;
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::Channel;

use crate::rls_calls::{asking, descriptor};
use crate::server::TestServers;

const HOUR: i32 = 3;
const DAY: i32 = 4;

type Client = RateLimitServiceClient<Channel>;

/// `key=value`, under so many per unit.
fn under(key: &str, value: &str, requests_per_unit: u32, unit: i32) -> RateLimitDescriptor {
    let limit = Some(RateLimitOverride { requests_per_unit, unit });
    RateLimitDescriptor { limit, ..descriptor(&[(key, value)]) }
}

fn hitting(hits: u64, described: RateLimitDescriptor) -> RateLimitDescriptor {
    RateLimitDescriptor { hits_addend: Some(hits), ..described }
}

async fn ask(client: &mut Client, descriptors: Vec<RateLimitDescriptor>) -> RateLimitResponse {
    client.should_rate_limit(asking(descriptors)).await.expect("decided").into_inner()
}

/// Code and rest of a request with one descriptor.
async fn one(client: &mut Client, described: RateLimitDescriptor) -> (Code, u32) {
    let answer = ask(client, vec![described]).await;
    assert_eq!(answer.overall_code(), answer.statuses[0].code());
    (answer.overall_code(), answer.statuses[0].limit_remaining)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_counts_in_place_of_a_rule_and_where_there_is_none() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    // A rule of 3 per minute, a rule that denies all, a rule in shadow, and no rule.
    for key in ["client_ip", "banned", "trial", "unknown"] {
        for round in 0..6u32 {
            let answer = ask(&mut client, vec![under(key, "a", 5, HOUR)]).await;
            let status = &answer.statuses[0];
            let code = if round < 5 { Code::Ok } else { Code::OverLimit };
            assert_eq!((answer.overall_code(), status.code()), (code, code), "{key} {round}");
            assert_eq!(status.limit_remaining, 4u32.saturating_sub(round), "{key} {round}");
            let told = status.current_limit.as_ref().expect("a limit");
            assert_eq!((told.requests_per_unit, told.unit), (5, HOUR), "{key}");
            // What an exceeded limit says is Envoy's `Retry-After`.
            let seconds = status.duration_until_reset.as_ref().expect("a time").seconds;
            assert!((3_590..=3_600).contains(&seconds), "{key}: {seconds}");
        }
    }
    // The rule's own counter was not touched.
    assert_eq!(one(&mut client, descriptor(&[("client_ip", "a")])).await, (Code::Ok, 2));
    // As in Envoy's own service: where nobody configured the domain, nothing is limited.
    let mut elsewhere = asking(vec![under("client_ip", "a", 0, HOUR)]);
    elsewhere.domain = "nobody's".to_owned();
    let answer = client.should_rate_limit(elsewhere).await.expect("decided").into_inner();
    assert_eq!(answer.overall_code(), Code::Ok);
    servers.stop().await;
}

/// With a counter per limit, a client whose plan is sent as 5, 6 and 7 in turns would have 18.
#[tokio::test(flavor = "multi_thread")]
async fn overrides_that_change_for_a_descriptor_never_admit_more_than_the_largest() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let mut admitted = 0;
    for round in 0..60u32 {
        let (code, _) = one(&mut client, under("client_ip", "a", 5 + round % 3, HOUR)).await;
        admitted += u32::from(code == Code::Ok);
    }
    assert_eq!(admitted, 7);
    assert_eq!(one(&mut client, under("client_ip", "a", 8, HOUR)).await, (Code::Ok, 0));
    assert_eq!(one(&mut client, under("client_ip", "a", 0, HOUR)).await, (Code::OverLimit, 0));
    // Another unit is another window, and another descriptor another counter, whatever its parts look like joined.
    assert_eq!(one(&mut client, under("client_ip", "a", 5, DAY)).await, (Code::Ok, 4));
    assert_eq!(one(&mut client, under("client", "ip_a", 5, HOUR)).await, (Code::Ok, 4));
    let answer = ask(&mut client, vec![under("x", "a", 5, HOUR), under("x", "a", 2, DAY)]).await;
    let left: Vec<u32> = answer.statuses.iter().map(|status| status.limit_remaining).collect();
    assert_eq!(left, [4, 1], "one descriptor under two units");
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_and_rules_in_one_request_are_charged_together_or_not_at_all() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    for _ in 0..4 {
        let answer =
            ask(&mut client, vec![under("plan", "p", 5, HOUR), descriptor(&[("banned", "b")])]).await;
        assert_eq!(answer.overall_code(), Code::OverLimit);
        assert_eq!((answer.statuses[0].code(), answer.statuses[0].limit_remaining), (Code::Ok, 5));
    }
    for _ in 0..4 {
        let descriptors = vec![under("plan", "p", 0, HOUR), descriptor(&[("client_ip", "a")])];
        assert_eq!(ask(&mut client, descriptors).await.overall_code(), Code::OverLimit);
    }
    assert_eq!(one(&mut client, hitting(0, under("plan", "p", 5, HOUR))).await, (Code::Ok, 5));
    assert_eq!(one(&mut client, hitting(0, descriptor(&[("client_ip", "a")]))).await, (Code::Ok, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_an_override_look_take_several_and_are_never_given_back_by_a_client() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    let five = || under("client_ip", "a", 5, HOUR);
    for _ in 0..3 {
        assert_eq!(one(&mut client, hitting(0, five())).await, (Code::Ok, 5), "a look takes nothing");
    }
    assert_eq!(one(&mut client, hitting(6, five())).await, (Code::OverLimit, 5), "never fits");
    assert_eq!(one(&mut client, hitting(3, five())).await, (Code::Ok, 2));
    assert_eq!(one(&mut client, hitting(3, five())).await, (Code::OverLimit, 2));
    let negative = RateLimitDescriptor { is_negative_hits: true, ..hitting(3, five()) };
    assert_eq!(one(&mut client, negative).await, (Code::Ok, 2), "no grant, nothing given back");
    assert_eq!(one(&mut client, hitting(2, five())).await, (Code::Ok, 0));
    assert_eq!(one(&mut client, hitting(0, five())).await, (Code::OverLimit, 0), "another would not fit");
    // A number of the request counts for those that name none.
    let mut request = asking(vec![under("client_ip", "b", 5, HOUR)]);
    request.hits_addend = 4;
    let answer = client.should_rate_limit(request).await.expect("decided").into_inner();
    assert_eq!(answer.statuses[0].limit_remaining, 1);
}

/// The servers have room for 10,000 keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_keys_and_of_limits_is_decided_and_gives_no_victim_a_second_allowance() {
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    assert_eq!(one(&mut client, under("user", "victim", 1, DAY)).await.0, Code::Ok);
    for batch in 0..1_500u32 {
        let flood =
            |index: u32| under("user", &format!("{batch}-{index}"), 1 + batch, 1 + (index % 7) as i32);
        ask(&mut client, (0..32).map(flood).collect()).await;
        if batch % 100 == 0 {
            assert_eq!(one(&mut client, under("user", "victim", 1, DAY)).await.0, Code::OverLimit, "{batch}");
        }
    }
    assert_eq!(one(&mut client, under("user", "victim", 1, DAY)).await.0, Code::OverLimit);
}
