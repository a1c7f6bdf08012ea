//! The store in memory: the contract of [`RateStore`] made executable, and what a server uses that needs no other.

use crate::key::HashSecret;
use crate::limit_set::{Hit, LimitId, LimitSet, SetGrant, Verdict};
use crate::ports::{Charge, Policy, RateStore, RateStoreError};
use crate::table::TableSize;
use crate::ticks::Nanos;

/// Counters in the memory of this process, in tables of a fixed size. It keeps every kind of limit.
#[derive(Debug)]
pub struct MemoryStore {
    set: LimitSet,
    ids: Vec<LimitId>,
}

impl MemoryStore {
    /// A store of these policies, each with a table of that size. The secret has to be random.
    pub fn new(policies: impl IntoIterator<Item = Policy>, size: TableSize, secret: HashSecret) -> Self {
        let mut set = LimitSet::new(secret);
        let ids =
            policies.into_iter().map(|policy| set.add(policy.limit, size, policy.enforcement)).collect();
        Self { set, ids }
    }

    /// The limits behind it, for gauges.
    pub fn limits(&self) -> &LimitSet {
        &self.set
    }

    fn hits(&self, charges: &[Charge<'_>]) -> Result<Vec<Hit>, RateStoreError> {
        let hit = |charge: &Charge<'_>| {
            let id = usize::try_from(charge.policy.0).ok().and_then(|index| self.ids.get(index));
            let unknown = RateStoreError::UnknownPolicy { policy: charge.policy, policies: self.ids.len() };
            Ok(self.set.hit(*id.ok_or(unknown)?, charge.key, charge.cost))
        };
        charges.iter().map(hit).collect()
    }
}

impl RateStore for MemoryStore {
    type Grant = SetGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<SetGrant>), RateStoreError> {
        Ok(self.set.acquire(&self.hits(charges)?, now)?)
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        Ok(self.set.peek(&self.hits(charges)?, now)?)
    }

    async fn refund(&self, grant: SetGrant, now: Nanos) -> Result<(), RateStoreError> {
        self.set.refund(grant, now);
        Ok(())
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.set.reset(&self.hits(charges)?, now);
        Ok(())
    }
}
