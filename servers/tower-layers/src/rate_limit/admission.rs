//! Checking a request, and what an admitted one holds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use ratelimit_core::{
    Decision, Enforcement, Hit, LimitId, LimitSet, Outcome, SetGrant, TooManyHits, Verdict,
};

use super::clock::Clock;
use super::counters::RuleCounters;
use super::rule::{RateLimitRule, Scope};
use super::waiting::Queues;
use crate::headers::{HeaderStyle, Quota};
use crate::keys::{Extract, KeyError, RequestHead, RequestKey, ResponseHead};

/// What all services of a layer share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) limits: Arc<LimitSet>,
    pub(super) rules: Arc<[(RateLimitRule, LimitId)]>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) style: HeaderStyle,
    pub(super) queues: Option<Arc<Queues>>,
    /// Made at the first request: by then the program has installed its recorder.
    pub(super) counters: Arc<OnceLock<Vec<RuleCounters>>>,
}

/// One rule's part of a request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) rule: usize,
    pub(super) key: RequestKey,
    cost: u64,
}

/// A request that does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// It cannot be counted.
    Key(KeyError),
    /// Rules do not let it pass.
    Denied(Denial),
}

/// Why a request was denied.
#[derive(Debug)]
pub(super) struct Denial {
    /// Rule and answer.
    pub(super) decisions: Vec<(usize, Decision)>,
    /// The rules that denied.
    pub(super) violated: Vec<usize>,
    /// When to come again; `None` when it never fits.
    pub(super) retry_after: Option<Duration>,
}

/// The answer to a request.
pub(super) struct Checked {
    verdict: Option<Verdict>,
    grant: Option<SetGrant>,
}

impl Checked {
    /// The ask to wait for and how long: `None` when the request was admitted or never fits.
    pub(super) fn denied_by(&self) -> Option<(usize, Duration)> {
        let verdict = self.verdict.as_ref().filter(|verdict| !verdict.is_allowed())?;
        let position = verdict.decided_by()?;
        Some((position, verdict.decisions().get(position)?.retry_after()?))
    }
}

impl Shared {
    /// What the rules ask about a request.
    pub(super) fn asks(&self, request: RequestHead<'_>) -> Result<Vec<Ask>, Stop> {
        let mut asks = Vec::with_capacity(self.rules.len());
        for (position, (rule, _)) in self.rules.iter().enumerate() {
            match rule.key().of(request) {
                Ok(key) => asks.push(Ask { rule: position, key, cost: rule.cost_of(request) }),
                // Only a client can be without a key. A layer that is missing would switch the rule off for everybody.
                Err(KeyError::Absent { .. }) if rule.scope() == Scope::Keyed => {}
                Err(_) if rule.enforcement() == Enforcement::Shadow => {}
                Err(error) => return Err(Stop::Key(error)),
            }
        }
        Ok(asks)
    }

    fn hit(&self, ask: &Ask, cost: u64) -> Option<Hit> {
        let (_, limit) = self.rules.get(ask.rule)?;
        Some(self.limits.hit(*limit, ask.key.as_bytes(), cost))
    }

    fn hits(&self, asks: &[Ask]) -> Vec<Hit> {
        asks.iter().filter_map(|ask| self.hit(ask, ask.cost)).collect()
    }

    /// Charges all that a request asks, or nothing.
    pub(super) fn check(&self, asks: &[Ask]) -> Checked {
        match self.limits.acquire(&self.hits(asks), self.clock.now()) {
            Ok((verdict, grant)) => Checked { verdict: Some(verdict), grant },
            // Does not occur: `RULES_MAX` is less. It would be a denial.
            Err(TooManyHits { .. }) => Checked { verdict: None, grant: None },
        }
    }

    pub(super) fn admit(self: &Arc<Self>, asks: Vec<Ask>, checked: Checked) -> Result<Admission, Stop> {
        let Checked { verdict, grant } = checked;
        let decisions = decided(&asks, verdict.as_ref());
        decisions.iter().for_each(|(rule, decision)| self.count(*rule, decision.outcome()));
        if verdict.is_some_and(|verdict| verdict.is_allowed()) {
            return Ok(Admission {
                shared: Arc::clone(self),
                asks,
                decisions,
                grant,
                phase: Phase::Unserved,
            });
        }
        let denied =
            decisions.iter().filter(|(rule, decision)| self.enforces(*rule) && !decision.is_allowed());
        let waits: Vec<Option<Duration>> =
            denied.clone().map(|(_, decision)| decision.retry_after()).collect();
        let violated = denied.map(|(rule, _)| *rule).collect();
        let retry_after =
            waits.into_iter().collect::<Option<Vec<_>>>().and_then(|waits| waits.into_iter().max());
        Err(Stop::Denied(Denial { decisions, violated, retry_after }))
    }

