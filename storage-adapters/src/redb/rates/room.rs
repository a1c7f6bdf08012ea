//! How many keys there may be, and of which policies.
//!
//! Half of the room belongs to the policies in equal parts, the other half to whoever comes first. So a flood of keys under one
//! policy leaves each other one its part; and a policy that is alone has all.

use super::layout::RowKey;
use super::policies::Policies;
use super::rows::Rows;

#[derive(Debug)]
pub(super) struct Room {
    keys_max: usize,
    /// What each policy that counts has for itself.
    own: usize,
    /// What all have together.
    common: usize,
    /// Keys that are there, of all policies, beyond what is their own.
    used_in_common: usize,
}

/// Keys that a request is about to make, of one policy each time.
#[derive(Debug, Default)]
pub(super) struct Planned(Vec<u32>);

impl Room {
    pub(super) fn new(keys_max: usize, policies: &Policies, rows: &Rows) -> Self {
        let count = policies.counting().count().max(1);
        let own = keys_max / 2 / count;
        let beyond = policies.counting().map(|number| rows.len_of(number).saturating_sub(own));
        let used_in_common = beyond.fold(0, usize::saturating_add);
        Self { keys_max, own, common: keys_max.saturating_sub(own.saturating_mul(count)), used_in_common }
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Whether so many new keys may find none.
    pub(super) fn is_short(&self, rows: &Rows, more: usize) -> bool {
        self.keys_max.saturating_sub(rows.len()) < more
            || self.common.saturating_sub(self.used_in_common) < more
    }

    /// Whether there is room for another key of a policy, beside those that are planned already.
    pub(super) fn has_place(&self, rows: &Rows, policy: u32, planned: &Planned) -> bool {
        let of = |policy: u32| planned.0.iter().filter(|other| **other == policy).count();
        let would_have = |policy: u32| rows.len_of(policy).saturating_add(of(policy));
        if rows.len().saturating_add(planned.0.len()) >= self.keys_max {
            return false;
        }
        // Those planned ones that have no place of their own; each policy is looked at as often as it is planned.
        let in_common = planned.0.iter().enumerate().filter(|(index, other)| {
            let before = planned.0.iter().take(*index).filter(|same| same == other).count();
            rows.len_of(**other).saturating_add(before) >= self.own
        });
        would_have(policy) < self.own || self.used_in_common.saturating_add(in_common.count()) < self.common
    }

    /// A key has come. Called when it is there.
    pub(super) fn came(&mut self, rows: &Rows, key: RowKey) {
        if rows.len_of(key.policy) > self.own {
            self.used_in_common = self.used_in_common.saturating_add(1);
        }
    }

    /// A key has gone. Called when it is gone.
    pub(super) fn went(&mut self, rows: &Rows, key: RowKey) {
        if rows.len_of(key.policy) >= self.own {
            self.used_in_common = self.used_in_common.saturating_sub(1);
        }
    }
}

impl Planned {
    pub(super) fn add(&mut self, policy: u32) {
        self.0.push(policy);
    }
}
