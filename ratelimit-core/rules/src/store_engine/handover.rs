//! The way back: what was consumed locally is told the store before it is trusted.

use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use ratelimit_core::ports::{Charge, PolicyId, RateStoreError};
use ratelimit_core::{KeyParts, Nanos};

use super::there::in_time;
use super::unpushed::Push;
use super::{RuleStore, StoreEngine};

/// How often [`StoreEngine::tend`] should be called.
pub const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Keys that are told the store at a time.
const PUSHES_AT_ONCE: usize = 64;
/// What is consumed while the store is told, it is told in the next round; after the last one it is told while it decides
/// already. So a key may be admitted once more what it took locally during that round.
const PUSH_ROUNDS: u32 = 4;
/// How often a push is tried that finds less left than was consumed: others consume at the same time.
const PUSH_TRIES: u32 = 4;

impl<S: RuleStore> StoreEngine<S> {
    /// Looks after the store: probes one that is not trusted, tells it what was consumed without it, and lets it decide again.
    /// Does nothing while all is well. To be called every [`TEND_INTERVAL`], one call at a time; what is not done by the
    /// deadline counts as a failure and is tried again with the next call.
    pub async fn tend(&self, now: impl Fn() -> Nanos, deadline: impl Future<Output = ()>) {
        if !self.health.is_degraded() && self.unpushed().is_empty() {
            return;
        }
        if let Err((why, _)) = in_time(self.hand_over(&now), deadline).await {
            self.health.probe_failed(why);
        }
    }

    async fn hand_over(&self, now: &impl Fn() -> Nanos) -> Result<(), RateStoreError> {
        if !self.health.is_degraded() {
            return self.push(now).await.map(drop);
        }
        self.store.revive(now()).await?;
        let policy = self.read().policies.any();
        if let Some(policy) = policy {
            let key = KeyParts::default();
            self.store.peek(&[Charge { policy, key: &key, cost: 0 }], now()).await?;
        }
        if !self.health.probed() {
            return Ok(());
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
        self.push(now).await.map(drop)
    }

    /// Tells the store what it does not know yet. How many keys that were.
    async fn push(&self, now: &impl Fn() -> Nanos) -> Result<usize, RateStoreError> {
        let pushes = self.unpushed().pushes(now());
        let count = pushes.len();
        let told = futures::stream::iter(pushes).map(|push| self.push_key(push, now()));
        told.buffer_unordered(PUSHES_AT_ONCE).try_collect::<()>().await?;
        Ok(count)
    }

    async fn push_key(&self, push: Push, now: Nanos) -> Result<(), RateStoreError> {
        self.charge_what_is_left(push.policy, &push.key, push.cells, now).await?;
        self.unpushed().pushed(push);
        Ok(())
    }

    /// Takes so many cells, or all that are left.
    async fn charge_what_is_left(
        &self,
        policy: PolicyId,
        key: &KeyParts,
        mut cost: u64,
        now: Nanos,
    ) -> Result<(), RateStoreError> {
        for _ in 0..PUSH_TRIES {
            if cost == 0 {
                return Ok(());
            }
            let (verdict, _) = self.store.check(&[Charge { policy, key, cost }], now).await?;
            match verdict.decisions().first() {
                Some(decision) if !decision.is_allowed() => cost = cost.min(decision.remaining()),
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
