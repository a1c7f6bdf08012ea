//! Rules at work: what is charged, what is answered, what is refused.

#![expect(clippy::disallowed_methods, reason = "one claim is about threads")]

use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, OnFailure, Rule, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, Limit, Nanos, Rate, TableSize};
use ratelimit_rules::{Answer, Descriptor, ENTRIES_MAX, Engine, REQUEST_BYTES_MAX, Request, RequestError};

const SIZE: TableSize = TableSize { keys: 1_000, sketch_bytes: 1 << 16 };

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

fn any(key: &str, rule: Rule) -> Node {
    Node::new(key, NodeValue::Any).with_rule(rule)
}

fn engine(nodes: Vec<Node>) -> Engine {
    let rules = RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules");
    Engine::new(rules, SIZE, HashSecret([1; 16])).expect("an engine")
}

fn asked(engine: &Engine, descriptors: &[(&str, &str, Option<u64>)]) -> Answer {
    let entries: Vec<[Entry<'_>; 1]> =
        descriptors.iter().map(|(key, value, _)| [Entry { key, value }]).collect();
    let descriptors: Vec<Descriptor<'_>> = entries
        .iter()
        .zip(descriptors)
        .map(|(entries, (_, _, hits))| Descriptor { hits: *hits, ..Descriptor::new(entries) })
        .collect();
    engine.check(&Request::new("web", &descriptors), Nanos(5)).expect("a request")
}

fn left(engine: &Engine, key: &str, value: &str) -> u64 {
    let entries = [Entry { key, value }];
    let descriptors = [Descriptor::new(&entries).with_hits(0)];
    let answer = engine.peek(&Request::new("web", &descriptors), Nanos(5)).expect("a request");
    answer.statuses[0].decision.expect("a rule").remaining()
}

#[test]
fn a_request_is_charged_all_or_nothing_over_its_descriptors() {
    let engine = engine(vec![any("user", Rule::new(bucket(10))), any("org", Rule::new(bucket(3)))]);
    for round in 0..6 {
        let answer = asked(&engine, &[("user", "a", None), ("org", "b", None)]);
        assert_eq!(answer.allowed, round < 3, "round {round}");
        assert_eq!(answer.decided_by, Some(1));
    }
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "b")), (7, 0));
}

#[test]
fn there_is_a_status_for_each_descriptor_in_its_place() {
    let engine =
        engine(vec![any("user", Rule::new(bucket(2)).named("per user")), any("org", Rule::new(bucket(9)))]);
    let answer =
        asked(&engine, &[("none", "x", None), ("user", "a", None), ("none", "y", None), ("org", "b", None)]);
    let paths: Vec<Option<&str>> =
        answer.statuses.iter().map(|status| status.rule.as_deref().map(|rule| rule.path.as_str())).collect();
    assert_eq!(paths, [None, Some("web.user"), None, Some("web.org")]);
    assert!(answer.statuses[0].decision.is_none() && answer.statuses[0].is_allowed());
    assert_eq!(answer.statuses[1].decision.expect("a decision").remaining(), 1);
    assert_eq!(
        answer.deciding().and_then(|status| status.rule.as_ref()?.name.clone()).as_deref(),
        Some("per user")
    );
}

#[test]
fn an_unknown_domain_and_a_descriptor_without_a_rule_are_allowed() {
    let engine = engine(vec![any("user", Rule::new(bucket(1)))]);
    let entries = [Entry { key: "user", value: "a" }];
    let descriptors = [Descriptor::new(&entries)];
    for _ in 0..3 {
        let answer = engine.check(&Request::new("mail", &descriptors), Nanos(5)).expect("a request");
        assert!(answer.allowed && answer.statuses.len() == 1 && answer.statuses[0].rule.is_none());
        assert!(asked(&engine, &[("other", "a", None)]).allowed);
    }
    assert_eq!(engine.totals().unmatched, 6);
}

