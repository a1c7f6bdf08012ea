//! Exact values, those of the draft's examples among them.

use std::time::Duration;

use http::HeaderMap;
use tower_layers::headers::{
    HeaderStyle, PartitionKey, PolicyName, Problem, ProblemKind, Quota, QuotaPolicy, QuotaUnit,
    retry_after_seconds,
};

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> PolicyName {
    text.parse().expect("a name")
}

fn policy(text: &str, limit: u64, window_seconds: u64) -> QuotaPolicy {
    QuotaPolicy::new(name(text), limit).with_window(Duration::from_secs(window_seconds))
}

fn quota(policy: &QuotaPolicy, remaining: u64, more_after_ms: u64, reset_after_ms: u64) -> Quota<'_> {
    let (more_after, reset_after) =
        (Duration::from_millis(more_after_ms), Duration::from_millis(reset_after_ms));
    Quota { policy, remaining, more_after, reset_after }
}

fn written(style: HeaderStyle, quotas: &[Quota<'_>]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    style.write(&mut headers, quotas, NOW);
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
    lines.sort_by_key(|line| line.split_once(':').map(|(name, _)| name.to_owned()));
    lines
}

#[test]
fn the_policies_of_the_drafts_examples_are_written_as_there() {
    let (burst, daily) = (policy("burst", 100, 60), policy("daily", 1000, 86_400));
    let quotas = [quota(&burst, 100, 0, 0), quota(&daily, 1000, 0, 0)];
    assert_eq!(
        written(HeaderStyle::DRAFT10, &quotas),
        [
            r#"ratelimit: "burst";r=100,"daily";r=1000"#,
            r#"ratelimit-policy: "burst";q=100;w=60,"daily";q=1000;w=86400"#
        ]
    );
    let bytes = policy("peruser", 65_535, 10)
        .with_unit(QuotaUnit::ContentBytes)
        .with_partition_key(PartitionKey::new(b"App-999").expect("a key"));
    assert_eq!(
        written(HeaderStyle::DRAFT10, &[quota(&bytes, 300, 60_000, 60_000)]),
        [
            r#"ratelimit: "peruser";r=300;t=60;pk=:QXBwLTk5OQ==:"#,
            r#"ratelimit-policy: "peruser";q=65535;qu="content-bytes";w=10;pk=:QXBwLTk5OQ==:"#
        ]
    );
}

#[test]
fn older_styles_name_the_quota_that_is_closest_to_its_limit() {
    let (burst, daily) = (policy("burst", 20, 60), policy("daily", 1000, 86_400));
    let quotas = [quota(&burst, 7, 1, 38_001), quota(&daily, 900, 500, 8_640_000)];
    assert_eq!(
        written(HeaderStyle::DRAFT03, &quotas),
        [
            r#"x-ratelimit-limit: 20, 20;w=60;name="burst", 1000;w=86400;name="daily""#,
            "x-ratelimit-remaining: 7",
            "x-ratelimit-reset: 39"
        ]
    );
    assert_eq!(
        written(HeaderStyle::GITHUB, &quotas),
        ["x-ratelimit-limit: 20", "x-ratelimit-remaining: 7", "x-ratelimit-reset: 1800000039"]
    );
    // Of two that are used up, the one that stays so for longer.
    let quotas = [quota(&burst, 0, 1, 38_001), quota(&daily, 0, 500, 8_640_000)];
    assert_eq!(
        written(HeaderStyle::GITHUB, &quotas).first().map(String::as_str),
        Some("x-ratelimit-limit: 1000")
    );
    assert_eq!(written(HeaderStyle::NONE, &quotas), [""; 0]);
    assert_eq!(written(HeaderStyle::DRAFT10_AND_GITHUB, &quotas).len(), 5);
    assert_eq!(written(HeaderStyle::DRAFT10_AND_DRAFT03, &[]), [""; 0]);
}

#[test]
fn headers_that_were_there_are_replaced() {
    let burst = policy("burst", 20, 60);
    let mut headers = HeaderMap::new();
    HeaderStyle::DRAFT10_AND_DRAFT03.write(&mut headers, &[quota(&burst, 7, 1, 1)], NOW);
    HeaderStyle::DRAFT10_AND_DRAFT03.write(&mut headers, &[quota(&burst, 6, 1, 1)], NOW);
    assert_eq!(headers.get_all("ratelimit").iter().count(), 1);
    assert_eq!(headers["x-ratelimit-remaining"], "6");
}

#[test]
fn more_left_than_the_limit_is_written_as_the_limit() {
    let burst = policy("burst", 20, 60);
    assert!(written(HeaderStyle::DRAFT10, &[quota(&burst, u64::MAX, 0, 0)])[0].contains(";r=20"));
}

#[test]
fn every_style_has_a_name_that_reads_back() {
    for text in ["none", "draft10", "draft03", "github", "draft10+draft03", "draft10+github"] {
        let style: HeaderStyle = text.parse().expect(text);
        assert_eq!(style.to_string(), text);
    }
    let refused = "draft99".parse::<HeaderStyle>().expect_err("no style").to_string();
    assert!(refused.contains("draft99") && refused.contains("draft10+github"), "{refused}");
}

#[test]
fn retry_after_is_whole_seconds_never_early_and_absent_when_waiting_does_not_help() {
    let burst = policy("burst", 20, 60);
    let after = |wait_ms: u64, more_after_ms: u64| {
        retry_after_seconds(Some(Duration::from_millis(wait_ms)), &[quota(&burst, 0, more_after_ms, 60_000)])
    };
    assert_eq!(after(0, 0), Some(1));
    assert_eq!(after(1, 0), Some(1));
    assert_eq!(after(1_000, 0), Some(1));
    assert_eq!(after(1_001, 0), Some(2));
    // The draft: not earlier than the t of RateLimit.
    assert_eq!(after(1_000, 5_500), Some(6));
    assert_eq!(retry_after_seconds(None, &[quota(&burst, 0, 5_500, 60_000)]), None);
    assert_eq!(retry_after_seconds(Some(Duration::MAX), &[]), Some(u64::MAX));
}

#[test]
fn a_refusal_is_a_problem_document_of_the_registered_type() {
    let mut headers = HeaderMap::new();
    let problem = Problem::new(ProblemKind::QuotaExceeded, [name("daily"), name("band\"width")]);
    let body = problem.body(&mut headers);
    assert_eq!(
        std::str::from_utf8(&body).expect("text"),
        r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"violated-policies":["daily","band\"width"]}"#
    );
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(problem.status(), 429);
    assert_eq!(ProblemKind::TemporaryReducedCapacity.status(), 503);
    let detailed = Problem::new(ProblemKind::Uncountable, []).with_detail("who?").body(&mut headers);
    assert_eq!(
        std::str::from_utf8(&detailed).expect("text"),
        r#"{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"who?"}"#
    );
}

#[test]
fn a_name_that_cannot_stand_in_a_header_is_refused() {
    for text in ["", "a\n", "gr\u{fc}n", "\u{7f}", &"x".repeat(65)] {
        assert!(text.parse::<PolicyName>().is_err(), "{text:?}");
    }
    assert!(PartitionKey::new(&[0; 65]).is_err());
}
