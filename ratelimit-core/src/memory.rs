//! The store in memory: the contract of [`RateStore`] made executable, and what a server uses that needs no other.

use crate::change::Keep;
use crate::heirs::{CannotReplace, Heir};
use crate::key::HashSecret;
use crate::limit_set::{Hit, LimitId, LimitSet, SetGrant, Verdict};
use crate::ports::{Charge, Policy, RateStore, RateStoreError};
use crate::table::{TableError, TableSize};
use crate::ticks::Nanos;

/// Counters in the memory of this process, in tables of a fixed size. It keeps every kind of limit.
#[derive(Debug)]
pub struct MemoryStore {
    set: LimitSet,
    names: Vec<String>,
}

impl MemoryStore {
    /// A store of these policies, each with a table of that size. The secret has to be random.
    ///
    /// # Errors
    ///
    /// [`TableError`] when one of the tables cannot be had.
    pub fn new(
        policies: impl IntoIterator<Item = Policy>,
        size: TableSize,
        secret: HashSecret,
    ) -> Result<Self, TableError> {
        let mut set = LimitSet::new(secret);
        let add = |policy: Policy| {
            set.add(policy.limit, size, policy.enforcement)?;
            Ok(policy.name)
        };
        let names = policies.into_iter().map(add).collect::<Result<_, _>>()?;
        Ok(Self { set, names })
    }

    /// Opens the store with other policies; their order is their new number. A policy takes over the counters of the one of
    /// the same name: as they are when its limit is the same, else with what was left of each. Grants of limits that stay
    /// the same stay good.
    ///
    /// # Errors
    ///
    /// [`CannotReplace`], when nothing has changed: see [`LimitSet::succeed`].
    pub fn reopen(
        &mut self,
        policies: impl IntoIterator<Item = Policy>,
        size: TableSize,
        now: Nanos,
    ) -> Result<(), CannotReplace> {
        self.set.census().tidy(now);
        let policies: Vec<Policy> = policies.into_iter().collect();
        let names = policies.iter().map(|policy| policy.name.clone()).collect();
        let of = |name: &str| self.names.iter().position(|other| other == name).map(LimitId);
        let heir = |policy: Policy| Heir {
            of: of(&policy.name),
            limit: policy.limit,
            size,
            enforcement: policy.enforcement,
            keep: Keep::Cells,
        };
        let heirs = policies.into_iter().map(heir).collect();
        self.set.succeed(heirs, now)?;
        self.names = names;
        Ok(())
    }

    /// The limits behind it, for gauges.
    pub fn limits(&self) -> &LimitSet {
        &self.set
    }

    fn hits(&self, charges: &[Charge<'_>]) -> Result<Vec<Hit>, RateStoreError> {
        let hit = |charge: &Charge<'_>| {
            let id = usize::try_from(charge.policy.0).ok().filter(|index| *index < self.names.len());
            let unknown = RateStoreError::UnknownPolicy { policy: charge.policy, policies: self.names.len() };
            Ok(self.set.hit(LimitId(id.ok_or(unknown)?), charge.key, charge.cost))
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

    async fn refund(&self, grant: &mut Option<SetGrant>, now: Nanos) -> Result<(), RateStoreError> {
        if let Some(grant) = grant.take() {
            self.set.refund(grant, now);
        }
        Ok(())
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.set.reset(&self.hits(charges)?, now);
        Ok(())
    }
}
