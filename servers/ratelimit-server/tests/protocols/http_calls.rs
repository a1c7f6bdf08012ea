use serde_json::json;

use crate::server::{Setup, TestServers};

const ASK: &str =
    r#"{"domain":"web","descriptors":[{"entries":[{"key":"client_ip","value":"203.0.113.9"}]}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn three_of_four_checks_pass_and_the_fourth_is_429_with_everything_that_a_client_needs() {
    let servers = TestServers::open().await;
    for remaining in [2, 1, 0] {
        let answer = servers.check(ASK).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!((&json["allowed"], &json["remaining"]), (&json!(true), &json!(remaining)));
        assert_eq!((&json["limit"], &json["rule"]), (&json!(3), &json!("per-client")));
        assert!(json["retry_after_ms"].is_null() && json["reset_after_ms"].as_u64() > Some(0));
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""per-client";q=3;w=60"#));
        assert!(answer.header("retry-after").is_none());
    }
    let denied = servers.check(ASK).await;
    assert_eq!(denied.status, 429);
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    assert_eq!(denied.header("retry-after"), Some("20"));
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    let json = denied.json();
    assert_eq!(json["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(json["violated-policies"], json!(["per-client"]));
    assert_eq!(
        (&json["allowed"], &json["remaining"], &json["status"]),
        (&json!(false), &json!(0), &json!(429))
    );
    let retry_ms = json["retry_after_ms"].as_u64().expect("a wait");
    assert!((19_000..=20_000).contains(&retry_ms), "{retry_ms}");
    // Another client has a bucket of its own, and the full one is seen without taking of it.
    assert_eq!(servers.check(&ASK.replace("113.9", "113.10")).await.status, 200);
    let peek = servers.get("/v1/keys/web/client_ip=203.0.113.9").await;
    assert_eq!((peek.status, &peek.json()["remaining"]), (200, &json!(0)));
    let peek = servers.get("/v1/keys/web/client_ip=203.0.113.10").await;
    assert_eq!(peek.json()["remaining"], 2);
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_descriptor_that_denies_charges_none_and_each_has_its_status() {
    let servers = TestServers::open().await;
    let both = r#"{"domain":"web","descriptors":[
        {"entries":[{"key":"client_ip","value":"a"}]},
        {"entries":[{"key":"unknown","value":"x"}]},
        {"entries":[{"key":"path","value":"/login"},{"key":"client_ip","value":"a"}]}]}"#;
    let first = servers.check(both).await.json();
    assert_eq!(first["statuses"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&first["statuses"][0]["remaining"], &first["statuses"][2]["remaining"]),
        (&json!(2), &json!(0))
    );
    assert!(first["statuses"][1]["rule"].is_null());
    for _ in 0..5 {
        let denied = servers.check(both).await;
        assert_eq!((denied.status, &denied.json()["rule"]), (429, &json!("login")));
    }
    let peek = servers.get("/v1/keys/web/client_ip=a").await;
    assert_eq!(peek.json()["remaining"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_looks_shadows_and_the_limits_that_are_none_are_told() {
    let servers = TestServers::open().await;
    let ask = |key: &str, hits: u64| {
        format!(
            r#"{{"domain":"web","hits":{hits},"descriptors":[{{"entries":[{{"key":"{key}","value":"v"}}]}}]}}"#
        )
    };
    assert_eq!(servers.check(&ask("client_ip", 0)).await.json()["remaining"], 3);
    assert_eq!(servers.check(&ask("client_ip", 2)).await.json()["remaining"], 1);
    let never = servers.check(&ask("client_ip", 4)).await;
    assert_eq!((never.status, never.header("retry-after")), (429, None));
    assert!(never.json()["retry_after_ms"].is_null());
    for _ in 0..3 {
        assert_eq!(servers.check(&ask("trial", 1)).await.status, 200);
    }
    assert_eq!(servers.check(&ask("banned", 1)).await.status, 429);
    let friend = servers.check(&ask("friend", 1_000_000)).await;
    assert_eq!((friend.status, friend.json()["limit"].is_null()), (200, true));
    assert_eq!(servers.check(&ASK.replace("web", "unknown")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_400_and_charges_nothing() {
    let servers = TestServers::open().await;
    for body in [
        "",
        "[]",
        "{",
        r#"{"domain":"web"}"#,
        r#"{"domain":"","descriptors":[{"entries":[{"key":"client_ip","value":"203.0.113.9"}]}]}"#,
        r#"{"domain":"web","descriptors":[]}"#,
        r#"{"domain":"web","descriptors":[{"entries":[]}]}"#,
        r#"{"domain":"web","hits":-1,"descriptors":[{"entries":[{"key":"client_ip","value":"203.0.113.9"}]}]}"#,
        r#"{"domain":"web","hitz":2,"descriptors":[{"entries":[{"key":"client_ip","value":"203.0.113.9"}]}]}"#,
    ] {
        let refused = servers.check(body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(servers.check(&"x".repeat(ratelimit_server::http::BODY_BYTES_MAX + 1)).await.status, 413);
    assert_eq!(servers.get("/v1/nowhere").await.status, 404);
    let peek = servers.get("/v1/keys/web/client_ip=203.0.113.9").await;
    assert_eq!(peek.json()["remaining"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_gives_back_once_and_needs_the_admin_token() {
    let servers = TestServers::start(Setup { admin_token: Some("admin"), ..Setup::default() }).await;
    let ask = ASK.replace("}]}]}", "}]}],\"hits\":3,\"grant\":true}");
    let granted = servers.check(&ask).await.json();
    let refund = format!(r#"{{"grant":{}}}"#, granted["grant"]);
    let admin = [("authorization", "Bearer admin")];
    assert_eq!(servers.call("POST", "/v1/refund", &[], &refund).await.status, 401);
    assert_eq!(servers.call("POST", "/v1/refund", &admin, &refund).await.status, 200);
    assert_eq!(servers.call("POST", "/v1/refund", &admin, &refund).await.status, 404);
    let peek = servers.get("/v1/keys/web/client_ip=203.0.113.9").await.json();
    // Aged: what has begun to refill is not given a second time.
    assert!(peek["remaining"].as_u64() >= Some(2), "{peek}");
    // Permits come back whole.
    let work = r#"{"domain":"web","grant":true,"descriptors":[{"entries":[{"key":"worker","value":"w"}]}]}"#;
    let (first, _second) = (servers.check(work).await.json(), servers.check(work).await);
    assert_eq!(servers.check(work).await.status, 429);
    let refund = format!(r#"{{"grant":{}}}"#, first["grant"]);
    assert_eq!(servers.call("POST", "/v1/refund", &admin, &refund).await.status, 200);
    assert_eq!(servers.check(work).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_top_and_reset_are_for_the_admin_token_alone() {
    let servers = TestServers::start(Setup {
        admin_token: Some("admin"),
        check_token: Some("check"),
        ..Setup::default()
    })
    .await;
    let (admin, check) = ([("authorization", "Bearer admin")], [("authorization", "Bearer check")]);
    let reset = ASK.replace(",\"hits\":1", "");
    for (method, path, body) in
        [("GET", "/v1/rules", ""), ("GET", "/v1/top", ""), ("POST", "/v1/reset", &*reset)]
    {
        assert_eq!(servers.call(method, path, &[], body).await.status, 401, "{path}");
        assert_eq!(servers.call(method, path, &check, body).await.status, 403, "{path}");
        assert_eq!(servers.call(method, path, &admin, body).await.status, 200, "{path}");
    }
    assert_eq!(servers.call("POST", "/v1/check", &[], ASK).await.status, 401);
    for status in [200, 200, 200, 429, 429] {
        assert_eq!(servers.call("POST", "/v1/check", &check, ASK).await.status, status);
    }
    let top = servers.call("GET", "/v1/top?count=1", &admin, "").await.json();
    assert_eq!((&top[0]["denied"], &top[0]["entries"][0]["value"]), (&json!(2), &json!("203.0.113.9")));
    assert_eq!(servers.call("GET", "/v1/top?count=0", &admin, "").await.status, 400);
    let rules = servers.call("GET", "/v1/rules", &admin, "").await.json();
    let rule =
        rules.as_array().expect("a list").iter().find(|rule| rule["name"] == "per-client").expect("it");
    assert_eq!((&rule["limit"], &rule["denied"]), (&json!("3 per minute, burst 3"), &json!(2)));
    assert_eq!(servers.call("POST", "/v1/reset", &admin, &reset).await.json()["reset"], 1);
    assert_eq!(servers.call("POST", "/v1/check", &check, ASK).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_token_nobody_administers() {
    let servers = TestServers::open().await;
    for headers in [&[][..], &[("authorization", "Bearer x")]] {
        assert_eq!(servers.call("GET", "/v1/rules", headers, "").await.status, 403);
    }
}

/// After a change of the API: `STRONGROOM_BLESS=1 cargo test -p ratelimit-server`.
#[tokio::test(flavor = "multi_thread")]
async fn the_committed_description_is_the_generated_one_and_is_served() {
    let servers = TestServers::open().await;
    let served = servers.get("/openapi.json").await;
    assert_eq!(served.body, ratelimit_server::http::openapi_document());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        std::fs::write(path, &served.body).expect("written");
    }
    let committed = std::fs::read_to_string(path).expect("the committed description");
    assert!(
        committed == served.body,
        "openapi.json is not what the handlers say: run with STRONGROOM_BLESS=1"
    );
    let json = served.json();
    assert!(json["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for path in ["/v1/check", "/v1/keys/{key}", "/v1/refund", "/v1/reset", "/v1/rules", "/v1/top"] {
        assert!(json["paths"][path].is_object(), "{path}");
    }
}
