//! How much of the log is kept for members that are behind.
//!
//! A ledger that runs alone keeps what is not durable in its state store, and no more. With other members the log keeps
//! its newest part, so that a short absence is served from it. Whoever needs more gets a snapshot; while that is on
//! its way, and until the member has caught up from there, the entries behind it are held, up to a bound: a member
//! that is slow or gone never keeps the log from being purged for ever.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::NodeId;

/// Entries that are kept for members that are away for a short time; their bytes are an option of the cluster.
pub(crate) const LOG_KEPT_ENTRIES_MAX: u64 = 100_000;
/// Entries that are held behind a snapshot that a member is being sent.
pub(crate) const LOG_HELD_ENTRIES_MAX: u64 = 2_000_000;
/// Their bytes (1 GiB), whichever is reached first.
pub(crate) const LOG_HELD_BYTES_MAX: u64 = 1 << 30;

/// So much of the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogAmount {
    pub entries: u64,
    pub bytes: u64,
}

/// The bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetentionBounds {
    pub kept: LogAmount,
    pub held: LogAmount,
}

impl RetentionBounds {
    /// Of a ledger that runs alone: nobody needs the log.
    pub const ALONE: Self =
        Self { kept: LogAmount { entries: 0, bytes: 0 }, held: LogAmount { entries: 0, bytes: 0 } };

    /// Of a member.
    pub fn of_member(keep_bytes: u64) -> Self {
        Self {
            kept: LogAmount { entries: LOG_KEPT_ENTRIES_MAX, bytes: keep_bytes },
            held: LogAmount { entries: LOG_HELD_ENTRIES_MAX, bytes: keep_bytes.max(LOG_HELD_BYTES_MAX) },
        }
    }
}

/// What a node knows when it decides.
#[derive(Debug, Clone)]
pub(crate) struct RetentionView {
    /// Index of the last entry that is durable in the state store.
    pub durable: u64,
    /// The last entry that each member is known to have, while this node leads.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// The first index of the part of the log that is within the bounds.
    pub kept_from: u64,
    pub held_from: u64,
}

/// What is held, and how far the log is given up in any case.
#[derive(Debug)]
pub(crate) struct LogRetention {
    pub bounds: RetentionBounds,
    /// Last entry of the snapshot that a member is sent or was sent.
    held: Mutex<BTreeMap<NodeId, u64>>,
    /// Index after the last entry that no member gets any more.
    cut_next: AtomicU64,
    /// Nothing behind this entry is purged while this node recovers from a peer.
    held_here: Mutex<Option<u64>>,
}

impl LogRetention {
    pub fn new(bounds: RetentionBounds) -> Self {
        Self { bounds, held: Mutex::default(), cut_next: AtomicU64::new(0), held_here: Mutex::default() }
    }

    /// A member is sent a snapshot that ends with an entry: what comes after it is held for that member.
    pub fn hold(&self, member: NodeId, last: u64) {
        self.held().insert(member, last);
    }

    /// What comes after an entry is needed by this node itself, until [`release_here`](Self::release_here).
    pub fn hold_here(&self, last: u64) {
        *self.held_here.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    pub fn release_here(&self) {
        *self.held_here.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether anything is held for a member.
    pub fn is_held(&self) -> bool {
        !self.held().is_empty()
    }

    /// Whether a member that needs this entry gets a snapshot instead.
    pub fn is_cut_off(&self, first: u64) -> bool {
        first < self.cut_next.load(Ordering::SeqCst)
    }

    /// The last entry to purge; `None` = none.
    pub fn purge_target(&self, view: &RetentionView) -> Option<u64> {
        let kept = view.kept_from.checked_sub(1).map(|last| last.min(view.durable));
        let hard = view.held_from.checked_sub(1).map(|last| last.min(view.durable));
        self.cut_next.store(hard.map_or(0, |hard| hard + 1), Ordering::SeqCst);
        let mut held = self.held();
        let needed = |member: &NodeId, last: u64| view.matched.get(member).copied().flatten().max(Some(last));
        // Whoever is gone, has caught up or is too far behind needs no part of the log of its own.
        held.retain(|member, last| {
            let needed = needed(member, *last);
            view.matched.contains_key(member) && needed < kept && needed >= hard
        });
        let here = *self.held_here.lock().unwrap_or_else(PoisonError::into_inner);
        let least = held.iter().map(|(member, last)| needed(member, *last)).chain(here.map(Some)).min();
        match least {
            Some(least) => kept.min(least),
            None => kept,
        }
    }

    /// Every change of the map is whole.
    fn held(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(
        durable: u64,
        kept_from: u64,
        held_from: u64,
        matched: &[(NodeId, Option<u64>)],
    ) -> RetentionView {
        RetentionView { durable, matched: matched.iter().copied().collect(), kept_from, held_from }
    }

    #[test]
    fn a_ledger_that_runs_alone_keeps_nothing_that_is_durable() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        assert_eq!(retention.purge_target(&view(500, 510, 510, &[])), Some(500));
    }

    #[test]
    fn members_that_are_behind_do_not_hold_the_log_and_a_sent_snapshot_does() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        let dead = [(2, Some(10)), (3, None)];
        assert_eq!(retention.purge_target(&view(500, 400, 0, &dead)), Some(399));
        retention.hold(2, 350);
        assert_eq!(retention.purge_target(&view(500, 400, 0, &dead)), Some(350));
        assert_eq!(retention.purge_target(&view(600, 500, 0, &[(2, Some(380))])), Some(380));
        // It has caught up.
        assert_eq!(retention.purge_target(&view(600, 500, 0, &[(2, Some(520))])), Some(499));
        assert_eq!(retention.purge_target(&view(600, 500, 0, &[(2, Some(390))])), Some(499));
    }

    #[test]
    fn what_is_held_is_bounded_and_who_needs_more_is_cut_off() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        retention.hold(2, 350);
        assert_eq!(retention.purge_target(&view(9_000, 8_900, 350, &[(2, Some(10))])), Some(350));
        assert!(retention.is_cut_off(349) && !retention.is_cut_off(350));
        assert_eq!(retention.purge_target(&view(9_100, 9_000, 450, &[(2, Some(10))])), Some(8_999));
        assert!(retention.is_cut_off(351));
    }

    #[test]
    fn a_member_that_left_and_a_leader_that_follows_hold_nothing() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        retention.hold(2, 350);
        assert_eq!(retention.purge_target(&view(500, 400, 0, &[(3, Some(10))])), Some(399));
        retention.hold(2, 350);
        assert_eq!(retention.purge_target(&view(500, 400, 0, &[])), Some(399));
    }

    #[test]
    fn a_node_that_recovers_keeps_what_it_has_to_apply_again() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        retention.hold_here(300);
        assert_eq!(retention.purge_target(&view(500, 400, 0, &[])), Some(300));
        assert_eq!(retention.purge_target(&view(500, 400, 450, &[(2, Some(10))])), Some(300));
        retention.release_here();
        assert_eq!(retention.purge_target(&view(500, 400, 0, &[])), Some(399));
    }

    #[test]
    fn what_is_not_durable_is_never_purged() {
        let retention = LogRetention::new(RetentionBounds::of_member(1 << 20));
        assert_eq!(retention.purge_target(&view(100, 400, 200, &[(2, Some(10))])), Some(100));
        assert_eq!(retention.purge_target(&view(100, 0, 0, &[(2, Some(10))])), None);
    }
}
