//! What a client is told.

use std::time::Duration;

use ratelimit_core::{Enforcement, Limit, Rate};
use tower_layers::headers::HeaderStyle;
use tower_layers::keys::{ClientAddress, Everyone, Extract, HeaderValueKey, KnownUser};
use tower_layers::rate_limit::RateLimitRule;

use crate::buckets::{Calls, bucket, from, layer, name, rule, send, status, text, with};

fn headers(response: &http::Response<impl Sized>) -> Vec<String> {
    let told = [
        "ratelimit-policy",
        "ratelimit",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    ];
    let line =
        |name: &&str| Some(format!("{name}: {}", response.headers().get(*name)?.to_str().expect("text")));
    told.iter().filter_map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn each_answer_tells_what_is_left_and_a_refusal_when_to_come_again() {
    let calls = Calls::default();
    let service = calls.behind(&layer(vec![bucket("burst", 2)]));
    let first = send(&service, from("a")).await;
    assert_eq!(first.status(), 200);
    assert_eq!(
        headers(&first),
        [
            r#"ratelimit-policy: "burst";q=2;w=2"#,
            r#"ratelimit: "burst";r=1;t=1"#,
            r#"x-ratelimit-limit: 2, 2;w=2;name="burst""#,
            "x-ratelimit-remaining: 1",
            "x-ratelimit-reset: 1"
        ]
    );
    assert_eq!(text(first).await, "served");
    assert_eq!(status(&service, from("a")).await, 200);
    let refused = send(&service, from("a")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(headers(&refused)[1], r#"ratelimit: "burst";r=0;t=1"#);
    assert_eq!(headers(&refused)[5], "retry-after: 1");
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert!(text(refused).await.contains(r#""violated-policies":["burst"]"#));
    assert_eq!(calls.count(), 2, "the service is not called for what is refused");
    // Another client has its own bucket, and this one again after a second.
    assert_eq!(status(&service, from("b")).await, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(&service, from("a")).await, 200);
    assert_eq!(status(&service, from("a")).await, 429);
}

#[tokio::test(start_paused = true)]
async fn what_one_rule_denies_costs_nothing_on_the_others() {
    let calls = Calls::default();
    let everyone =
        RateLimitRule::new(name("all"), Limit::gcra(Rate::per_hour(1), 5).expect("a limit"), Everyone);
    let service = calls.behind(&layer(vec![bucket("own", 2), everyone]).header_style(HeaderStyle::DRAFT10));
    for _ in 0..50 {
        status(&service, from("greedy")).await;
    }
    let other = send(&service, from("other")).await;
    assert_eq!(headers(&other)[1], r#"ratelimit: "own";r=1;t=1,"all";r=2;t=3600"#);
    assert_eq!(status(&service, from("other")).await, 200);
    assert_eq!(status(&service, from("third")).await, 200);
    let refused = send(&service, from("fourth")).await;
    assert_eq!(headers(&refused)[1], r#"ratelimit: "own";r=2,"all";r=0;t=3600"#);
    assert_eq!(headers(&refused)[2], "retry-after: 3600");
    assert!(text(refused).await.contains(r#""violated-policies":["all"]"#));
    assert_eq!(calls.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_fits_is_not_told_to_come_again() {
    let heavy = bucket("weight", 5).with_cost(|request| {
        request.headers.get("weight").and_then(|weight| weight.to_str().ok()?.parse().ok()).unwrap_or(1)
    });
    let calls = Calls::default();
    let service = calls.behind(&layer(vec![heavy]));
    let refused = send(&service, with("a", "weight", "6")).await;
    assert_eq!(refused.status(), 429);
    assert!(!refused.headers().contains_key("retry-after"));
    assert_eq!(status(&service, with("a", "weight", "5")).await, 200);
    let refused = send(&service, with("a", "weight", "3")).await;
    assert_eq!(refused.headers()["retry-after"], "3");
    // A cost of 0 only looks.
    assert_eq!(status(&service, with("a", "weight", "0")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_is_refused_with_a_status_of_its_own() {
    let service = Calls::default().behind(&layer(vec![bucket("burst", 1)]));
    let call = || with("a", "content-type", "application/grpc+proto");
    assert_eq!(status(&service, call()).await, 200);
    let refused = send(&service, call()).await;
    assert_eq!(refused.status(), 200);
    assert_eq!(refused.headers()["grpc-status"], "8");
    assert_eq!(refused.headers()["content-type"], "application/grpc");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(text(refused).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_is_refused_and_not_counted_for_everybody() {
    let calls = Calls::default();
    let service = calls.behind(&layer(vec![bucket("burst", 1)]));
    let anonymous = || http::Request::new(http_body_util::Full::default());
    let refused = send(&service, anonymous()).await;
    assert_eq!(refused.status(), 400);
    assert!(text(refused).await.contains("header client"));
    // The server's own mistake is told as such, and not to clients in detail.
    let by_address = RateLimitRule::new(
        name("address"),
        Limit::gcra(Rate::per_second(1), 1).expect("a limit"),
        ClientAddress::new(tower_layers::client_ip::Grouping::default()),
    );
    let service = calls.behind(&layer(vec![by_address]));
    let refused = send(&service, from("a")).await;
    assert_eq!(refused.status(), 500);
    assert!(!text(refused).await.contains("layer"));
    assert_eq!(calls.count(), 0);
    // A rule for those who have a key lets the others pass.
    let service = calls.behind(&layer(vec![bucket("burst", 1).only_with_key()]));
    assert_eq!(status(&service, anonymous()).await, 200);
    assert_eq!(status(&service, anonymous()).await, 200);
    assert_eq!(status(&service, from("a")).await, 200);
    assert_eq!(status(&service, from("a")).await, 429);
}

/// A rule for those who have a key was skipped for everybody when the layer that finds the key was forgotten: a limit that was
/// written down and limited nobody.
#[tokio::test(start_paused = true)]
async fn a_rule_only_for_those_with_a_key_refuses_when_the_layer_that_finds_it_is_missing() {
    #[derive(Clone)]
    struct Account(Option<&'static str>);

    let calls = Calls::default();
    let limit = || Limit::gcra(Rate::per_second(1), 1).expect("a limit");
    let address = || ClientAddress::new(tower_layers::client_ip::Grouping::default());
    let user = || KnownUser::named_by(|account: &Account| account.0);
    let rules = [
        RateLimitRule::new(name("address"), limit(), address()),
        RateLimitRule::new(name("user"), limit(), user()),
        RateLimitRule::new(
            name("either"),
            limit(),
            user().or(HeaderValueKey::new("absent".parse().expect("a name"))),
        ),
        RateLimitRule::new(
            name("other"),
            limit(),
            HeaderValueKey::new("absent".parse().expect("a name")).or(user()),
        ),
        RateLimitRule::new(name("both"), limit(), user().and(address())),
    ];
    for rule in rules {
        let told = format!("{rule:?}");
        let service = calls.behind(&layer(vec![bucket("all", 9), rule.only_with_key()]));
        assert_eq!(status(&service, from("a")).await, 500, "{told}");
        let mut request = from("a");
        request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        assert_eq!(send(&service, request).await.headers()["grpc-status"], "13", "{told}");
    }
    assert_eq!(calls.count(), 0, "nobody came through");

    // Where the layer is there, those whom it does not know pass the rule, and those whom it knows do not for long.
    let rule = RateLimitRule::new(name("user"), limit(), user()).only_with_key();
    let service = calls.behind(&layer(vec![rule]));
    let by = |account| {
        let mut request = from("a");
        request.extensions_mut().insert(Account(account));
        request
    };
    assert_eq!(status(&service, by(None)).await, 200);
    assert_eq!(status(&service, by(None)).await, 200);
    assert_eq!(status(&service, by(Some("ada"))).await, 200);
    assert_eq!(status(&service, by(Some("ada"))).await, 429);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_rule_refuses_nobody_and_is_not_announced() {
    let calls = Calls::default();
    let strict = bucket("strict", 1).with_enforcement(Enforcement::Shadow);
    let service = calls.behind(&layer(vec![strict, bucket("loose", 3)]).header_style(HeaderStyle::DRAFT10));
    for _ in 0..3 {
        let answer = send(&service, from("a")).await;
        assert_eq!(answer.status(), 200);
        assert!(headers(&answer).iter().all(|line| !line.contains("strict")));
    }
    assert_eq!(status(&service, from("a")).await, 429);
}

#[tokio::test(start_paused = true)]
async fn no_limit_and_no_admission_are_said_explicitly() {
    let calls = Calls::default();
    let free = calls.behind(&layer(vec![rule("free", Limit::Unlimited)]));
    let answer = send(&free, from("a")).await;
    assert_eq!((answer.status().as_u16(), headers(&answer)), (200, vec![]));
    let closed = calls.behind(&layer(vec![rule("closed", Limit::DenyAll)]));
    let answer = send(&closed, from("a")).await;
    assert_eq!(answer.status(), 429);
    assert!(!answer.headers().contains_key("retry-after"));
}
