//! What a layer refuses to be.

use std::time::Duration;

use tower_layers::rate_limit::{RULES_MAX, RateLimitConfigError, RateLimitLayer, WAITING_MAX, WaitPolicy};

use crate::buckets::{bucket, layer};

fn refused(rules: Vec<tower_layers::rate_limit::RateLimitRule>) -> RateLimitConfigError {
    RateLimitLayer::new(rules).expect_err("refused")
}

#[test]
fn a_layer_without_rules_with_too_many_or_with_two_of_one_name_is_refused() {
    assert_eq!(refused(vec![]), RateLimitConfigError::NoRules);
    let many = (0..=RULES_MAX).map(|number| bucket(&format!("rule {number}"), 1)).collect();
    assert_eq!(refused(many), RateLimitConfigError::TooManyRules { count: RULES_MAX + 1 });
    let twice = refused(vec![bucket("same", 1), bucket("same", 2)]);
    assert_eq!(twice.to_string(), "two rules are called same; give each a name of its own");
}

#[tokio::test]
async fn a_queue_without_room_or_without_bound_is_refused() {
    for waiting_max in [0, WAITING_MAX + 1] {
        let policy = WaitPolicy { deadline: Duration::from_secs(1), waiting_max };
        let error = layer(vec![bucket("burst", 1)]).wait(policy).expect_err("refused");
        assert_eq!(error, RateLimitConfigError::WaitingMax { waiting_max });
    }
}
