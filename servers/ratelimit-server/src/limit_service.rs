//! What the protocols share: the engine, its clock, and how an answer is told.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ratelimit_core::{Decision, Enforcement, Limit, Nanos};
use ratelimit_rules::{Answer, Epoch, RuleRef, Status};
use tower_layers::headers::{
    HeaderStyle, POLICY_NAME_BYTES_MAX, PolicyName, Quota, QuotaPolicy, QuotaUnit, retry_after_seconds,
};
use tower_layers::rate_limit::Clock;

use crate::rule_engine::RuleEngine;

/// Rules at work, and how answers are told. Clones share the counters.
#[derive(Clone)]
pub struct LimitService {
    engine: Arc<RuleEngine>,
    clock: Arc<dyn Clock>,
    epoch: Epoch,
    style: HeaderStyle,
}

impl LimitService {
    /// The service of an engine, with limits told in headers of this style. Windows of limits that requests bring begin with the
    /// clock's epoch.
    pub fn new(engine: Arc<RuleEngine>, clock: Arc<dyn Clock>, style: HeaderStyle) -> Self {
        Self { engine, clock, epoch: Epoch(Duration::ZERO), style }
    }

    /// The same; the wall clock showed this at the clock's epoch, and windows begin with those of the wall clock.
    #[must_use]
    pub fn counting_from(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }

    /// The engine.
    pub fn engine(&self) -> &RuleEngine {
        &self.engine
    }

    /// The time, as the engine counts it.
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// The wall clock's time at the epoch of the engine's clock.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Looks after the counters for ever.
    pub(crate) async fn tend(&self) -> std::convert::Infallible {
        self.engine.tend(&*self.clock).await
    }

    /// Writes the limits of an answer into headers, and `Retry-After` when it was denied.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap, answer: &Answer) {
        let told: Vec<_> = answer.statuses.iter().filter_map(Told::of).collect();
        let enforced = told.iter().filter(|told| told.enforcement != Enforcement::Shadow);
        let quotas: Vec<_> = enforced.map(Told::quota).collect();
        self.style.write(headers, &quotas, self.clock.unix_seconds());
        if let Some(seconds) = retry_seconds(answer, &told) {
            headers.insert(::http::header::RETRY_AFTER, ::http::HeaderValue::from(seconds));
        }
    }
}

fn retry_seconds(answer: &Answer, told: &[Told]) -> Option<u64> {
    if answer.allowed {
        return None;
    }
    let violated: Vec<_> = told.iter().filter(|told| told.is_violated()).map(Told::quota).collect();
    let wait = answer.deciding().and_then(|status| status.decision.as_ref()?.retry_after());
    retry_after_seconds(wait, &violated)
}

/// The policies that denied, by name.
pub(crate) fn violated(answer: &Answer) -> Vec<PolicyName> {
    let told = answer.statuses.iter().filter_map(Told::of);
    told.filter(Told::is_violated).map(|told| told.policy.name().clone()).collect()
}

/// A status as headers tell it.
struct Told {
    policy: QuotaPolicy,
    decision: Decision,
    enforcement: Enforcement,
}

impl Told {
    fn of(status: &Status) -> Option<Self> {
        let (rule, decision) = (status.rule.as_deref()?, status.decision?);
        Some(Self { policy: policy(rule)?, decision, enforcement: status.enforcement })
    }

    fn is_violated(&self) -> bool {
        !self.decision.is_allowed() && self.enforcement != Enforcement::Shadow
    }

    fn quota(&self) -> Quota<'_> {
        Quota {
            policy: &self.policy,
            remaining: self.decision.remaining(),
            more_after: self.decision.more_after(),
            reset_after: self.decision.reset_after(),
        }
    }
}

/// A bucket is announced as what it holds, in the time in which it fills.
fn policy(rule: &RuleRef) -> Option<QuotaPolicy> {
    let policy = QuotaPolicy::new(policy_name(rule)?, rule.limit.size());
    let window: Option<Duration> = match &rule.limit {
        Limit::Gcra(bucket) => Some(bucket.refill_time()),
        Limit::FixedWindow(window) => Some(window.period()),
        Limit::SlidingWindow(window) => Some(window.period()),
        Limit::SlidingLog(log) => Some(log.period()),
        Limit::Concurrency(_) => return Some(policy.with_unit(QuotaUnit::ConcurrentRequests)),
        _ => None,
    };
    Some(match window {
        Some(window) => policy.with_window(window),
        None => policy,
    })
}

/// The rule's name, or its path, as far as a header can hold it.
fn policy_name(rule: &RuleRef) -> Option<PolicyName> {
    let text = rule_name(rule);
    let printable = text.chars().map(|character| match character {
        ' '..='~' => character,
        _ => '?',
    });
    let name: String = printable.take(POLICY_NAME_BYTES_MAX).collect();
    // Printable and short, and not empty: a path begins with the domain. `None` tells the status without its limit.
    name.parse().ok()
}

/// What a rule is called: its name, else its path.
pub(crate) fn rule_name(rule: &RuleRef) -> &str {
    rule.name.as_deref().unwrap_or(&rule.path)
}
