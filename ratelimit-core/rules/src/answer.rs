//! What a request is answered.

use std::sync::Arc;

use ratelimit_core::{Decision, Enforcement, Limit, Verdict};

use crate::in_force::Met;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the request may go.
    pub allowed: bool,
    /// One for each descriptor, in their order.
    pub statuses: Vec<Status>,
    /// Which descriptor decided: of those that denied, the one to wait for longest; else the one with least left. `None`
    /// when no enforced rule was met.
    pub decided_by: Option<usize>,
    /// Whether it was given without the store that has the counters: each rule did what it does then.
    pub degraded: bool,
}

/// What became of one descriptor.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The rule that it met and that no other one replaces.
    pub rule: Option<Arc<RuleRef>>,
    /// What the rule said; `None` when there is none.
    pub decision: Option<Decision>,
    /// Whether it counts.
    pub enforcement: Enforcement,
}

/// A rule, as answers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// Domain and nodes that lead to it, joined by dots.
    pub path: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its limit.
    pub limit: Limit,
}

impl Answer {
    /// The verdict about what was met, told for each descriptor.
    pub(crate) fn of(met: &[Option<Met>], verdict: &Verdict) -> Self {
        let mut decisions = verdict.decisions().iter();
        let status = |met: &Option<Met>| match met {
            Some(met) => Status {
                rule: Some(met.told.clone()),
                decision: decisions.next().copied(),
                enforcement: met.enforcement,
            },
            None => Status::none(),
        };
        let statuses = met.iter().map(status).collect();
        let hits: Vec<usize> =
            met.iter().enumerate().filter_map(|(index, met)| met.as_ref().map(|_| index)).collect();
        let decided_by = verdict.decided_by().and_then(|hit| hits.get(hit).copied());
        Self { allowed: verdict.is_allowed(), statuses, decided_by, degraded: false }
    }

    /// The status that decided.
    pub fn deciding(&self) -> Option<&Status> {
        self.decided_by.and_then(|index| self.statuses.get(index))
    }
}

impl Status {
    pub(crate) fn none() -> Self {
        Self { rule: None, decision: None, enforcement: Enforcement::Enforced }
    }

    /// Whether the rule, if there is one, would let the request go.
    pub fn is_allowed(&self) -> bool {
        self.decision.as_ref().is_none_or(Decision::is_allowed)
    }
}
