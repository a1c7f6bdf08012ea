//! Which rules a request meets.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::rules::{
    DEPTH_MAX, Domain, Entry, Node, NodeValue, Request, Rule, RuleError, RuleSet, Sharing, TEXT_BYTES_MAX,
};
use ratelimit_core::{Enforcement, Limit};

fn limit(size: u64) -> Limit {
    Limit::fixed_window(size, Duration::from_secs(60)).expect("a limit")
}

fn rule(size: u64) -> Rule {
    Rule::new(limit(size))
}

fn exact(key: &str, value: &str) -> Node {
    Node::new(key, NodeValue::Exact(value.to_owned()))
}

fn prefix(key: &str, value: &str) -> Node {
    Node::new(key, NodeValue::Prefix(value.to_owned()))
}

fn any(key: &str) -> Node {
    Node::new(key, NodeValue::Any)
}

fn rules(nodes: Vec<Node>) -> RuleSet {
    RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules")
}

/// Sizes of the limits that the descriptors meet.
fn sizes(rules: &RuleSet, descriptors: &[&[(&str, &str)]]) -> Vec<Option<u64>> {
    matched(rules, descriptors).into_iter().map(|found| found.map(|(size, _)| size)).collect()
}

fn matched(rules: &RuleSet, descriptors: &[&[(&str, &str)]]) -> Vec<Option<(u64, Vec<u8>)>> {
    let entries: Vec<Vec<Entry<'_>>> = descriptors
        .iter()
        .map(|entries| entries.iter().map(|(key, value)| Entry { key, value }).collect())
        .collect();
    let entries: Vec<&[Entry<'_>]> = entries.iter().map(Vec::as_slice).collect();
    let found = rules.matches(&Request { domain: "web", descriptors: &entries });
    let told = |found: ratelimit_core::rules::Match<'_>| {
        (found.rule.limit.size(), found.counter.as_bytes().to_vec())
    };
    found.into_iter().map(|found| found.map(told)).collect()
}

fn counter(rules: &RuleSet, descriptor: &[(&str, &str)]) -> Vec<u8> {
    matched(rules, &[descriptor]).remove(0).expect("a rule").1
}

#[test]
fn the_most_specific_value_wins_exact_then_longest_prefix_then_any() {
    let rules = rules(vec![
        any("path").with_rule(rule(1)),
        prefix("path", "/api").with_rule(rule(2)),
        prefix("path", "/api/v1").with_rule(rule(3)),
        exact("path", "/api/v1/login").with_rule(rule(4)),
        exact("other", "/api/v1/login").with_rule(rule(5)),
    ]);
    for (value, size) in
        [("/", 1), ("/api", 2), ("/api/v2", 2), ("/api/v1/x", 3), ("/api/v1/login", 4), ("", 1)]
    {
        assert_eq!(sizes(&rules, &[&[("path", value)]]), [Some(size)], "{value}");
    }
    assert_eq!(sizes(&rules, &[&[("other", "/")], &[("none", "/")], &[]]), [None, None, None]);
}

#[test]
fn a_descriptor_meets_the_rule_where_it_ends_and_no_other() {
    let rules = rules(vec![
        exact("user", "a")
            .with_rule(rule(1))
            .with_node(any("path").with_rule(rule(2)).with_node(any("verb"))),
    ]);
    let of = |descriptor: &[(&str, &str)]| sizes(&rules, &[descriptor])[0];
    assert_eq!(of(&[("user", "a")]), Some(1));
    assert_eq!(of(&[("user", "a"), ("path", "/")]), Some(2));
    assert_eq!(of(&[("user", "a"), ("path", "/"), ("verb", "GET")]), None, "no rule there");
    assert_eq!(
        of(&[("user", "a"), ("path", "/"), ("verb", "GET"), ("x", "y")]),
        None,
        "deeper than the rules"
    );
    assert_eq!(of(&[("path", "/")]), None);
    assert_eq!(of(&[("user", "b"), ("path", "/")]), None);
}

#[test]
fn a_rule_that_replaces_others_silences_them_in_its_request_only() {
    let rules = rules(vec![
        any("client").with_rule(rule(1).named("everyone")),
        any("plan").with_rule(rule(2).named("plan").replacing(&["everyone", "unknown"])),
        any("vip").with_rule(rule(3).replacing(&["plan"])),
    ]);
    let client: &[(&str, &str)] = &[("client", "1")];
    let plan: &[(&str, &str)] = &[("plan", "gold")];
    let vip: &[(&str, &str)] = &[("vip", "1")];
    assert_eq!(sizes(&rules, &[client, plan]), [None, Some(2)]);
    assert_eq!(sizes(&rules, &[client]), [Some(1)]);
    assert_eq!(sizes(&rules, &[client, plan, vip]), [None, None, Some(3)], "a replaced rule still replaces");
}

