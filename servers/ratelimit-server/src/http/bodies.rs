//! What is sent and answered as JSON.

use std::borrow::Cow;
use std::time::Duration;

use ratelimit_core::rules::{Entry, OnFailure};
use ratelimit_core::{Decision, Enforcement, Limit};
use ratelimit_rules::{Answer, Descriptor, Request, RuleView, Status, TopDenied};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::client_address::counted;
use crate::limit_service::rule_name;

/// A question: may this request go?
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// Whose rules are asked.
    #[schema(example = "demo")]
    pub domain: String,
    /// At least one; all of them are charged, or none.
    pub descriptors: Vec<DescriptorBody>,
    /// What each descriptor costs that does not say so itself. 1 if nothing is said; 0 asks whether anything is left, and takes nothing.
    #[serde(default = "one")]
    #[schema(default = 1)]
    pub hits: u64,
    /// Whether the answer names a grant, by which what was taken can be given back.
    #[serde(default)]
    pub grant: bool,
}

fn one() -> u64 {
    1
}

/// One description of a request. It may meet one rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescriptorBody {
    /// In the order of the rules.
    pub entries: Vec<EntryBody>,
    /// What it costs, if not what the question says. 0 asks whether anything is left.
    #[serde(default)]
    pub hits: Option<u64>,
}

/// An entry of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryBody {
    /// What is described.
    #[schema(example = "client_ip")]
    pub key: String,
    /// How.
    #[schema(example = "203.0.113.9")]
    pub value: String,
}

/// The counters to forget.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBody {
    /// Whose rules.
    pub domain: String,
    /// At least one.
    pub descriptors: Vec<DescriptorBody>,
}

/// The grant to give back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundBody {
    /// The name from the answer.
    pub grant: String,
}

/// What was given back: what has refilled since anyway is not given a second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefundedBody {
    /// Always true.
    pub refunded: bool,
}

/// How many counters were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResetDoneBody {
    /// Descriptors that met a rule.
    pub reset: usize,
}

/// An answer. What stands beside `allowed` is that of the status that decided, and null when no enforced rule was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AnswerBody {
    /// Whether the request may go.
    pub allowed: bool,
    /// What the limit holds; null is without limit.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// Milliseconds, rounded up, after which the same request would fit; null when it was allowed or never will.
    pub retry_after_ms: Option<u64>,
    /// Milliseconds, rounded up, after which everything is left.
    pub reset_after_ms: Option<u64>,
    /// The rule's name, else its path.
    pub rule: Option<String>,
    /// One for each descriptor, in their order.
    pub statuses: Vec<StatusBody>,
    /// By which what was taken can be given back, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
}

/// What became of one descriptor. Without a rule everything but `allowed` is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatusBody {
    /// Whether its rule would let the request go.
    pub allowed: bool,
    /// What the limit holds; null is without limit.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// As in the answer.
    pub retry_after_ms: Option<u64>,
    /// As in the answer.
    pub reset_after_ms: Option<u64>,
    /// The rule's name, else its path.
    pub rule: Option<String>,
    /// `enforced`, `shadow` or `quota`.
    pub enforcement: Option<&'static str>,
}

/// A rule that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleBody {
    /// Domain and entries that lead to it.
    pub path: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its limit in words.
    #[schema(example = "60 per minute, burst 20")]
    pub limit: String,
    /// Its algorithm.
    #[schema(example = "gcra")]
    pub algorithm: &'static str,
    /// `enforced`, `shadow` or `quota`.
    pub enforcement: &'static str,
    /// `open`, `closed` or `local_share`.
    pub on_failure: &'static str,
    /// Requests that it would let go.
    pub allowed: u64,
    /// Requests that came too early.
    pub denied: u64,
    /// Requests that cost more than it ever holds.
    pub never_fits: u64,
}

/// A key that is denied often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopBody {
    /// The domain.
    pub domain: String,
    /// The entries, as they were sent.
    pub entries: Vec<EntryBody>,
    /// The rule that denied it last.
    pub rule: String,
    /// How often, at most.
    pub denied: u64,
    /// By how much that may be too high.
    pub overcount: u64,
}

