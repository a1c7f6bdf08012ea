//! Limits for stores outside this crate: the same decisions, on a word that the store keeps.

use crate::algorithms::Compact;
use crate::change::{self, Keep};
use crate::decision::{Decision, Outcome};
use crate::limit::Limit;
use crate::share;
use crate::ticks::Nanos;

/// A limit whose state is one word of 63 bits. 0 is the state of a key that was never charged, and a key whose state is
/// [dead](Self::is_dead) may be forgotten.
///
/// A word means something only together with the limit that made it: a store keeps with it which one that was.
#[derive(Clone, Copy)]
pub struct StoredLimit<'l> {
    limit: &'l Limit,
    algorithm: &'l dyn Compact,
}

/// A decision, and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredStep {
    /// The answer.
    pub decision: Decision,
    /// The word to store if the request is charged; `None` when there is nothing to charge.
    pub next: Option<u64>,
    /// What a refund needs of this moment, when there is something to charge.
    pub stamp: Option<u64>,
}

impl Limit {
    /// The limit for a store outside, when its state is one word: buckets, windows with counters, calendar quotas.
    pub fn stored(&self) -> Option<StoredLimit<'_>> {
        self.compact().map(|algorithm| StoredLimit { limit: self, algorithm })
    }

    /// What a limit says that counts nothing: unlimited, deny all. `None` for the others.
    pub fn uncounted(&self, now: Nanos) -> Option<Decision> {
        match self {
            Self::Unlimited => Some(Decision::timeless(Outcome::Allowed, u64::MAX, now)),
            Self::DenyAll => Some(Decision::timeless(Outcome::NeverFits, 0, now)),
            _ => None,
        }
    }
}

impl StoredLimit<'_> {
    /// Whether `cost` fits.
    pub fn decide(&self, word: u64, cost: u64, now: Nanos) -> StoredStep {
        let at = self.algorithm.at(now);
        let step = self.algorithm.decide(word, at, cost);
        let stamp = step.next.map(|next| self.algorithm.stamp(next, at));
        StoredStep { decision: step.decision, next: step.next, stamp }
    }

    /// Whether the word is as good as none, now and later.
    pub fn is_dead(&self, word: u64, now: Nanos) -> bool {
        self.algorithm.is_dead(word, self.algorithm.at(now))
    }

    /// A word that was read from outside, in the bounds that this limit would have kept at `now`: a clock that was ahead
    /// when it was written locks nobody out for longer than a full bucket or a window.
    pub fn clamped(&self, word: u64, now: Nanos) -> u64 {
        self.algorithm.clamp(word, self.algorithm.at(now))
    }

    /// The word after `cost` cells of a grant with that stamp were given back, aged.
    pub fn refunded(&self, word: u64, stamp: u64, cost: u64, now: Nanos) -> u64 {
        self.algorithm.refund(word, self.algorithm.at(now), stamp, cost)
    }

    /// The word after `cost` cells were used that may not have been there.
    pub fn debited(&self, word: u64, cost: u64, now: Nanos) -> u64 {
        self.algorithm.debit(word, self.algorithm.at(now), cost)
    }

    /// A word that denies whatever either of the two would deny. `ahead` of a word in memory by some cells, a stored word
    /// makes a restart waste those cells and never admit any twice.
    pub fn merged(&self, one: u64, other: u64) -> u64 {
        self.algorithm.merge(one, other)
    }

    /// The word of a key of which another counter of the limit, or of a [share](Limit::share) of it, has just decided so:
    /// never one with more left.
    pub fn observed(&self, seen: &Decision, now: Nanos) -> u64 {
        share::observed(self.limit, self.algorithm, seen, now)
    }

    /// Cells that are used at `now`, rounded up.
    pub fn used(&self, word: u64, now: Nanos) -> u64 {
        let at = self.algorithm.at(now);
        if self.algorithm.is_dead(word, at) { 0 } else { self.algorithm.used(word, at) }
    }

    /// The word that a key keeps which had `word` under another limit: what was left stays, up to the new size.
    pub fn carried_from(&self, old: StoredLimit<'_>, word: u64, keep: Keep, now: Nanos) -> u64 {
        change::carried_word(old.limit, word, self.limit, keep, now)
    }
}

impl std::fmt::Debug for StoredLimit<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("StoredLimit").field(self.limit).finish()
    }
}
