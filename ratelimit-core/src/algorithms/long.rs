//! What the algorithms have in common whose state has more than one word.

use super::{Concurrency, SlidingLog, Words};
use crate::change::Usage;
use crate::decision::Decision;
use crate::ticks::Nanos;

/// The last head of a slot that a long state may have: later than all of time, and neither locked nor moved.
const HEAD_MAX: u64 = (1 << 63) - 2;

/// An algorithm whose state has more than one word.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Long {
    Log(SlidingLog),
    Concurrency(Concurrency),
}

impl Long {
    pub(crate) fn decide(self, words: &dyn Words, now: Nanos, cost: u64) -> Decision {
        match self {
            Self::Log(log) => log.decide(words, now, cost),
            Self::Concurrency(concurrency) => concurrency.decide(words, now, cost),
        }
    }

    /// The answer for a key that has no slot: as if everything were used.
    pub(crate) fn decide_nowhere(self, now: Nanos, cost: u64) -> Decision {
        let (size, period) = match self {
            Self::Log(log) => (log.limit(), log.period()),
            Self::Concurrency(concurrency) => (concurrency.permits(), concurrency.expiry()),
        };
        Decision::full(size, cost, now, period)
    }

    /// When the last of the words ends: from then on the slot is dead. Never the head of a slot that was never used.
    pub(crate) fn head(self, words: &dyn Words) -> u64 {
        let (first, step) = match self {
            Self::Log(_) => (0, 1),
            Self::Concurrency(_) => (1, 2),
        };
        let ends = (first..words.count()).step_by(step).map(|index| words.word(index));
        // A period may end beyond the bits that a head has.
        ends.max().unwrap_or(0).clamp(1, HEAD_MAX)
    }

    /// What is used at `now`.
    pub(crate) fn usage(self, words: &dyn Words, now: Nanos) -> Usage {
        match self {
            Self::Log(log) => Usage::Log(log.live(words, now)),
            Self::Concurrency(concurrency) => Usage::Permits(concurrency.held(words, now)),
        }
    }

    /// Makes as much used as `usage` has, at least. What is used already counts.
    pub(crate) fn absorb(self, words: &mut dyn Words, usage: Usage, now: Nanos) {
        match (self, usage) {
            (Self::Log(log), Usage::Log(ends)) => log.absorb(words, ends, now),
            (Self::Concurrency(concurrency), Usage::Permits(held)) => concurrency.absorb(words, held, now),
            _ => {}
        }
    }
}
