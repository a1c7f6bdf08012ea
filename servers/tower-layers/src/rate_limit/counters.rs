//! What operators see. Labels are rule names: as many as there are rules.

use metrics::{Counter, Gauge, counter, gauge};
use ratelimit_core::{Enforcement, Outcome};

use super::rule::RateLimitRule;

/// Counters of one rule.
pub(super) struct RuleCounters {
    allowed: Counter,
    denied: Counter,
    never_fits: Counter,
    exceeded: Option<Counter>,
}

impl RuleCounters {
    pub(super) fn of(rule: &RateLimitRule) -> Self {
        let name = rule.name().as_str();
        let of = |outcome: &'static str| counter!("rate_limit_decisions_total", "rule" => name.to_owned(), "outcome" => outcome);
        match rule.enforcement() {
            Enforcement::Enforced | Enforcement::Quota => Self {
                allowed: of("allowed"),
                denied: of("denied"),
                never_fits: of("never_fits"),
                exceeded: Some(counter!("rate_limits_exceeded_total", "rule" => name.to_owned())),
            },
            Enforcement::Shadow => Self {
                allowed: of("shadow_allowed"),
                denied: of("shadow_denied"),
                never_fits: of("shadow_denied"),
                exceeded: None,
            },
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Allowed => self.allowed.increment(1),
            Outcome::Denied => self.denied.increment(1),
            Outcome::NeverFits => self.never_fits.increment(1),
        }
        if outcome != Outcome::Allowed
            && let Some(exceeded) = &self.exceeded
        {
            exceeded.increment(1);
        }
    }
}

/// Requests that wait for their turn.
pub(super) fn waiting() -> Gauge {
    gauge!("rate_limit_waiting")
}
