//! Files of the Envoy project's rate limit service, unchanged: the same verdicts about the file, the same rules for a request. The
//! fixtures are our own; they ask what that service's tests ask.

use std::time::Duration;

use ratelimit_core::rules::{Entry, Match, Request, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, Limit, Nanos, TableSize};
use ratelimit_rules::{Descriptor, Engine, Epoch, RuleFile, Syntax, read_rules};

const EPOCH: Epoch = Epoch(Duration::from_secs(1_795_342_830));

fn read(text: &str) -> Result<RuleSet, (usize, String)> {
    let file = RuleFile { name: "envoy.yaml", text, syntax: Syntax::Yaml };
    read_rules(&[file], EPOCH).map_err(|error| (error.line, error.problem.to_string()))
}

fn met<'s>(rules: &'s RuleSet, entries: &[(&str, &str)]) -> Option<Match<'s>> {
    let entries: Vec<Entry<'_>> = entries.iter().map(|(key, value)| Entry { key, value }).collect();
    rules.matches(&Request { domain: "shop", descriptors: &[&entries] }).remove(0)
}

/// Requests and seconds of the limit that a descriptor meets.
fn limit(rules: &RuleSet, entries: &[(&str, &str)]) -> Option<(u64, u64)> {
    match &met(rules, entries)?.rule.limit {
        Limit::FixedWindow(window) => Some((window.limit(), window.period().as_secs())),
        Limit::Unlimited => Some((u64::MAX, 0)),
        Limit::DenyAll => Some((0, 0)),
        other => panic!("{other:?} is none of that service's limits"),
    }
}

#[test]
fn nested_descriptors_with_defaults_and_exceptions() {
    let rules = read(
        "# comments are welcome
domain: shop
descriptors:
  - key: plan
    value: basic
    descriptors:
      - key: route
        rate_limit: {unit: second, requests_per_unit: 5}
      - key: route
        value: search
        rate_limit: {unit: SECOND, requests_per_unit: 10}
  - key: client
    rate_limit: {unit: minute, requests_per_unit: 20}
  - key: client
    value: office
    rate_limit: {unit: Hour, requests_per_unit: 30}
  - key: client
    value: health
  - key: daily
    rate_limit: {unit: day, requests_per_unit: 1}
    descriptors:
      - key: route
        rate_limit: {unit: week, requests_per_unit: 2}
  - key: billing
    rate_limit: {unit: month, requests_per_unit: 3}
  - key: audit
    rate_limit: {unit: year, requests_per_unit: 4}
  - key: open
    rate_limit: {unlimited: true}
  - key: shut
    rate_limit: {unit: day, requests_per_unit: 0}
",
    )
    .expect("a file");
    for (entries, expected) in [
        (&[("plan", "basic")][..], None),
        (&[("plan", "basic"), ("route", "home")], Some((5, 1))),
        (&[("plan", "basic"), ("route", "search")], Some((10, 1))),
        (&[("plan", "gold"), ("route", "search")], None),
        (&[("plan", "basic"), ("route", "search"), ("more", "x")], None),
        (&[("client", "192.0.2.1")], Some((20, 60))),
        (&[("client", "office")], Some((30, 3_600))),
        (&[("client", "health")], None),
        (&[("client", "office"), ("more", "x")], None),
        (&[("daily", "x")], Some((1, 86_400))),
        (&[("daily", "x"), ("route", "y")], Some((2, 604_800))),
        (&[("billing", "x")], Some((3, 30 * 86_400))),
        (&[("audit", "x")], Some((4, 365 * 86_400))),
        (&[("open", "x")], Some((u64::MAX, 0))),
        (&[("shut", "x")], Some((0, 0))),
    ] {
        assert_eq!(limit(&rules, entries), expected, "{entries:?}");
    }
}

#[test]
fn wildcards_anywhere_in_a_value_and_the_first_in_the_file_wins() {
    let rules = read(
        "domain: shop
descriptors:
  - {key: path, value: /a*, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: path, value: /a/long*, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: path, value: /a/long/exact, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: path, rate_limit: {unit: minute, requests_per_unit: 4}}
  - {key: path, value: '*.js', rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: host, value: api*v1*com, rate_limit: {unit: minute, requests_per_unit: 6}}
  - key: nest
    value: x
    descriptors:
      - {key: path, value: in*, rate_limit: {unit: minute, requests_per_unit: 7}}
  - {key: bang, value: b*ab, rate_limit: {unit: minute, requests_per_unit: 8}}
",
    )
    .expect("a file");
    for (entries, expected) in [
        (&[("path", "/a/long/x")][..], Some(1)),
        (&[("path", "/a/long/exact")], Some(3)),
        (&[("path", "/b")], Some(4)),
        (&[("path", "/b.js")], Some(5)),
        (&[("path", "/a.js")], Some(1)),
        (&[("path", "")], Some(4)),
        (&[("host", "api.v1.example.com")], Some(6)),
        (&[("host", "apiv1com")], Some(6)),
        (&[("host", "api.com.v1")], None),
        (&[("nest", "x"), ("path", "inner")], Some(7)),
        (&[("nest", "x"), ("path", "outer")], None),
        (&[("bang", "bab")], Some(8)),
        (&[("bang", "ba")], None),
        (&[("bang", "bb")], None),
    ] {
        assert_eq!(limit(&rules, entries).map(|(requests, _)| requests), expected, "{entries:?}");
    }
}

