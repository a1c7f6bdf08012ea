//! Limits that requests bring.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Rule, RuleSet};
use ratelimit_core::{HashSecret, Limit, Nanos, Rate, TableSize};
use ratelimit_rules::{
    Descriptor, Engine, Epoch, LimitOverride, OVERRIDES_MAX, OverrideUnit, Request, RequestError,
};

const HOUR_S: u64 = 3_600;
const HOUR: Duration = Duration::from_secs(HOUR_S);
/// 20 minutes into an hour of the wall clock.
const EPOCH: Epoch = Epoch(Duration::from_secs(500_000 * HOUR_S + 1_200));
const NOW: Nanos = Nanos(5);

fn engine(keys: u64) -> Engine {
    let any = |key: &str, burst| {
        let limit = Limit::gcra(Rate::per_hour(burst), burst).expect("a limit");
        Node::new(key, NodeValue::Any).with_rule(Rule::new(limit))
    };
    let nodes = vec![any("user", 10), any("org", 9)];
    let rules = RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules");
    Engine::new(rules, TableSize { keys, sketch_bytes: 1 << 16 }, HashSecret([3; 16])).expect("an engine")
}

fn per(count: u32, unit: OverrideUnit) -> LimitOverride {
    LimitOverride::new(count, unit, EPOCH).expect("a limit")
}

/// What is left of `user=value` under the limit after the hits, if they were admitted.
fn take(engine: &Engine, value: &str, limit: &LimitOverride, hits: u64, now: Nanos) -> Option<u64> {
    let entries = [Entry { key: "user", value }];
    let descriptors = [Descriptor::new(&entries).limited(limit).with_hits(hits)];
    let answer = engine.check(&Request::new("web", &descriptors), now).expect("a request");
    answer.allowed.then(|| answer.statuses[0].decision.expect("a decision").remaining())
}

#[test]
fn a_limit_that_a_request_brings_counts_for_its_descriptor_in_place_of_the_rule() {
    let engine = engine(100);
    let (user, org) = ([Entry { key: "user", value: "a" }], [Entry { key: "org", value: "a" }]);
    let own = per(2, OverrideUnit::Hour);
    let descriptors = [Descriptor::new(&user).limited(&own), Descriptor::new(&org)];
    let request = Request::new("web", &descriptors);
    let allowed = (0..4).filter(|_| engine.check(&request, NOW).expect("a request").allowed).count();
    assert_eq!(allowed, 2);
    let left = |entries: &[Entry<'_>]| {
        let descriptors = [Descriptor::new(entries).with_hits(0)];
        let answer = engine.check(&Request::new("web", &descriptors), NOW).expect("a request");
        answer.statuses[0].decision.expect("a decision").remaining()
    };
    assert_eq!((left(&user), left(&org)), (10, 7), "what was denied was charged nowhere");
    let unknown = engine.check(&Request { domain: "mail", ..request }, NOW).expect("a request");
    assert!(unknown.allowed && unknown.statuses[0].rule.is_none(), "in a domain that is known");
}

/// With a counter for each limit, whoever is sent 5, then 6, then 7 per hour would have 18.
#[test]
fn another_count_for_a_key_gives_it_nothing_that_it_has_used() {
    let engine = engine(100);
    let hour = |count| per(count, OverrideUnit::Hour);
    assert_eq!(take(&engine, "a", &hour(5), 5, NOW), Some(0));
    assert_eq!(take(&engine, "a", &hour(6), 2, NOW), None);
    assert_eq!(take(&engine, "a", &hour(6), 1, NOW), Some(0));
    assert_eq!(
        take(&engine, "a", &hour(5), 1, NOW),
        None,
        "a smaller one does not forget what a larger one gave"
    );
    assert_eq!(take(&engine, "a", &hour(u32::MAX), 1, NOW), Some(u64::from(u32::MAX) - 7));
    // Another unit is another window, as two descriptors of one request need it.
    assert_eq!(take(&engine, "a", &per(5, OverrideUnit::Day), 1, NOW), Some(4));
    assert_eq!(take(&engine, "b", &hour(0), 1, NOW), None);
    assert_eq!(take(&engine, "b", &hour(3), 4, NOW), None, "never");
}

#[test]
fn windows_begin_with_those_of_the_wall_clock() {
    let engine = engine(100);
    let limit = per(1, OverrideUnit::Hour);
    assert_eq!(take(&engine, "a", &limit, 1, NOW), Some(0));
    let entries = [Entry { key: "user", value: "a" }];
    let descriptors = [Descriptor::new(&entries).limited(&limit)];
    let denied = engine.check(&Request::new("web", &descriptors), Nanos(0)).expect("a request");
    let decision = denied.statuses[0].decision.expect("a decision");
    assert_eq!(decision.retry_after(), Some(Duration::from_secs(2_400)));
    assert_eq!(decision.limit(), 1);
    let next = Nanos(0).after(Duration::from_secs(2_400));
    assert_eq!(take(&engine, "a", &limit, 1, Nanos(next.0 - 1)), None);
    assert_eq!(take(&engine, "a", &limit, 1, next), Some(0));
}