/// A domain and descriptors as they were sent.
pub(super) struct Question<'b> {
    domain: &'b str,
    bodies: &'b [DescriptorBody],
    hits: u64,
    values: Vec<Vec<Cow<'b, str>>>,
}

impl<'b> Question<'b> {
    pub(super) fn new(domain: &'b str, bodies: &'b [DescriptorBody], hits: u64) -> Self {
        let value = |entry: &'b EntryBody| counted(&entry.key, &entry.value);
        let values = bodies.iter().map(|body| body.entries.iter().map(value).collect());
        Self { domain, bodies, hits, values: values.collect() }
    }

    /// The entries of each descriptor, with the values that are counted.
    pub(super) fn entries(&self) -> Vec<Vec<Entry<'_>>> {
        let parts = self.bodies.iter().zip(&self.values);
        parts
            .map(|(body, values)| {
                let parts = body.entries.iter().zip(values);
                parts.map(|(entry, value)| Entry { key: &entry.key, value }).collect()
            })
            .collect()
    }

    /// The descriptors of the request.
    pub(super) fn descriptors<'d>(&self, entries: &'d [Vec<Entry<'d>>]) -> Vec<Descriptor<'d>> {
        let parts = self.bodies.iter().zip(entries);
        parts.map(|(body, entries)| Descriptor { hits: body.hits, ..Descriptor::new(entries) }).collect()
    }

    /// The request with these descriptors.
    pub(super) fn request<'r>(&'r self, descriptors: &'r [Descriptor<'r>]) -> Request<'r> {
        Request::new(self.domain, descriptors).with_hits(self.hits)
    }
}

impl AnswerBody {
    pub(super) fn of(answer: &Answer, grant: Option<String>) -> Self {
        let deciding = answer.deciding().map(StatusBody::of).unwrap_or_default();
        let StatusBody { limit, remaining, retry_after_ms, reset_after_ms, rule, .. } = deciding;
        let statuses = answer.statuses.iter().map(StatusBody::of).collect();
        Self {
            allowed: answer.allowed,
            limit,
            remaining,
            retry_after_ms,
            reset_after_ms,
            rule,
            statuses,
            grant,
        }
    }
}

impl Default for StatusBody {
    /// That of a descriptor without a rule.
    fn default() -> Self {
        Self {
            allowed: true,
            limit: None,
            remaining: None,
            retry_after_ms: None,
            reset_after_ms: None,
            rule: None,
            enforcement: None,
        }
    }
}

impl StatusBody {
    fn of(status: &Status) -> Self {
        let (Some(rule), Some(decision)) = (&status.rule, &status.decision) else { return Self::default() };
        let bounded = |number: u64| (rule.limit != Limit::Unlimited).then_some(number);
        Self {
            allowed: decision.is_allowed(),
            limit: bounded(decision.limit()),
            remaining: bounded(decision.remaining()),
            retry_after_ms: decision.retry_after().map(milliseconds),
            reset_after_ms: bounded(milliseconds(Decision::reset_after(decision))),
            rule: Some(rule_name(rule).to_owned()),
            enforcement: Some(enforcement(status.enforcement)),
        }
    }
}

/// Rounded up: whoever waits as long is not early.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Enforced => "enforced",
        Enforcement::Shadow => "shadow",
        Enforcement::Quota => "quota",
    }
}

impl RuleBody {
    pub(super) fn of(rule: &RuleView) -> Self {
        Self {
            path: rule.path.clone(),
            name: rule.name.clone(),
            limit: rule.limit.clone(),
            algorithm: rule.algorithm,
            enforcement: enforcement(rule.enforcement),
            on_failure: match rule.on_failure {
                OnFailure::Open => "open",
                OnFailure::Closed => "closed",
                OnFailure::LocalShare => "local_share",
            },
            allowed: rule.tallies.allowed,
            denied: rule.tallies.denied,
            never_fits: rule.tallies.never_fits,
        }
    }
}

impl From<TopDenied> for TopBody {
    fn from(top: TopDenied) -> Self {
        let entries = top.entries.into_iter().map(|(key, value)| EntryBody { key, value }).collect();
        Self { domain: top.domain, entries, rule: top.rule, denied: top.denied, overcount: top.overcount }
    }
}
