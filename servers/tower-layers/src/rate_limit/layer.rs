//! The layer and its settings.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ratelimit_core::{HITS_MAX, HashSecret, LimitSet, TableError};
use tower::Layer;

use super::admission::Shared;
use super::clock::{Clock, SystemClock};
use super::rule::RateLimitRule;
use super::service::RateLimit;
use super::waiting::{Queues, WAITING_MAX, WaitPolicy};
use crate::headers::{HeaderStyle, PolicyName};

/// Most rules of a layer.
pub const RULES_MAX: usize = 16;
const _: () = assert!(RULES_MAX <= HITS_MAX, "a request meets every rule of a layer");

/// Why there is no such layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitConfigError {
    /// Without a rule.
    #[error("a rate limit needs at least one rule")]
    NoRules,
    /// More than [`RULES_MAX`].
    #[error("{count} rules are more than {RULES_MAX}")]
    TooManyRules {
        /// How many.
        count: usize,
    },
    /// Two rules of one name: neither clients nor operators could tell them apart.
    #[error("two rules are called {name}; give each a name of its own")]
    SameName {
        /// The name.
        name: PolicyName,
    },
    /// The operating system gives no random bytes, without which clients could choose keys that collide.
    #[error("the operating system gives no random bytes: {cause}")]
    NoRandomness {
        /// What it says.
        cause: String,
    },
    /// A rule needs a table that cannot be had.
    #[error("no table for the rule {name}: {cause}")]
    NoTable {
        /// The rule.
        name: PolicyName,
        /// Why.
        #[source]
        cause: TableError,
    },
    /// More waiting requests than [`WAITING_MAX`], or none.
    #[error("{waiting_max} waiting requests are not 1 to {WAITING_MAX}")]
    WaitingMax {
        /// How many.
        waiting_max: usize,
    },
}

/// Checks every request against its rules. See [the module](super).
///
/// Clones share their limits. So do services that one layer makes, as for the routes of a router.
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Shared,
}

impl RateLimitLayer {
    /// These rules. Headers are written as draft 10 and draft 03 say; nobody waits.
    ///
    /// # Errors
    /// When there are no rules, too many, or two of one name, no random bytes, or no memory for a table.
    pub fn new(rules: Vec<RateLimitRule>) -> Result<Self, RateLimitConfigError> {
        let mut secret = [0; 16];
        let drawn = getrandom::fill(&mut secret);
        drawn.map_err(|error| RateLimitConfigError::NoRandomness { cause: error.to_string() })?;
        Self::with_secret(rules, HashSecret(secret))
    }

    /// The same with a secret of the caller's, which has to be random.
    ///
    /// # Errors
    /// When there are no rules, too many, or two of one name, or no memory for a table.
    pub fn with_secret(rules: Vec<RateLimitRule>, secret: HashSecret) -> Result<Self, RateLimitConfigError> {
        if rules.is_empty() {
            return Err(RateLimitConfigError::NoRules);
        }
        if rules.len() > RULES_MAX {
            return Err(RateLimitConfigError::TooManyRules { count: rules.len() });
        }
        let mut names = HashSet::new();
        if let Some(twice) = rules.iter().find(|rule| !names.insert(rule.name())) {
            return Err(RateLimitConfigError::SameName { name: twice.name().clone() });
        }
        let mut limits = LimitSet::new(secret);
        let mounted = |rule: RateLimitRule| {
            let added = limits.add(rule.limit().clone(), rule.table(), rule.enforcement());
            let no_table = |cause| RateLimitConfigError::NoTable { name: rule.name().clone(), cause };
            let limit = added.map_err(no_table)?;
            Ok((rule, limit))
        };
        let rules = rules.into_iter().map(mounted).collect::<Result<_, _>>()?;
        Ok(Self {
            shared: Shared {
                limits: Arc::new(limits),
                rules,
                clock: Arc::new(SystemClock::new()),
                style: HeaderStyle::DRAFT10_AND_DRAFT03,
                queues: None,
                counters: Arc::new(OnceLock::new()),
            },
        })
    }

    /// Other headers.
    #[must_use]
    pub fn header_style(mut self, style: HeaderStyle) -> Self {
        self.shared.style = style;
        self
    }

    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.shared.clock = Arc::new(clock);
        self
    }

    /// Requests that are denied wait for their turn.
    ///
    /// # Errors
    /// When the policy lets none wait, or too many.
    pub fn wait(mut self, policy: WaitPolicy) -> Result<Self, RateLimitConfigError> {
        if !(1..=WAITING_MAX).contains(&policy.waiting_max) {
            return Err(RateLimitConfigError::WaitingMax { waiting_max: policy.waiting_max });
        }
        self.shared.queues = Some(Queues::new(policy));
        Ok(self)
    }

    /// The limits, for a gauge of their load or to forget what a key has used. They are in the order of the rules.
    pub fn limits(&self) -> &LimitSet {
        &self.shared.limits
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RateLimitLayer").field("rules", &self.shared.rules).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, Arc::new(self.shared.clone()))
    }
}
