//! What was consumed locally and the store does not know yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use ratelimit_core::ports::PolicyId;
use ratelimit_core::{Decision, KeyParts, Limit, Nanos};

use crate::answer::RuleRef;

/// Keys whose local consumption is kept. A key beyond is denied by rules with a local share.
pub const UNPUSHED_KEYS_MAX: usize = 65_536;
/// Bytes of those keys.
pub const UNPUSHED_BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Unpushed {
    keys: BTreeMap<(PolicyId, KeyParts), Owed>,
    bytes: usize,
    refused: u64,
}

/// Two states of one key under the whole limit of its rule: the one that the store knew, and the one since.
struct Owed {
    told: Arc<RuleRef>,
    known: u64,
    used: u64,
}

/// What the store is to be told of a key.
pub(super) struct Push {
    pub policy: PolicyId,
    pub key: KeyParts,
    pub cells: u64,
    used: u64,
}

impl Unpushed {
    /// Whether the key is kept, or can be.
    pub(super) fn has_room(&mut self, policy: PolicyId, key: &KeyParts) -> bool {
        let has_room = self.keys.contains_key(&(policy, key.clone()))
            || (self.keys.len() < UNPUSHED_KEYS_MAX
                && self.bytes.saturating_add(key.as_bytes().len()) <= UNPUSHED_BYTES_MAX);
        if !has_room {
            self.refused = self.refused.saturating_add(1);
        }
        has_room
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
        // A rule that has changed since counts on from what it finds.
        if owed.told.limit != told.limit {
            let known = limit.observed(before, now);
            *owed = Owed { told: told.clone(), known, used: known };
        }
        owed.used = limit.debited(owed.used, cost, now);
    }

    /// What the store is to be told now.
    pub(super) fn pushes(&self, now: Nanos) -> Vec<Push> {
        let push = |((policy, key), owed): (&(PolicyId, KeyParts), &Owed)| Push {
            policy: *policy,
            key: key.clone(),
            cells: owed.cells(now),
            used: owed.used,
        };
        self.keys.iter().map(push).collect()
    }

    /// The store was told.
    pub(super) fn pushed(&mut self, push: Push) {
        let place = (push.policy, push.key);
        let Some(owed) = self.keys.get_mut(&place) else { return };
        if owed.used == push.used {
            self.keys.remove(&place);
            self.bytes = self.bytes.saturating_sub(place.1.as_bytes().len());
        } else {
            owed.known = push.used;
        }
    }

    pub(super) fn forget(&mut self, policy: PolicyId, key: &KeyParts) {
        if self.keys.remove(&(policy, key.clone())).is_some() {
            self.bytes = self.bytes.saturating_sub(key.as_bytes().len());
        }
    }

    /// Keeps keys of these policies only.
    pub(super) fn retain(&mut self, stays: impl Fn(PolicyId) -> bool) {
        self.keys.retain(|(policy, _), _| stays(*policy));
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
    /// Cells by which the key has less left than the store knows: what has refilled since is not told. Parts of a cell
    /// count as one.
    fn cells(&self, now: Nanos) -> u64 {
        let Some(limit) = self.told.limit.stored() else { return 0 };
        let known = limit.used(self.known, now);
        let used = limit.used(self.used, now);
        let part = u64::from(known > 0 && used > known && matches!(self.told.limit, Limit::Gcra(_)));
        used.saturating_sub(known).saturating_add(part).min(self.told.limit.size())
    }
}