    /// A refusal of a request that others were before, at this rule.
    pub(super) fn overtaken(&self, asks: &[Ask], at: usize) -> Stop {
        let looks: Vec<Hit> = asks.iter().filter_map(|ask| self.hit(ask, 0)).collect();
        let decisions = decided(asks, self.limits.peek(&looks, self.clock.now()).ok().as_ref());
        let at_rule = decisions.iter().find(|(rule, _)| *rule == at);
        let retry_after = at_rule.map(|(_, decision)| decision.more_after());
        self.count(at, Outcome::Denied);
        Stop::Denied(Denial { decisions, violated: vec![at], retry_after })
    }

    fn enforces(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|(rule, _)| rule.enforcement() != Enforcement::Shadow)
    }

    fn count(&self, rule: usize, outcome: Outcome) {
        let counters =
            self.counters.get_or_init(|| self.rules.iter().map(|(rule, _)| RuleCounters::of(rule)).collect());
        if let Some(counters) = counters.get(rule) {
            counters.count(outcome);
        }
    }

    /// What to tell the client: nothing of shadows, nor of what has no limit.
    pub(super) fn quotas(&self, decisions: &[(usize, Decision)]) -> Vec<Quota<'_>> {
        let quota = |(rule, decision): &(usize, Decision)| {
            let policy = self.rules.get(*rule)?.0.policy();
            let told = self.enforces(*rule) && policy.is_bounded();
            let (remaining, more_after) = (decision.remaining(), decision.more_after());
            told.then_some(Quota { policy, remaining, more_after, reset_after: decision.reset_after() })
        };
        decisions.iter().filter_map(quota).collect()
    }

    pub(super) fn write_headers(&self, headers: &mut HeaderMap, decisions: &[(usize, Decision)]) {
        self.style.write(headers, &self.quotas(decisions), self.clock.unix_seconds());
    }
}

/// Each rule with its answer.
fn decided(asks: &[Ask], verdict: Option<&Verdict>) -> Vec<(usize, Decision)> {
    let decisions = verdict.map(Verdict::decisions).unwrap_or_default();
    asks.iter().map(|ask| ask.rule).zip(decisions.iter().copied()).collect()
}

/// How far an admitted request has come.
enum Phase {
    /// The service was not called.
    Unserved,
    /// It was; what each ask has cost, as far as the response told.
    Served(Vec<Option<u64>>),
}

/// What an admitted request holds. Dropped, it settles: everything is given back as long as the service was not called; after
/// that permits are returned, and each charge is what the response told.
pub(super) struct Admission {
    shared: Arc<Shared>,
    asks: Vec<Ask>,
    decisions: Vec<(usize, Decision)>,
    grant: Option<SetGrant>,
    phase: Phase,
}

impl Admission {
    /// From now on the charge stands.
    pub(super) fn begin(&mut self) {
        self.phase = Phase::Served(Vec::new());
    }

    /// Corrects the charge to what the response tells. What holds permits is settled when it is dropped.
    pub(super) fn answered(&mut self, response: ResponseHead<'_>) {
        let rule = |ask: &Ask| self.shared.rules.get(ask.rule).map(|(rule, _)| rule);
        let costs = self.asks.iter().map(|ask| rule(ask)?.cost_by_response(response)).collect();
        self.phase = Phase::Served(costs);
        if !self.holds_permits() {
            self.settle();
        }
    }

    /// Tells the client what is left.
    pub(super) fn write_headers(&self, headers: &mut HeaderMap) {
        self.shared.write_headers(headers, &self.decisions);
    }

    pub(super) fn holds_permits(&self) -> bool {
        self.grant.is_some() && self.asks.iter().any(|ask| self.shared.holds_permits(ask))
    }

    fn settle(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let (shared, now) = (&self.shared, self.shared.clock.now());
        match &self.phase {
            Phase::Unserved => shared.limits.refund(grant, now),
            Phase::Served(costs) => {
                let told = costs.iter().copied().chain(std::iter::repeat(None));
                let real = self.asks.iter().zip(told).filter_map(|(ask, told)| {
                    // A permit is returned whatever the request has cost.
                    let cost = if shared.holds_permits(ask) { Some(0) } else { told };
                    shared.hit(ask, cost?)
                });
                shared.limits.settle(grant, &real.collect::<Vec<_>>(), now);
            }
        }
        if let Some(queues) = &shared.queues {
            self.asks.iter().filter(|ask| shared.holds_permits(ask)).for_each(|ask| queues.returned(ask));
        }
    }
}

impl Shared {
    /// Whether the ask is for a permit, which comes back when a request ends and not at a time.
    pub(super) fn holds_permits(&self, ask: &Ask) -> bool {
        self.rules.get(ask.rule).is_some_and(|(rule, _)| rule.holds_permits())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.settle();
    }
}
