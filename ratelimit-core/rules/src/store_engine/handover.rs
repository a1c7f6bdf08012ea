//! The way back: what was consumed locally is told the store before it is trusted.

use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use ratelimit_core::ports::{Charge, PolicyId, RateStoreError};
use ratelimit_core::{KeyParts, Nanos};

use super::health::Failed;
use super::there::{Asked, in_time};
use super::unpushed::Told;
use super::{RuleStore, StoreEngine};

/// How often [`StoreEngine::tend`] should be called: so a store that is not trusted is probed, which is a write, as often.
pub const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Keys that are told the store at a time.
const PUSHES_AT_ONCE: usize = 64;
/// What is consumed while the store is told, it is told in the next round; after the last one each key is told when it is
/// asked for.
const PUSH_ROUNDS: u32 = 4;
/// How often a push is tried that finds less left than was consumed: others consume at the same time.
const PUSH_TRIES: u32 = 4;

/// How long [`StoreEngine::tend`] waits; each is ready when its time is up.
#[derive(Debug)]
pub struct TendDeadlines<P, A> {
    /// For a probe, from the beginning: as long as a request waits. A store that is too slow for requests is no better for
    /// being fast enough for probes.
    pub probe: P,
    /// For everything: the attempt to revive it, and what it is told.
    pub all: A,
}

impl<S: RuleStore> StoreEngine<S> {
    /// Looks after the store: probes one that is not trusted, tells it what was consumed without it, and lets it decide again.
    /// Does nothing while all is well. To be called every [`TEND_INTERVAL`], one call at a time; what is not done by its
    /// deadline counts as a failure and is tried again with the next call.
    pub async fn tend<P, A>(&self, now: impl Fn() -> Nanos, deadlines: TendDeadlines<P, A>)
    where
        P: Future<Output = ()>,
        A: Future<Output = ()>,
    {
        if !self.health.is_degraded() && self.unpushed().is_empty() {
            return;
        }
        let TendDeadlines { probe, all } = deadlines;
        match in_time(self.hand_over(&now, probe), all).await {
            Ok(None) => {}
            Ok(Some(why)) | Err((why, _)) => self.health.probe_failed(why),
        }
    }

    /// Why the store did not stand the probe, if it did not.
    async fn hand_over(
        &self,
        now: &impl Fn() -> Nanos,
        probe: impl Future<Output = ()>,
    ) -> Result<Option<Failed>, RateStoreError> {
        if !self.health.is_degraded() {
            self.push(now).await?;
            return Ok(None);
        }
        self.store.revive(now()).await?;
        if let Err((why, _)) = in_time(self.store.probe(now()), probe).await {
            return Ok(Some(why));
        }
        if !self.health.probed() {
            return Ok(None);
        }
        for _ in 0..PUSH_ROUNDS {
            if self.push(now).await? == 0 {
                break;
            }
        }
        {
            // Nobody decides with a share meanwhile.
            let _unpushed = self.unpushed();
            self.health.trust(now());
        }
        self.push(now).await?;
        Ok(None)
    }

    /// Tells the store what it does not know yet. How many cells that were.
    async fn push(&self, now: &impl Fn() -> Nanos) -> Result<u64, RateStoreError> {
        let keys = self.unpushed().keys();
        let tell =
            |(policy, key): (PolicyId, KeyParts)| async move { self.push_key(policy, &key, now()).await };
        let told = futures::stream::iter(keys).map(tell).buffer_unordered(PUSHES_AT_ONCE);
        told.try_fold(0_u64, |told, more| std::future::ready(Ok(told.saturating_add(more)))).await
    }

    /// Tells the store of the keys of a request before it decides about them: a call that failed alone admits nothing twice.
    pub(super) async fn push_asked(&self, asked: &Asked, now: Nanos) -> Result<(), RateStoreError> {
        for (policy, key) in asked.followed() {
            self.push_key(policy, key, now).await?;
        }
        Ok(())
    }

    /// Tells the store what it does not know yet of a key. How many cells it took.
    async fn push_key(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Result<u64, RateStoreError> {
        if self.unpushed().owed(policy, key, now).is_none() {
            return Ok(0);
        }
        let _telling = match self.tellers.of(policy, key) {
            Some(teller) => Some(teller.lock().await),
            None => None,
        };
        // Somebody else may have told it meanwhile.
        let Some(cells) = self.unpushed().owed(policy, key, now) else { return Ok(0) };
        let told = self.charge_what_is_left(policy, key, cells, now).await?;
        self.unpushed().told(policy, key, told, now);
        Ok(told.cells)
    }

    /// Takes so many cells, or all that are left.
    async fn charge_what_is_left(
        &self,
        policy: PolicyId,
        key: &KeyParts,
        mut cost: u64,
        now: Nanos,
    ) -> Result<Told, RateStoreError> {
        let mut took_all = false;
        for _ in 0..PUSH_TRIES {
            if cost == 0 {
                return Ok(Told { cells: 0, took_all });
            }
            let (verdict, _) = self.store.check(&[Charge { policy, key, cost }], now).await?;
            match verdict.decisions().first() {
                Some(decision) if !decision.is_allowed() => {
                    cost = cost.min(decision.remaining());
                    took_all = true;
                }
                _ => return Ok(Told { cells: cost, took_all }),
            }
        }
        Ok(Told::default())
    }
}
