//! Rules of a layer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ratelimit_core::{Enforcement, Limit, TableSize};

use crate::headers::{PolicyName, QuotaPolicy, QuotaUnit};
use crate::keys::{KeyExtractor, REQUEST_COST, RequestCost, RequestHead, ResponseCost, ResponseHead};

/// For so many keys at a time a rule has room unless it says otherwise: about 2 MiB. Those beyond share a sketch that may deny
/// them early.
pub const KEYS_DEFAULT: u64 = 100_000;

/// To which requests a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All. One without a key is refused.
    All,
    /// Those that have a key.
    Keyed,
}

/// A limit, whom it counts for, and what a request costs.
#[derive(Clone)]
pub struct RateLimitRule {
    policy: QuotaPolicy,
    limit: Limit,
    key: Arc<dyn KeyExtractor>,
    cost: Option<RequestCost>,
    response_cost: Option<ResponseCost>,
    enforcement: Enforcement,
    scope: Scope,
    table: TableSize,
}

impl RateLimitRule {
    /// Every request that has the same key costs 1 of `limit`. A request without a key is refused: it would be counted for
    /// nobody, or for everybody.
    pub fn new(name: PolicyName, limit: Limit, key: impl KeyExtractor + 'static) -> Self {
        Self {
            policy: policy(name, &limit),
            limit,
            key: Arc::new(key),
            cost: None,
            response_cost: None,
            enforcement: Enforcement::Enforced,
            scope: Scope::All,
            table: TableSize::for_keys(KEYS_DEFAULT),
        }
    }

    /// What a request costs.
    #[must_use]
    pub fn with_cost(self, cost: impl Fn(RequestHead<'_>) -> u64 + Send + Sync + 'static) -> Self {
        Self { cost: Some(Arc::new(cost)), ..self }
    }

    /// What a request has cost, as its response tells. Less than what was charged is given back, as far as it has not refilled
    /// since; more is charged as debt where the limit allows it. What is charged at first has to be 1 at least.
    #[must_use]
    pub fn with_response_cost(
        self,
        cost: impl Fn(ResponseHead<'_>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self { response_cost: Some(Arc::new(cost)), ..self }
    }

    /// Counted in bytes of content: what responses say of it.
    #[must_use]
    pub fn in_unit(self, unit: QuotaUnit) -> Self {
        Self { policy: self.policy.with_unit(unit), ..self }
    }

    /// Whether the rule refuses. In shadow it is charged and counted as if it did.
    #[must_use]
    pub fn with_enforcement(self, enforcement: Enforcement) -> Self {
        Self { enforcement, ..self }
    }

    /// Room for other than [`KEYS_DEFAULT`] keys.
    #[must_use]
    pub fn with_table(self, table: TableSize) -> Self {
        Self { table, ..self }
    }

    /// Requests without a key pass this rule. For a second rule beside one that applies to all: whoever can leave out the key
    /// is free of this one. A key that cannot be found because a layer is missing ([`KeyError::NotWired`]) is refused all the
    /// same: it is the server's mistake, and would free everybody.
    ///
    /// [`KeyError::NotWired`]: crate::keys::KeyError::NotWired
    #[must_use]
    pub fn only_with_key(self) -> Self {
        Self { scope: Scope::Keyed, ..self }
    }

    /// The policy's name.
    pub fn name(&self) -> &PolicyName {
        self.policy.name()
    }

    pub(super) fn policy(&self) -> &QuotaPolicy {
        &self.policy
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    pub(super) fn table(&self) -> TableSize {
        self.table
    }

    pub(super) fn key(&self) -> &dyn KeyExtractor {
        &*self.key
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    pub(super) fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    pub(super) fn holds_permits(&self) -> bool {
        matches!(self.limit, Limit::Concurrency(_))
    }

    pub(super) fn cost_of(&self, request: RequestHead<'_>) -> u64 {
        self.cost.as_ref().map_or(REQUEST_COST, |cost| cost(request))
    }

    pub(super) fn cost_by_response(&self, response: ResponseHead<'_>) -> Option<u64> {
        self.response_cost.as_ref().and_then(|cost| cost(response))
    }
}

/// A bucket is announced as what it holds, in the time in which it fills.
fn policy(name: PolicyName, limit: &Limit) -> QuotaPolicy {
    let policy = QuotaPolicy::new(name, limit.size());
    let window: Option<Duration> = match limit {
        Limit::Gcra(bucket) => Some(bucket.refill_time()),
        Limit::FixedWindow(window) => Some(window.period()),
        Limit::SlidingWindow(window) => Some(window.period()),
        Limit::SlidingLog(log) => Some(log.period()),
        Limit::Concurrency(_) => return policy.with_unit(QuotaUnit::ConcurrentRequests),
        _ => None,
    };
    window.map_or(policy.clone(), |window| policy.with_window(window))
}

impl fmt::Debug for RateLimitRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RateLimitRule")
            .field("policy", &self.policy)
            .field("limit", &self.limit)
            .field("enforcement", &self.enforcement)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
