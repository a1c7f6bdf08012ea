//! Rules at work, wherever their counters are.

use std::convert::Infallible;
use std::time::Duration;

use ratelimit_core::Nanos;
use ratelimit_core::rules::RuleSet;
use ratelimit_rules::{
    Answer, Engine, EngineError, EngineGrant, Reloaded, Request, RequestError, RuleView, StoreCallError,
    StoreEngine, StoreGrant, StoreHealth, TEND_INTERVAL, TendDeadlines, TopDenied, Totals,
};
use storage_adapters::redb::rates::RateGrant;
use tower_layers::rate_limit::Clock;

use crate::durable_store::DurableStore;

/// How long the file may take to make a decision durable; after that each rule does what it does without its counters.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a probe of a file that failed may take, with all that it is told then.
const TEND_TIMEOUT: Duration = Duration::from_secs(5);

/// An engine of rules.
#[derive(Debug)]
pub enum RuleEngine {
    /// Counters in memory: a restart starts them anew.
    Memory(Box<Engine>),
    /// Counters in a file that a restart does not give back.
    Durable(Box<StoreEngine<DurableStore>>),
}

/// What a request took.
#[derive(Debug)]
#[must_use = "dropping it keeps what it took"]
pub enum RuleGrant {
    /// In memory.
    Memory(EngineGrant),
    /// In the file.
    Durable(StoreGrant<RateGrant>),
}

impl From<Engine> for RuleEngine {
    fn from(engine: Engine) -> Self {
        Self::Memory(Box::new(engine))
    }
}

impl From<StoreEngine<DurableStore>> for RuleEngine {
    fn from(engine: StoreEngine<DurableStore>) -> Self {
        Self::Durable(Box::new(engine))
    }
}

impl RuleEngine {
    /// Decides, and charges everything or nothing.
    ///
    /// # Errors
    /// [`RequestError`], when nothing was charged.
    pub async fn check(&self, request: &Request<'_>, now: Nanos) -> Result<Answer, RequestError> {
        match self {
            Self::Memory(engine) => engine.check(request, now),
            Self::Durable(engine) => engine.check(request, now, tokio::time::sleep(STORE_TIMEOUT)).await,
        }
    }

    /// The same, with what is needed to give it back.
    ///
    /// # Errors
    /// [`RequestError`], when nothing was charged.
    pub async fn acquire(
        &self,
        request: &Request<'_>,
        now: Nanos,
    ) -> Result<(Answer, Option<RuleGrant>), RequestError> {
        match self {
            Self::Memory(engine) => {
                let (answer, grant) = engine.acquire(request, now)?;
                Ok((answer, grant.map(RuleGrant::Memory)))
            }
            Self::Durable(engine) => {
                let deadline = tokio::time::sleep(STORE_TIMEOUT);
                let (answer, grant) = engine.acquire(request, now, deadline).await?;
                Ok((answer, grant.map(RuleGrant::Durable)))
            }
        }
    }

    /// What `check` would answer, without charging.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn peek(&self, request: &Request<'_>, now: Nanos) -> Result<Answer, RequestError> {
        match self {
            Self::Memory(engine) => engine.peek(request, now),
            Self::Durable(engine) => engine.peek(request, now, tokio::time::sleep(STORE_TIMEOUT)).await,
        }
    }

    /// Gives back what was taken, aged, and takes the grant out of its place. One that is still there after an error, or after a
    /// call that nobody waited for, may be tried again.
    ///
    /// # Errors
    /// [`StoreCallError`].
    pub async fn refund(&self, grant: &mut Option<RuleGrant>, now: Nanos) -> Result<(), StoreCallError> {
        if let (Self::Durable(engine), Some(RuleGrant::Durable(taken))) = (self, grant.as_mut()) {
            let refunded = engine.refund(taken, now, tokio::time::sleep(STORE_TIMEOUT)).await;
            if taken.is_spent() {
                *grant = None;
            }
            return refunded;
        }
        // A grant of another engine gives nothing back.
        if let (Self::Memory(engine), Some(RuleGrant::Memory(taken))) = (self, grant.take()) {
            engine.refund(taken, now);
        }
        Ok(())
    }

    /// Forgets what the descriptors of a request have used; how many counters that were.
    ///
    /// # Errors
    /// [`StoreCallError`].
    pub async fn reset(&self, request: &Request<'_>, now: Nanos) -> Result<usize, StoreCallError> {
        match self {
            Self::Memory(engine) => Ok(engine.reset(request, now)?),
            Self::Durable(engine) => engine.reset(request, now, tokio::time::sleep(STORE_TIMEOUT)).await,
        }
    }

    /// Puts other rules in force.
    ///
    /// # Errors
    /// [`EngineError`], when nothing has changed.
    pub async fn reload(&self, rules: RuleSet, now: Nanos) -> Result<Reloaded, EngineError> {
        match self {
            Self::Memory(engine) => engine.reload(rules, now),
            Self::Durable(engine) => engine.reload(rules, now).await,
        }
    }

    /// The rules that are in force.
    pub fn rules(&self) -> Vec<RuleView> {
        match self {
            Self::Memory(engine) => engine.rules(),
            Self::Durable(engine) => engine.rules(),
        }
    }

    /// The descriptors that were denied most.
    pub fn top(&self, count: usize) -> Vec<TopDenied> {
        match self {
            Self::Memory(engine) => engine.top(count),
            Self::Durable(engine) => engine.top(count),
        }
    }

    /// What was decided over all.
    pub fn totals(&self) -> Totals {
        match self {
            Self::Memory(engine) => engine.totals(),
            Self::Durable(engine) => engine.totals(),
        }
    }

    /// Keys that have used something of their limits. Reads all of them.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        match self {
            Self::Memory(engine) => engine.live_keys(now),
            Self::Durable(engine) => engine.live_keys(now),
        }
    }

    /// How the file does; `None` when the counters are in memory.
    pub fn health(&self, now: Nanos) -> Option<StoreHealth> {
        match self {
            Self::Memory(_) => None,
            Self::Durable(engine) => Some(engine.health(now)),
        }
    }

    /// Looks after the file for ever.
    pub(crate) async fn tend(&self, clock: &dyn Clock) -> Infallible {
        let Self::Durable(engine) = self else { return std::future::pending().await };
        let mut was_degraded = false;
        loop {
            tokio::time::sleep(TEND_INTERVAL).await;
            let deadlines = TendDeadlines {
                probe: tokio::time::sleep(STORE_TIMEOUT),
                all: tokio::time::sleep(TEND_TIMEOUT),
            };
            engine.tend(|| clock.now(), deadlines).await;
            let health = engine.health(clock.now());
            if health.is_degraded != was_degraded {
                was_degraded = health.is_degraded;
                if was_degraded {
                    let failure = engine.store().failure();
                    tracing::error!(
                        ?failure,
                        "the counters cannot be reached: each rule does what it says for that"
                    );
                } else {
                    tracing::info!("the counters are reached again");
                }
            }
        }
    }

    /// Gives back what was written ahead, and closes the file.
    pub(crate) async fn close(&self, now: Nanos) {
        if let Self::Durable(engine) = self
            && let Err(error) = engine.store().close(now).await
        {
            tracing::warn!(%error, "the counters were not closed in order: nothing is lost, some cells are");
        }
    }
}
