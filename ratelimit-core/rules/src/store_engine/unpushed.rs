//! What was consumed locally and the store does not know yet.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Bound;
use std::sync::Arc;

use ratelimit_core::ports::PolicyId;
use ratelimit_core::{Decision, Keep, KeyParts, Limit, Nanos};

use crate::answer::RuleRef;

/// Keys whose local consumption is kept. A key beyond is denied by rules with a local share.
pub const UNPUSHED_KEYS_MAX: usize = 65_536;
/// Bytes of those keys.
pub const UNPUSHED_BYTES_MAX: usize = 16 << 20;
/// Keys that are looked at when there is no room for another one.
const SWEPT_WHEN_FULL: usize = 64;

#[derive(Default)]
pub(super) struct Unpushed {
    keys: BTreeMap<(PolicyId, KeyParts), Owed>,
    bytes: usize,
    refused: u64,
    /// How far the sweep has come.
    swept_to: Option<(PolicyId, KeyParts)>,
}

/// What the store took of a key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub cells: u64,
    /// There was no whole cell left after that.
    pub took_all: bool,
}

/// Keys that are told at a time are in as many groups; one of each group is.
const TELLERS: usize = 256;

/// Whoever tells the store of a key holds the lock of the key's group: nobody tells it twice.
pub(super) struct Tellers(Box<[futures::lock::Mutex<()>]>);

impl Default for Tellers {
    fn default() -> Self {
        Self((0..TELLERS).map(|_| futures::lock::Mutex::default()).collect())
    }
}

impl Tellers {
    pub(super) fn of(&self, policy: PolicyId, key: &KeyParts) -> Option<&futures::lock::Mutex<()>> {
        // Who makes keys meet makes them wait for each other, and nothing else.
        let mut hasher = DefaultHasher::new();
        (policy, key.as_bytes()).hash(&mut hasher);
        let groups = self.0.len().max(1) as u64;
        self.0.get(usize::try_from(hasher.finish() % groups).unwrap_or(0))
    }
}

/// Two states of one key under the whole limit of its rule: the one that the store knew, and the one since.
struct Owed {
    told: Arc<RuleRef>,
    known: u64,
    used: u64,
}

impl Unpushed {
    /// Whether the key is kept, or can be. When there is no room some keys are looked at, and those of which nothing is to be
    /// told any more make some.
    pub(super) fn has_room(&mut self, policy: PolicyId, key: &KeyParts, now: Nanos) -> bool {
        if self.keys.contains_key(&(policy, key.clone())) || self.fits(key) {
            return true;
        }
        self.sweep(now);
        let has_room = self.fits(key);
        if !has_room {
            self.refused = self.refused.saturating_add(1);
        }
        has_room
    }

    fn fits(&self, key: &KeyParts) -> bool {
        self.keys.len() < UNPUSHED_KEYS_MAX
            && self.bytes.saturating_add(key.as_bytes().len()) <= UNPUSHED_BYTES_MAX
    }

    /// Looks at the next keys, and forgets those that the store need not be told of.
    fn sweep(&mut self, now: Nanos) {
        let behind = self.swept_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut settled = Vec::new();
        for (key, owed) in self.keys.range((behind, Bound::Unbounded)).take(SWEPT_WHEN_FULL) {
            // Behind the last it begins anew.
            self.swept_to = Some(key.clone());
            if owed.cells(now) == 0 {
                settled.push(key.clone());
            }
        }
        for (policy, key) in &settled {
            self.forget(*policy, key);
        }
    }

    /// `cost` cells were taken of a key of which `before` was said a moment earlier.
    pub(super) fn took(
        &mut self,
        (policy, key): (PolicyId, &KeyParts),
        told: &Arc<RuleRef>,
        before: &Decision,
        (cost, now): (u64, Nanos),
    ) {
        let Some(limit) = told.limit.stored() else { return };
        let owed = self.keys.entry((policy, key.clone())).or_insert_with(|| {
            self.bytes = self.bytes.saturating_add(key.as_bytes().len());
            let known = limit.observed(before, now);
            Owed { told: told.clone(), known, used: known }
        });
        // Both are of the rules in force: a reload carries over what is owed.
        owed.succeeded_by(told, now);
        owed.used = limit.debited(owed.used, cost, now);
    }

    /// The keys of which the store is to be told.
    pub(super) fn keys(&self) -> Vec<(PolicyId, KeyParts)> {
        self.keys.keys().cloned().collect()
    }

    /// Cells that the store is to be told now of a key; `None` when it knows all.
    pub(super) fn owed(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Option<u64> {
        // Most of the time there is nothing: then nothing is copied.
        let owed = if self.keys.is_empty() { None } else { self.keys.get(&(policy, key.clone())) };
        owed.map(|owed| owed.cells(now))
    }

    /// The store was told. What a bucket could not take yet stays owed, until it can or has refilled; a window that is used up
    /// denies until its end anyway.
    pub(super) fn told(&mut self, policy: PolicyId, key: &KeyParts, told: Told, now: Nanos) {
        let Some(owed) = self.keys.get_mut(&(policy, key.clone())) else { return };
        let limit = &owed.told.limit;
        if let Some(limit) = limit.stored() {
            owed.known = limit.debited(owed.known, told.cells, now);
        }
        let is_over = told.took_all && !matches!(limit, Limit::Gcra(_));
        if is_over || owed.cells(now) == 0 {
            self.forget(policy, key);
        }
    }

    pub(super) fn forget(&mut self, policy: PolicyId, key: &KeyParts) {
        if self.keys.remove(&(policy, key.clone())).is_some() {
            self.bytes = self.bytes.saturating_sub(key.as_bytes().len());
        }
    }

    /// Other rules are in force: what is owed of those that stay is carried over to their limits, as the store carries over
    /// what it knows, and the rest is forgotten.
    pub(super) fn succeeded_by(&mut self, rules: &BTreeMap<PolicyId, Arc<RuleRef>>, now: Nanos) {
        self.keys.retain(|(policy, _), owed| {
            rules.get(policy).is_some_and(|told| {
                owed.succeeded_by(told, now);
                true
            })
        });
        self.bytes = self.keys.keys().map(|(_, key)| key.as_bytes().len()).sum();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

impl Owed {
    /// Both states under the limit that the rule has now.
    fn succeeded_by(&mut self, told: &Arc<RuleRef>, now: Nanos) {
        if let (Some(old), Some(new)) = (self.told.limit.stored(), told.limit.stored())
            && self.told.limit != told.limit
        {
            self.known = new.carried_from(old, self.known, Keep::Cells, now);
            self.used = new.carried_from(old, self.used, Keep::Cells, now);
        }
        self.told = told.clone();
    }

    /// The fewest cells after which the store knows at least what was used: what has refilled since is not told. Parts of a cell
    /// count as one.
    fn cells(&self, now: Nanos) -> u64 {
        let Some(limit) = self.told.limit.stored() else { return 0 };
        if limit.is_dead(self.used, now) {
            return 0;
        }
        // Both are rounded up, so the difference is at most one off.
        let difference = limit.used(self.used, now).saturating_sub(limit.used(self.known, now));
        let is_enough = |cells: &u64| {
            let told = limit.debited(self.known, *cells, now);
            limit.merged(told, self.used) == told
        };
        let size = self.told.limit.size();
        (difference.saturating_sub(1)..=difference)
            .find(is_enough)
            .unwrap_or(difference.saturating_add(1))
            .min(size)
    }
}