#[test]
fn values_of_a_wildcard_count_apart_unless_they_share_the_threshold() {
    let rules = read(
        "domain: shop
descriptors:
  - {key: apart, value: f*, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: shared, value: f*, share_threshold: true, value_to_metric: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - key: outer
    value: o*
    share_threshold: true
    descriptors:
      - {key: inner, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 1}}
",
    )
    .expect("a file");
    let counter = |entries: &[(&str, &str)]| met(&rules, entries).expect("a rule").counter;
    assert_ne!(counter(&[("apart", "f1")]), counter(&[("apart", "f2")]));
    assert_eq!(counter(&[("shared", "f1")]), counter(&[("shared", "f2")]));
    assert_eq!(counter(&[("outer", "o1"), ("inner", "a")]), counter(&[("outer", "o2"), ("inner", "a")]));
    assert_ne!(counter(&[("outer", "o1"), ("inner", "a")]), counter(&[("outer", "o1"), ("inner", "b")]));
}

#[test]
fn modes_names_and_what_replaces_what_are_understood() {
    let rules = read(
        "domain: shop
descriptors:
  - key: try
    shadow_mode: true
    metadata: {owner: {team: [a, b]}}
    rate_limit: {unit: minute, requests_per_unit: 1, name: tried}
  - key: quota
    quota_mode: true
    rate_limit: {unit: minute, requests_per_unit: 1}
  - key: vip
    rate_limit:
      name: vip
      unit: minute
      requests_per_unit: 9
      replaces:
        - name: tried
        - name: nobody
",
    )
    .expect("a file");
    let rule = |key| met(&rules, &[(key, "x")]).expect("a rule").rule.clone();
    assert_eq!((rule("try").enforcement, rule("try").name.as_deref()), (Enforcement::Shadow, Some("tried")));
    assert_eq!(rule("quota").enforcement, Enforcement::Quota);
    assert_eq!(rule("vip").replaces, ["tried", "nobody"]);
}

#[test]
fn files_that_the_service_refuses_are_refused_in_their_line() {
    for (text, line, told) in [
        ("'''", 1, "this cannot be read"),
        ("descriptors:\n", 1, "no domain"),
        ("domain: ''\n", 1, "no domain"),
        ("domain: shop\ndescriptors:\n  - value: a\n", 3, "no key"),
        ("domain: shop\ndescriptors:\n  - key: ''\n", 3, "no key"),
        ("domain: shop\ndescriptors:\n  - {key: a, value: b}\n  - {key: a, value: b}\n", 4, "in line 3"),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit:\n      unit: fortnight\n      requests_per_unit: 5\n",
            5,
            "unit cannot be",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit:\n      requests_per_unit: 5\n",
            5,
            "no unit",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    ratelimit: {unit: day, requests_per_unit: 5}\n",
            4,
            "no field ratelimit",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requestsperunit: 5}\n",
            4,
            "no field requestsperunit",
        ),
        ("domain: shop\ndescriptors:\n  - a\n  - b\n", 3, "a descriptor has to be a map"),
        ("0.25: shop\ndescriptors:\n", 1, "no domain"),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit: {unlimited: true, unit: day, requests_per_unit: 5}\n",
            4,
            "unlimited and unit",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: 5, name: me, replaces: [{name: me}]}\n",
            3,
            "replaces itself",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: 5, replaces: [{name: }]}\n",
            4,
            "no name",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    value: b\n    share_threshold: true\n",
            3,
            "share_threshold needs",
        ),
        (
            "domain: shop\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: -5}\n",
            4,
            "whole number",
        ),
    ] {
        let (at, problem) = read(text).expect_err(text);
        assert!(problem.contains(told), "{problem}\n{text}");
        assert_eq!(at, line, "{problem}\n{text}");
    }
    assert!(read("domain: shop\n").is_ok() && read("domain: shop\ndescriptors:\n").is_ok());
}

#[test]
fn a_window_of_the_wall_clock_admits_its_requests_and_the_next_one_again() {
    let rules =
        read("domain: shop\ndescriptors:\n  - {key: a, rate_limit: {unit: hour, requests_per_unit: 3}}\n");
    let engine = Engine::new(rules.expect("a file"), TableSize::for_keys(100), HashSecret([1; 16]))
        .expect("an engine");
    let admitted = |seconds: u64| {
        let entries = [Entry { key: "a", value: "x" }];
        let descriptors = [Descriptor::new(&entries)];
        let request = ratelimit_rules::Request::new("shop", &descriptors);
        let now = Nanos::from_duration(Duration::from_secs(seconds));
        (0..5).filter(|_| engine.check(&request, now).expect("a request").allowed).count()
    };
    // The epoch is 20 minutes and 30 seconds into an hour.
    assert_eq!([0, 2_369, 2_370, 5_969, 5_970].map(admitted), [3, 0, 3, 0, 3]);
}
