//! The policies in force and their counters.

use std::collections::BTreeSet;

use ratelimit_core::ports::{PolicyId, RateStoreError};
use ratelimit_core::{Carried, Decision, Nanos};

use super::counters::Counters;
use super::file::Change;
use super::layout::{self, RowKey, Tag};
use super::moving::nobodys;
use super::policies::{Plan, Policies};
use super::request::{Decided, Part, Purpose, Request};
use super::rows::Row;

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

    /// What is left of a counter that is known.
    pub(super) fn last_known(&self, policy: PolicyId, tag: Tag, now: Nanos) -> Option<Decision> {
        let kept = self.policies.get(usize::try_from(policy.0).ok()?)?;
        let row = self.counters.rows().get(RowKey::new(kept.number, tag))?;
        Some(kept.limit.stored()?.decide(row.memory, 0, now).decision)
    }

    /// What is to be written, and its number.
    pub(super) fn take_gathered(&mut self, now: Nanos) -> (u64, Change) {
        self.counters.take_gathered(&self.policies, now)
    }

    /// What makes the file say that other policies are in force, whose rows are made. Nobody asks from here until
    /// [`exchange`](Self::exchange).
    pub(super) fn exchanging(&mut self, plan: &Plan) -> Change {
        let mut change = self.counters.exchanging();
        let known: BTreeSet<u32> = self.policies.numbers().collect();
        let new = plan.policies.encoded().into_iter().filter(|(number, _)| !known.contains(number));
        change.policies.extend(new);
        let moved = plan.moves.iter().map(|(number, to)| (*number, &to.old));
        for (number, limit) in moved.chain(plan.gone.iter().map(|(number, limit)| (*number, limit))) {
            // Those that have rows go with the last of them.
            let has_rows = self.counters.rows().len_of(number) > 0;
            let encoded = has_rows.then(|| layout::encode_policy(&nobodys(number), limit)).flatten();
            change.policies.insert(number, encoded);
        }
        change
    }

    /// Other policies are in force. What became of the counters.
    pub(super) fn exchange(&mut self, plan: Plan) -> Vec<Carried> {
        self.counters.exchange(&plan.policies, plan.gone.into_keys());
        self.policies = plan.policies;
        plan.carried
    }

    /// Of `count` rows behind `from`: those that have used something, and the last that was looked at.
    pub(super) fn live(
        &self,
        from: Option<RowKey>,
        count: usize,
        now: Nanos,
    ) -> (Vec<(RowKey, Row)>, Option<RowKey>) {
        self.counters.live(&self.policies, from, count, now)
    }
}
