//! The engine: rules and their counters behind one lock that a request holds while it is decided.
//!
//! A decision takes well below a microsecond and never waits, so a reader's lock is all that a request needs; a reload holds
//! the writer's lock while it exchanges the limits. So no request ever meets limits that are not in force any more.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ratelimit_core::rules::{OnFailure, RuleSet};
use ratelimit_core::{CannotSucceed, Enforcement, HashSecret, Hit, LimitError, Nanos, SetGrant, TableSize};

use crate::answer::Answer;
use crate::counts::Counts;
use crate::in_force::{InForce, Keeping, KeptRule, Met};
use crate::request::{Request, RequestError};
use crate::tallies::{Tallies, Totals};
use crate::top::TopDenied;
use crate::words::{algorithm_name, limit_in_words};

/// Rules at work, shared by everything that asks. See the crate's documentation.
pub struct Engine {
    in_force: RwLock<InForce>,
    counts: Counts,
}

/// What a request took. It gives back what it took of rules that have kept their limits since.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping it keeps what it took"]
pub struct EngineGrant {
    grant: SetGrant,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Rules that are in force now.
    pub rules: usize,
    /// Rules that kept place and limit, and so their counters.
    pub unchanged: usize,
    /// Rules with another limit, whose counters keep what was left.
    pub changed: usize,
    /// Rules with another limit that start over: from or to unlimited or deny all.
    pub restarted: usize,
    /// Rules at new places.
    pub added: usize,
    /// Rules that are gone, with their counters.
    pub removed: usize,
}

/// A rule, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleView {
    /// Domain and nodes that lead to it, joined by dots.
    pub path: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its limit in words.
    pub limit: String,
    /// The name of its algorithm.
    pub algorithm: &'static str,
    /// Whether it denies.
    pub enforcement: Enforcement,
    /// What happens without its counters.
    pub on_failure: OnFailure,
    /// What it has decided.
    pub tallies: Tallies,
}

/// Rules cannot be put in force; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Too many rules have counters without number.
    #[error("{tables} rules have a counter for each value, {tables_max} may: merge rules")]
    TooManyTables {
        /// How many there are.
        tables: usize,
        /// How many there may be.
        tables_max: usize,
    },
    /// A rule's limit cannot be shared among nodes.
    #[error("{path} cannot be shared among the nodes: {source}")]
    NoShare {
        /// Where the rule is.
        path: String,
        /// Why.
        #[source]
        source: LimitError,
    },
    /// A rule's limit is none that the store keeps.
    #[error(
        "the rule at {path} has a limit that the store cannot keep: use a bucket, a fixed window or a calendar quota, or \
         keep the counters in memory"
    )]
    NotStored {
        /// Where the rule is.
        path: String,
    },
    /// The store did not take the rules.
    #[error("the store did not take the rules: {reason}")]
    Store {
        /// What it said.
        reason: String,
    },
    /// A rule cannot be put in force: its table cannot be had, or the counters of before cannot be taken over.
    #[error("the rule at {path} cannot be put in force: {reason}")]
    CannotPlace {
        /// Where the rule is.
        path: String,
        /// Why.
        #[source]
        reason: CannotSucceed,
    },
}

impl Engine {
    /// An engine in memory. Each rule with a counter for each value has a table of `size`; the secret has to be random.
    ///
    /// # Errors
    ///
    /// [`EngineError::TooManyTables`] and [`EngineError::CannotPlace`].
    pub fn new(rules: RuleSet, size: TableSize, secret: HashSecret) -> Result<Self, EngineError> {
        Ok(Self {
            in_force: RwLock::new(InForce::new(rules, size, secret, Keeping::All)?),
            counts: Counts::new(),
        })
    }

    /// Puts other rules in force, between two requests.
    ///
    /// # Errors
    ///
    /// [`EngineError`], when nothing has changed.
    pub fn reload(&self, rules: RuleSet, now: Nanos) -> Result<Reloaded, EngineError> {
        // What reads tables is done before anybody has to wait, and what is gone is freed after that.
        let before = self.read().set.census();
        before.tidy(now);
        let reloaded = self.in_force.write().unwrap_or_else(PoisonError::into_inner).reload(rules, now);
        drop(before);
        reloaded
    }