#[test]
fn values_have_counters_of_their_own_unless_they_share_one() {
    let apart = rules(vec![prefix("path", "/api").with_rule(rule(1)), any("user").with_rule(rule(2))]);
    let shared = rules(vec![
        prefix("path", "/api").shared(Sharing::Together).with_rule(rule(1)),
        any("user").shared(Sharing::Together).with_node(any("path").with_rule(rule(2))),
    ]);
    let (one, two) = ([("path", "/api/1")], [("path", "/api/2")]);
    assert_ne!(counter(&apart, &one), counter(&apart, &two));
    assert_eq!(counter(&shared, &one), counter(&shared, &two));
    assert_eq!(
        counter(&shared, &[("user", "1"), ("path", "/")]),
        counter(&shared, &[("user", "2"), ("path", "/")])
    );
    assert_ne!(
        counter(&shared, &[("user", "1"), ("path", "/")]),
        counter(&shared, &[("user", "1"), ("path", "/a")])
    );
}

/// envoyproxy/ratelimit joins them with `_`: ("a", "b_c") and ("a_b", "c") share a counter there.
#[test]
fn keys_and_values_with_separators_have_counters_of_their_own() {
    let rules = rules(vec![any("a").with_rule(rule(1)), any("a_b").with_rule(rule(1))]);
    assert_ne!(counter(&rules, &[("a", "b_c")]), counter(&rules, &[("a_b", "c")]));
}

#[test]
fn an_unknown_domain_meets_no_rule() {
    let rules = rules(vec![any("a").with_rule(rule(1))]);
    let entries = [Entry { key: "a", value: "1" }];
    let request = Request { domain: "mail", descriptors: &[&entries, &entries] };
    assert_eq!(rules.matches(&request), [None, None]);
}

#[test]
fn rules_that_cannot_be_meant_are_refused_with_their_place() {
    let refused = |nodes: Vec<Node>| {
        RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect_err("they were taken")
    };
    let path = |path: &str| path.to_owned();
    let twice = vec![exact("user", "a").with_node(any("path")).with_node(any("path"))];
    assert_eq!(refused(twice), RuleError::DuplicateNode { path: path("web.user=a.path") });
    assert_eq!(refused(vec![any("")]), RuleError::Empty { path: path("web.") });
    let shared = vec![exact("user", "a").shared(Sharing::Together)];
    assert_eq!(refused(shared), RuleError::NothingToShare { path: path("web.user=a") });
    let itself = vec![any("user").with_rule(rule(1).named("x").replacing(&["x"]))];
    assert_eq!(refused(itself), RuleError::ReplacesItself { path: path("web.user") });
    let long = vec![any(&"k".repeat(TEXT_BYTES_MAX + 1))];
    assert!(matches!(refused(long), RuleError::TextTooLong { .. }));
    let deep = (0..DEPTH_MAX).fold(any("k"), |node, _| any("k").with_node(node));
    assert!(matches!(refused(vec![deep]), RuleError::TooDeep { .. }));
    let domain = Domain { name: "web".to_owned(), nodes: vec![] };
    let twice = RuleSet::new([domain.clone(), domain]).expect_err("they were taken");
    assert_eq!(twice, RuleError::DuplicateDomain { name: path("web") });
}

#[test]
fn a_rule_says_how_it_is_enforced_and_unlimited_is_a_limit() {
    let rules = rules(vec![any("a").with_rule(Rule::new(Limit::Unlimited).enforced(Enforcement::Shadow))]);
    assert_eq!(sizes(&rules, &[&[("a", "1")]]), [Some(u64::MAX)]);
}

proptest! {
    #[test]
    fn two_descriptors_share_a_counter_only_when_they_are_the_same(
        a in prop::collection::vec(("[ab_]{1,3}", "[ab_]{0,3}"), 1..4),
        b in prop::collection::vec(("[ab_]{1,3}", "[ab_]{0,3}"), 1..4),
    ) {
        let chain = |entries: &[(String, String)]| {
            let mut nodes: Vec<Node> = Vec::new();
            for (key, _) in entries.iter().rev() {
                let mut node = any(key).with_rule(rule(1));
                node.nodes = nodes;
                nodes = vec![node];
            }
            nodes
        };
        let borrowed = |entries: &[(String, String)]| -> Vec<(String, String)> { entries.to_vec() };
        let of = |entries: Vec<(String, String)>| {
            let rules = rules(chain(&entries));
            let entries: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            counter(&rules, &entries)
        };
        prop_assert_eq!(of(borrowed(&a)) == of(borrowed(&b)), a == b);
    }
}