#[test]
fn no_number_of_different_counts_needs_more_memory_or_is_refused() {
    let engine = engine(100);
    for count in 1..=10_000 {
        for unit in OverrideUnit::ALL {
            take(&engine, "a", &per(count, unit), 1, NOW).expect("one more than before");
        }
    }
    assert_eq!(engine.live_keys(NOW), 7, "one for each unit");
    // Only a caller that mixes epochs is refused.
    let refused = (0..=OVERRIDES_MAX as u64).find_map(|hour| {
        let epoch = Epoch(Duration::from_secs(hour + 1));
        let limit = LimitOverride::new(1, OverrideUnit::Hour, epoch).expect("a limit");
        let entries = [Entry { key: "user", value: "a" }];
        let descriptors = [Descriptor::new(&entries).limited(&limit)];
        engine.check(&Request::new("web", &descriptors), NOW).err()
    });
    assert_eq!(refused, Some(RequestError::TooManyOverrides { overrides_max: OVERRIDES_MAX }));
}

#[test]
fn two_counts_for_one_descriptor_in_one_request_are_charged_together_under_the_smaller() {
    let engine = engine(100);
    let entries = [Entry { key: "user", value: "a" }];
    let (few, many) = (per(3, OverrideUnit::Hour), per(9, OverrideUnit::Hour));
    let descriptors = [Descriptor::new(&entries).limited(&many), Descriptor::new(&entries).limited(&few)];
    let request = Request::new("web", &descriptors);
    assert!(engine.check(&request, NOW).expect("a request").allowed);
    assert!(!engine.check(&request, NOW).expect("a request").allowed, "4 would be used");
    assert_eq!(take(&engine, "a", &few, 0, NOW), Some(1));
}

#[test]
fn a_reload_keeps_what_was_taken_of_limits_that_requests_bring() {
    let engine = engine(100);
    let limit = per(5, OverrideUnit::Hour);
    assert_eq!(take(&engine, "a", &limit, 4, NOW), Some(1));
    let nodes = vec![Node::new("other", NodeValue::Any).with_rule(Rule::new(Limit::DenyAll))];
    engine
        .reload(RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules"), NOW)
        .expect("reloaded");
    assert_eq!(take(&engine, "a", &limit, 2, NOW), None);
    assert_eq!(take(&engine, "a", &limit, 1, NOW), Some(0));
}

#[test]
fn a_grant_gives_back_what_it_took_of_a_limit_that_it_brought() {
    let engine = engine(100);
    let limit = per(5, OverrideUnit::Hour);
    let entries = [Entry { key: "user", value: "a" }];
    let descriptors = [Descriptor::new(&entries).limited(&limit).with_hits(5)];
    let (_, grant) = engine.acquire(&Request::new("web", &descriptors), NOW).expect("a request");
    assert_eq!(take(&engine, "a", &limit, 1, NOW), None);
    engine.refund(grant.expect("a grant"), NOW);
    assert_eq!(take(&engine, "a", &limit, 0, NOW), Some(5));
}

proptest! {
    /// The model: a count per window of the wall clock and key; a request fits when the count with it is at most its own limit.
    #[test]
    fn whatever_counts_are_sent_a_window_is_counted_once(
        acts in prop::collection::vec((0..3u32, 0..9u32, 0..4u64, 0..2_000u64), 1..200),
    ) {
        let engine = engine(100);
        let (mut now_s, mut used) = (0u64, std::collections::HashMap::<(u32, u64), u64>::new());
        for (user, count, hits, wait_s) in acts {
            now_s += wait_s;
            let now = Nanos(0).after(Duration::from_secs(now_s));
            let window = (EPOCH.0.as_secs() + now_s) / HOUR_S;
            let used = used.entry((user, window)).or_default();
            // Hits of 0 ask for one.
            let fits = *used + hits.max(1) <= u64::from(count);
            if fits {
                *used += hits;
            }
            let left = take(&engine, &user.to_string(), &per(count, OverrideUnit::Hour), hits, now);
            prop_assert_eq!(left, fits.then(|| u64::from(count) - *used));
        }
    }
}

/// F6 for limits that requests bring: more keys than there is room for.
#[test]
fn f6_a_flood_of_keys_gives_no_victim_a_second_allowance() {
    let engine = engine(64);
    let limit = per(1, OverrideUnit::Hour);
    let mut passed = 0;
    for round in 0..20 {
        passed += usize::from(take(&engine, "victim", &limit, 1, NOW).is_some());
        for key in 0..1_000 {
            take(&engine, &format!("{round}-{key}"), &limit, 1, NOW);
        }
    }
    assert_eq!(passed, 1);
    assert_eq!(HOUR, OverrideUnit::Hour.period());
}