#[test]
fn hits_of_a_descriptor_win_over_those_of_the_request_and_0_only_asks() {
    let engine = engine(vec![any("user", Rule::new(bucket(10))), any("org", Rule::new(bucket(10)))]);
    let (user, org) = ([Entry { key: "user", value: "a" }], [Entry { key: "org", value: "a" }]);
    let descriptors = [Descriptor::new(&user), Descriptor::new(&org).with_hits(4)];
    assert!(
        engine.check(&Request::new("web", &descriptors).with_hits(6), Nanos(5)).expect("a request").allowed
    );
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "a")), (4, 6));
    assert!(asked(&engine, &[("user", "a", Some(0)), ("org", "a", Some(1))]).allowed);
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "a")), (4, 5));
    assert!(asked(&engine, &[("user", "a", Some(4))]).allowed);
    let spent = asked(&engine, &[("user", "a", Some(0)), ("org", "a", Some(1))]);
    assert!(!spent.allowed && spent.statuses[0].decision.expect("a decision").retry_after().is_some());
    assert_eq!(left(&engine, "org", "a"), 5, "nothing is charged beside a budget that is spent");
}

#[test]
fn negative_hits_are_ignored_and_counted() {
    let engine = engine(vec![any("user", Rule::new(bucket(10)))]);
    let user = [Entry { key: "user", value: "a" }];
    assert!(asked(&engine, &[("user", "a", Some(7))]).allowed);
    let descriptors = [Descriptor { is_negative_hits: true, ..Descriptor::new(&user).with_hits(5) }];
    assert!(engine.check(&Request::new("web", &descriptors), Nanos(5)).expect("a request").allowed);
    assert_eq!(left(&engine, "user", "a"), 3);
    assert_eq!(engine.totals().negative_hits_ignored, 1);
}

#[test]
fn shadow_rules_say_what_they_would_do_and_quotas_deny_together() {
    let engine = engine(vec![
        any("try", Rule::new(bucket(1)).enforced(Enforcement::Shadow)),
        any("free", Rule::new(bucket(1)).enforced(Enforcement::Quota)),
        any("paid", Rule::new(bucket(2)).enforced(Enforcement::Quota)),
    ]);
    let request = [("try", "a", None), ("free", "a", None), ("paid", "a", None)];
    let answers: Vec<Answer> = (0..3).map(|_| asked(&engine, &request)).collect();
    assert_eq!(answers.iter().map(|answer| answer.allowed).collect::<Vec<_>>(), [true, true, false]);
    assert!(!answers[1].statuses[0].is_allowed() && !answers[1].statuses[1].is_allowed());
    assert_eq!(answers[1].statuses[0].enforcement, Enforcement::Shadow);
    let tallies: Vec<_> =
        engine.rules().iter().map(|rule| (rule.tallies.allowed, rule.tallies.denied)).collect();
    assert_eq!(tallies, [(1, 2), (1, 2), (2, 1)]);
}

#[test]
fn a_rule_that_replaces_another_leaves_it_uncharged() {
    let engine = engine(vec![
        any("client", Rule::new(bucket(1)).named("everyone")),
        any("plan", Rule::new(bucket(5)).replacing(&["everyone"])),
    ]);
    for _ in 0..3 {
        let answer = asked(&engine, &[("client", "a", None), ("plan", "gold", None)]);
        assert!(answer.allowed && answer.statuses[0].rule.is_none());
    }
    assert_eq!((left(&engine, "client", "a"), left(&engine, "plan", "gold")), (1, 2));
}

#[test]
fn what_a_grant_took_is_given_back_once_and_resets_forget() {
    let engine = engine(vec![any("user", Rule::new(bucket(10))), any("org", Rule::new(bucket(10)))]);
    let (user, org) = ([Entry { key: "user", value: "a" }], [Entry { key: "org", value: "a" }]);
    let descriptors = [Descriptor::new(&user).with_hits(4), Descriptor::new(&org).with_hits(6)];
    let request = Request::new("web", &descriptors);
    let (_, grant) = engine.acquire(&request, Nanos(5)).expect("a request");
    engine.refund(grant.expect("a grant"), Nanos(5));
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "a")), (10, 10));
    assert!(engine.check(&request, Nanos(5)).expect("a request").allowed);
    assert_eq!(engine.reset(&request, Nanos(5)), Ok(2));
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "a")), (10, 10));
}

