//! Expired entities leave the state through the log, as transactions of `system:gc`; so do blocks that the
//! retention of their vault does not cover, as commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::{Command, Outcome};
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultId;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, OPERATIONS_MAX, Operation, Transaction};
use tokio::time::MissedTickBehavior;

use crate::applied_state::AppliedLedger;
use crate::batcher::{Write, WriteQueue, WriteTarget};
use crate::clock::Clock;
use crate::counters::{CounterCells, add};
use crate::raft::Consensus;
use crate::randomness::Randomness;

/// Looks for expired entities while this node leads.
pub(crate) struct GarbageCollector {
    pub consensus: Consensus,
    pub ledger: Arc<AppliedLedger>,
    pub queue: WriteQueue,
    pub clock: Arc<dyn Clock>,
    pub interval: Duration,
    pub randomness: Randomness,
    pub counters: Arc<CounterCells>,
}

impl GarbageCollector {
    /// Runs for ever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.consensus.status().is_leader {
                self.collect().await;
                self.compact().await;
            }
        }
    }

    /// Expires all that has expired by now, as many transactions as it takes; returns how many entities that were.
    pub async fn collect(&self) -> u64 {
        let mut total = 0;
        loop {
            let expired = self.expired();
            let found: usize = expired.values().map(Vec::len).sum();
            let mut done = 0;
            for (vault, keys) in expired {
                done += self.expire(vault, keys).await;
            }
            total += done as u64;
            // Nothing done: the queue is full or the node stops. The next tick tries again.
            if found < OPERATIONS_MAX || done == 0 {
                return total;
            }
        }
    }

    /// Drops all blocks that retention does not cover, as many commands as it takes.
    async fn compact(&self) {
        while self.ledger.read().is_ok_and(|state| state.compaction_backlog() > 0) {
            match self.consensus.propose(Command::Compact).await {
                Ok(Some(Outcome::Compacted(progress))) if progress.dropped > 0 => {
                    add(&self.counters.blocks_compacted, progress.dropped);
                }
                // The node stops, or another command was quicker. The next tick tries again.
                _ => return,
            }
        }
    }

    /// By vault, at most as many keys as one transaction may have.
    fn expired(&self) -> BTreeMap<VaultId, Vec<EntityKey>> {
        let mut by_vault: BTreeMap<VaultId, Vec<EntityKey>> = BTreeMap::new();
        let Ok(state) = self.ledger.read() else { return by_vault };
        match state.expired(self.clock.now_ms(), OPERATIONS_MAX) {
            Ok(expired) => {
                for (vault, key) in expired {
                    by_vault.entry(vault).or_default().push(key);
                }
            }
            Err(error) => tracing::warn!(%error, "expired entities cannot be listed"),
        }
        by_vault
    }

    /// Returns how many entities were in the transaction, 0 when it was not carried out.
    async fn expire(&self, vault: VaultId, keys: Vec<EntityKey>) -> usize {
        let count = keys.len();
        let expire = |key| Operation { action: Action::ExpireEntity { key }, condition: None };
        let operations = keys.into_iter().map(expire).collect();
        let Ok(random) = self.randomness.bytes() else { return 0 };
        // The clock may have gone back behind the log's time, which idempotency keys are measured by.
        let log_time_ms = self.ledger.read().map_or(0, |state| state.log_time_ms());
        let key = IdempotencyKey::from_parts(self.clock.now_ms().max(log_time_ms), random);
        let transaction = match Transaction::new(key, operations) {
            Ok(transaction) => transaction,
            Err(error) => {
                tracing::warn!(%error, "an expiry transaction is malformed");
                return 0;
            }
        };
        let write =
            Write { target: WriteTarget::Known(vault), actor: Actor::garbage_collector(), transaction };
        match self.queue.write(write).await {
            Ok(_) => {
                add(&self.counters.entities_expired, count as u64);
                count
            }
            Err(error) => {
                tracing::debug!(%error, %vault, "expired entities stay for now");
                0
            }
        }
    }
}
