//! Counters of decisions.

use std::sync::atomic::{AtomicU64, Ordering};

use ratelimit_core::{Decision, Outcome};

/// What a rule has decided since it came to its place, whatever other rules said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Requests that it would let go.
    pub allowed: u64,
    /// Requests that came too early. In shadow they went on.
    pub denied: u64,
    /// Requests that cost more than it ever holds.
    pub never_fits: u64,
    /// Of all of them, those that were decided without the store that has its counters.
    pub degraded: u64,
}

/// What the engine has seen beside its rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were allowed.
    pub allowed: u64,
    /// Requests that were denied.
    pub denied: u64,
    /// Requests that were refused as bad; nothing was charged.
    pub refused: u64,
    /// Descriptors that met no rule.
    pub unmatched: u64,
    /// Descriptors whose negative hits were ignored.
    pub negative_hits_ignored: u64,
    /// Decisions by limits that requests brought.
    pub overrides: Tallies,
    /// Charges for which a rule's table had no slot: they were counted in its sketch, which may deny early, or denied where there
    /// is none, as for permits.
    pub overflowed: u64,
    /// Denials that are missing among the keys that are denied most: at that instant another one was counted, or they were
    /// read.
    pub top_skipped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    allowed: AtomicU64,
    denied: AtomicU64,
    never_fits: AtomicU64,
    pub degraded: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, decision: &Decision) {
        let counter = match decision.outcome() {
            Outcome::Allowed => &self.allowed,
            Outcome::Denied => &self.denied,
            Outcome::NeverFits => &self.never_fits,
        };
        one(counter);
    }

    pub(crate) fn read(&self) -> Tallies {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tallies {
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            never_fits: read(&self.never_fits),
            degraded: read(&self.degraded),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct TotalTally {
    pub allowed: AtomicU64,
    pub denied: AtomicU64,
    pub refused: AtomicU64,
    pub unmatched: AtomicU64,
    pub negative_hits_ignored: AtomicU64,
    pub overrides: Tally,
}

impl TotalTally {
    pub(crate) fn read(&self, overflowed: u64) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            refused: read(&self.refused),
            unmatched: read(&self.unmatched),
            negative_hits_ignored: read(&self.negative_hits_ignored),
            overrides: self.overrides.read(),
            overflowed,
            top_skipped: 0,
        }
    }
}

pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