#[test]
fn requests_out_of_bounds_are_refused_and_change_nothing() {
    let engine = engine(vec![any("user", Rule::new(bucket(10)))]);
    let user = [Entry { key: "user", value: "a" }];
    let good = Descriptor::new(&user);
    let refused = |domain: &str, descriptors: &[Descriptor<'_>]| {
        engine.check(&Request::new(domain, descriptors), Nanos(5)).expect_err("it was taken")
    };
    assert_eq!(refused("", &[good]), RequestError::NoDomain);
    assert_eq!(refused("web", &[]), RequestError::NoDescriptors);
    assert_eq!(refused("web", &[good; 33]), RequestError::TooManyDescriptors { descriptors: 33 });
    assert_eq!(refused("web", &[good, Descriptor::new(&[])]), RequestError::NoEntries { descriptor: 1 });
    let many = [user[0]; ENTRIES_MAX + 1];
    let refusal = RequestError::TooManyEntries { descriptor: 1, entries: ENTRIES_MAX + 1 };
    assert_eq!(refused("web", &[good, Descriptor::new(&many)]), refusal);
    let nameless = [Entry { key: "", value: "a" }];
    assert_eq!(refused("web", &[good, Descriptor::new(&nameless)]), RequestError::EmptyKey { descriptor: 1 });
    let long = "x".repeat(REQUEST_BYTES_MAX - 3 - 5 - 4 + 1);
    let long = [Entry { key: "user", value: &long }];
    assert_eq!(
        refused("web", &[good, Descriptor::new(&long)]),
        RequestError::TooLong { bytes: REQUEST_BYTES_MAX + 1 }
    );
    assert_eq!(left(&engine, "user", "a"), 10);
    assert_eq!(engine.totals().refused, 7);
}

#[test]
fn rules_are_listed_and_the_keys_that_are_denied_most_are_known() {
    let engine = engine(vec![any("user", Rule::new(bucket(1)).named("one").on_failure(OnFailure::Closed))]);
    for (value, times) in [("a", 3), ("b", 6), ("c", 1)] {
        (0..times).for_each(|_| drop(asked(&engine, &[("user", value, None)])));
    }
    let top: Vec<_> = engine.top(5).into_iter().map(|top| (top.entries[0].1.clone(), top.denied)).collect();
    assert_eq!(top, [("b".to_owned(), 5), ("a".to_owned(), 2)]);
    let rule = engine.rules().remove(0);
    assert_eq!((rule.path.as_str(), rule.name.as_deref(), rule.algorithm), ("web.user", Some("one"), "gcra"));
    assert_eq!((rule.limit.as_str(), rule.on_failure), ("1 per hour, burst 1", OnFailure::Closed));
    assert_eq!((rule.tallies.allowed, rule.tallies.denied), (3, 7));
}

/// Every denial took a mutex, and so did whoever read the list: one hot key had all threads wait for each other.
#[test]
fn denials_of_one_key_are_in_the_list_of_the_most_denied_or_counted_as_left_out() {
    const THREADS: u64 = 4;
    const REQUESTS: u64 = 2_000;
    let engine = engine(vec![any("user", Rule::new(bucket(1)))]);
    assert!(asked(&engine, &[("user", "hot", None)]).allowed);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    assert!(!asked(&engine, &[("user", "hot", None)]).allowed);
                }
            });
        }
        scope.spawn(|| (0..200).for_each(|_| assert!(engine.top(1).len() <= 1)));
    });
    let top = engine.top(1);
    let totals = engine.totals();
    assert_eq!(totals.denied, THREADS * REQUESTS);
    assert_eq!(top[0].denied + totals.top_skipped, totals.denied);
}
