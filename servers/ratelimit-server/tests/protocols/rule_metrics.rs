//! What the page of metrics tells of rules that come and go.

use std::sync::Arc;

use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Rule, RuleSet};
use ratelimit_core::{AdHoc, HashSecret, Limit, Nanos, Rate, TableSize};
use ratelimit_rules::{Descriptor, Engine, Request};
use ratelimit_server::{LimitService, RuleMetrics};
use service_kit::metrics::MetricsHandle;
use tower_layers::headers::HeaderStyle;
use tower_layers::rate_limit::SystemClock;

fn rules(names: &[&str]) -> RuleSet {
    let rule = |name: &str| {
        let limit = Limit::gcra(Rate::per_minute(3), 3).expect("a limit");
        Node::new(name, NodeValue::Any).with_rule(Rule::new(limit).named(name))
    };
    RuleSet::new([Domain { name: "web".to_owned(), nodes: names.iter().copied().map(rule).collect() }])
        .expect("rules")
}

/// Series of a rule that was removed stayed until the process ended.
#[tokio::test]
async fn the_page_tells_of_the_rules_in_force_and_of_no_others() {
    let size = TableSize::for_keys(100);
    let engine = Engine::new(rules(&["gone", "stays"]), size, HashSecret([7; 16])).expect("an engine");
    let clock = Arc::new(SystemClock::new());
    let limits = LimitService::new(Arc::new(engine.into()), clock, HeaderStyle::DRAFT10_AND_DRAFT03);
    let page = MetricsHandle::new().expect("a recorder");
    let ad_hoc = Arc::new(AdHoc::new(size, HashSecret([8; 16])).expect("memory"));
    let _metrics = RuleMetrics::new(limits.clone(), ad_hoc, 100, &page);
    for key in ["gone", "stays", "stays"] {
        let entries = [Entry { key, value: "a" }];
        let descriptors = [Descriptor::new(&entries)];
        let answer = limits.engine().check(&Request::new("web", &descriptors), Nanos(0)).await;
        assert!(answer.expect("a request").allowed);
    }
    let told = page.render();
    assert!(told.contains("rate_limit_decisions_total{rule=\"gone\",outcome=\"allowed\"} 1\n"), "{told}");
    assert!(told.contains("rate_limit_decisions_total{rule=\"stays\",outcome=\"allowed\"} 2\n"), "{told}");
    limits.engine().reload(rules(&["stays", "new"]), Nanos(0)).await.expect("a reload");
    let told = page.render();
    assert!(!told.contains("gone"), "{told}");
    assert!(told.contains("rate_limit_decisions_total{rule=\"stays\",outcome=\"allowed\"} 2\n"), "{told}");
    assert!(told.contains("rate_limit_decisions_total{rule=\"new\",outcome=\"allowed\"} 0\n"), "{told}");
}