    /// Decides, and charges everything or nothing. An unknown domain and a descriptor without a rule are allowed.
    ///
    /// # Errors
    ///
    /// [`RequestError`], when nothing was charged.
    pub fn check(&self, request: &Request<'_>, now: Nanos) -> Result<Answer, RequestError> {
        Ok(self.acquire(request, now)?.0)
    }

    /// As [`check`](Self::check); with the grant what was taken can be given back.
    ///
    /// # Errors
    ///
    /// [`RequestError`], when nothing was charged.
    pub fn acquire(
        &self,
        request: &Request<'_>,
        now: Nanos,
    ) -> Result<(Answer, Option<EngineGrant>), RequestError> {
        let decided = self.decide(request, |set, hits| {
            set.set
                .acquire(hits, now)
                .map_err(|_| RequestError::TooManyDescriptors { descriptors: hits.len() })
        });
        let (met, (verdict, grant)) = decided.inspect_err(|_| self.counts.refused())?;
        let answer = Answer::of(&met, &verdict);
        self.counts.decided(request, &met, &answer);
        Ok((answer, grant.map(|grant| EngineGrant { grant })))
    }

    /// What `check` would answer, without charging or counting anything.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn peek(&self, request: &Request<'_>, now: Nanos) -> Result<Answer, RequestError> {
        let (met, verdict) = self.decide(request, |set, hits| {
            set.set.peek(hits, now).map_err(|_| RequestError::TooManyDescriptors { descriptors: hits.len() })
        })?;
        Ok(Answer::of(&met, &verdict))
    }

    /// Gives back what a grant took, aged: never more than what has not refilled since anyway.
    pub fn refund(&self, grant: EngineGrant, now: Nanos) {
        self.read().set.refund(grant.grant, now);
    }

    /// Forgets what the descriptors of a request have used. How many counters that were.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn reset(&self, request: &Request<'_>, now: Nanos) -> Result<usize, RequestError> {
        let (met, ()) = self.decide(request, |set, hits| {
            set.set.reset(hits, now);
            Ok(())
        })?;
        Ok(met.iter().flatten().count())
    }

    /// The rules that are in force.
    pub fn rules(&self) -> Vec<RuleView> {
        self.read().kept.iter().map(RuleView::of).collect()
    }

    /// The descriptors that were denied most, most first; at most [`TOP_MAX`](crate::TOP_MAX). Their values are what clients
    /// sent.
    pub fn top(&self, count: usize) -> Vec<TopDenied> {
        self.counts.top(count)
    }

    /// What was decided over all.
    pub fn totals(&self) -> Totals {
        self.counts.totals(self.read().set.overflowed())
    }

    /// Keys that have used something of their limits. Reads all tables: for metrics, not for requests.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        // Not under the lock: a reload would wait for it, and all requests for the reload.
        let census = self.read().set.census();
        census.live_keys(now)
    }

    fn read(&self) -> RwLockReadGuard<'_, InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what the descriptors meet, and decides about it while nothing can change.
    fn decide<T>(
        &self,
        request: &Request<'_>,
        decide: impl Fn(&InForce, &[Hit]) -> Result<T, RequestError>,
    ) -> Result<(Vec<Option<Met>>, T), RequestError> {
        request.check()?;
        let mut in_force = self.read();
        if in_force.lacks_override(request) {
            drop(in_force);
            self.in_force.write().unwrap_or_else(PoisonError::into_inner).add_overrides(request)?;
            // A table of such a limit stays for good.
            in_force = self.read();
        }
        let met = in_force.meet(request);
        let hits: Vec<Hit> = met.iter().flatten().map(|met| met.hit).collect();
        let decided = decide(&in_force, &hits)?;
        Ok((met, decided))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("rules", &self.read().kept.len()).finish_non_exhaustive()
    }
}

impl RuleView {
    pub(crate) fn of(rule: &KeptRule) -> Self {
        Self {
            path: rule.told.path.clone(),
            name: rule.told.name.clone(),
            limit: limit_in_words(&rule.told.limit),
            algorithm: algorithm_name(&rule.told.limit),
            enforcement: rule.enforcement,
            on_failure: rule.on_failure,
            tallies: rule.tally.read(),
        }
    }
}
