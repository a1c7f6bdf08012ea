//! One file per algorithm: what it promises, its state, and a pure `decide` of state, time and cost.
//!
//! A *compact* algorithm keeps its state in one word of 63 bits; 0 is the state of a key never seen. Two properties
//! carry the table, and are tested for each of them:
//!
//! - A charge makes the word larger. Only a refund makes it smaller.
//! - A dead state is as good as none: nothing is used, now and later. Charging it gives a larger word.
//!
//! A *long* one has several words (`long`).

pub(crate) mod calendar;
pub(crate) mod concurrency;
pub(crate) mod condensed_log;
pub(crate) mod fixed_window;
pub(crate) mod gcra;
pub(crate) mod long;
pub(crate) mod sliding_log;
pub(crate) mod sliding_window;

pub use calendar::{Boundaries, Calendar, CalendarUnit};
pub use concurrency::Concurrency;
pub(crate) use condensed_log::CondensedLog;
pub use fixed_window::FixedWindow;
pub use gcra::Gcra;
pub(crate) use long::Long;
pub use sliding_log::SlidingLog;
pub use sliding_window::SlidingWindow;

use crate::decision::Decision;
use crate::ticks::Nanos;

/// An instant as one algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// As the caller counts.
    pub now: Nanos,
    /// As the algorithm counts: a tick, or the number of a window.
    pub point: u64,
}

/// What a decision leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The answer.
    pub decision: Decision,
    /// The state to store; `None` stores nothing.
    pub next: Option<u64>,
}

/// An algorithm whose state is one word. `decide` never fails: a state that it did not make is read as some state.
pub(crate) trait Compact {
    /// The instant in its own count.
    fn at(&self, now: Nanos) -> At;

    /// Whether the state is as good as none, now and later.
    fn is_dead(&self, state: u64, at: At) -> bool;

    /// Whether `cost` fits, and the state if it is charged.
    fn decide(&self, state: u64, at: At, cost: u64) -> Step;

    /// Charges what was already used, whether it fits or not, within the debt that the limit allows.
    fn debit(&self, state: u64, at: At, cost: u64) -> u64;

    /// What a grant remembers of the moment at which `decide` made `next`.
    fn stamp(&self, next: u64, at: At) -> u64;

    /// Gives back `cost` of a grant with that stamp, aged. Never larger than `state`, never admits more than if the
    /// grant had not been made.
    fn refund(&self, state: u64, at: At, stamp: u64, cost: u64) -> u64;

    /// A state that admits nothing that either of the two would deny.
    fn merge(&self, a: u64, b: u64) -> u64;

    /// The state in which everything was used just now.
    fn exhausted(&self, at: At) -> u64;

    /// Cells that the state holds beyond what a dead one does, rounded up.
    fn used(&self, state: u64, at: At) -> u64;

    /// A state from outside (a store, a peer, another clock) in the bounds that this algorithm would have kept.
    fn clamp(&self, state: u64, at: At) -> u64;
}

/// The words of a state that does not fit one.
pub(crate) trait Words {
    /// How many there are.
    fn count(&self) -> usize;
    /// The word at `index`; 0 where there is none.
    fn word(&self, index: usize) -> u64;
    /// Replaces the word at `index`.
    fn replace(&mut self, index: usize, word: u64);
}

impl Words for Vec<u64> {
    fn count(&self) -> usize {
        self.len()
    }

    fn word(&self, index: usize) -> u64 {
        self.get(index).copied().unwrap_or(0)
    }

    fn replace(&mut self, index: usize, word: u64) {
        if let Some(place) = self.get_mut(index) {
            *place = word;
        }
    }
}
