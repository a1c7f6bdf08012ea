//! The policies in force and their counters.

use ratelimit_core::Nanos;
use ratelimit_core::ports::RateStoreError;

use super::counters::Counters;
use super::file::Change;
use super::layout::RowKey;
use super::policies::{Policies, Rows};
use super::request::{Decided, Part, Purpose, Request};

#[derive(Debug)]
pub(super) struct Book {
    pub policies: Policies,
    pub counters: Counters,
}

impl Book {
    /// Decides about a request, and charges it when it is admitted.
    pub(super) fn decide(
        &mut self,
        request: &Request,
        purpose: Purpose,
        now: Nanos,
    ) -> Result<Decided, RateStoreError> {
        request.refuse_unknown(self.policies.len())?;
        Ok(self.counters.decide(&self.policies, request, purpose, now))
    }

    /// Gives back what was taken of policies that have kept their limits.
    pub(super) fn refund(&mut self, parts: &[Part], now: Nanos) {
        for part in parts {
            let kept = self.policies.numbered(part.key.policy).filter(|kept| kept.version == part.version);
            if let Some(limit) = kept.and_then(|kept| kept.limit.stored()) {
                self.counters.refund(limit, part, now);
            }
        }
    }

    /// Forgets counters. The commit to wait for, when one of them was known.
    pub(super) fn reset(&mut self, request: &Request) -> Result<Option<u64>, RateStoreError> {
        request.refuse_unknown(self.policies.len())?;
        let mut after = None;
        for asked in &request.asked {
            if let Some(kept) = self.policies.get(asked.policy) {
                after = after.max(self.counters.reset(RowKey::new(kept.number, asked.tag)));
            }
        }
        Ok(after)
    }

    /// What is to be written, and its number.
    pub(super) fn take_gathered(&mut self, now: Nanos) -> (u64, Change) {
        self.counters.take_gathered(&self.policies, now)
    }

    /// Other policies, with rows as the disk has them now.
    pub(super) fn replace(&mut self, policies: Policies, rows: Rows) {
        self.policies = policies;
        self.counters.restore(rows);
    }

    /// Rows that have used something, of `count` behind `from`, and the last of those.
    pub(super) fn count_live(&self, from: Option<RowKey>, count: usize, now: Nanos) -> (u64, Option<RowKey>) {
        self.counters.count_live(&self.policies, from, count, now)
    }
}
