//! What a limit answers.

use std::time::Duration;

use crate::ticks::{CellClock, Nanos};

/// How a request fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It fits, and was charged. A request of cost 0 is charged nothing: it only looks.
    Allowed,
    /// It does not fit now; nothing was charged.
    Denied,
    /// It costs more than the limit ever holds; waiting does not help.
    NeverFits,
}

/// The answer of one limit to one request: whether it may go, and what the limit holds afterwards.
///
/// Durations are worked out when they are asked for, and rounded up: a caller that waits as long is not early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    outcome: Outcome,
    limit: u64,
    remaining: u64,
    now: Nanos,
    clock: CellClock,
    retry_at: u64,
    more_at: u64,
    full_at: u64,
}

/// When a limit changes by itself, in ticks of its clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns {
    pub clock: CellClock,
    /// When the same request fits.
    pub retry_at: u64,
    /// When one cell more than now is left.
    pub more_at: u64,
    /// When everything is left.
    pub full_at: u64,
}

impl Decision {
    #[inline]
    pub(crate) fn new(outcome: Outcome, limit: u64, remaining: u64, now: Nanos, turns: Turns) -> Self {
        let Turns { clock, retry_at, more_at, full_at } = turns;
        Self { outcome, limit, remaining, now, clock, retry_at, more_at, full_at }
    }

    /// A decision that time does not change.
    pub(crate) fn timeless(outcome: Outcome, limit: u64, now: Nanos) -> Self {
        let remaining = if outcome == Outcome::Allowed { limit } else { 0 };
        let turns = Turns { clock: CellClock::NANOSECONDS, retry_at: 0, more_at: 0, full_at: 0 };
        Self::new(outcome, limit, remaining, now, turns)
    }

    /// A decision by a limit of which everything is used for the next `period`.
    pub(crate) fn full(limit: u64, cost: u64, now: Nanos, period: Duration) -> Self {
        let outcome = match cost {
            0 => Outcome::Allowed,
            _ if cost > limit => Outcome::NeverFits,
            _ => Outcome::Denied,
        };
        let end = now.after(period).0;
        let turns = Turns { clock: CellClock::NANOSECONDS, retry_at: end, more_at: end, full_at: end };
        Self::new(outcome, limit, 0, now, turns)
    }

    /// Of whoever cannot ask a limit of that size and lets the request go: as if nothing were used.
    pub fn unchecked(limit: u64, now: Nanos) -> Self {
        Self::timeless(Outcome::Allowed, limit, now)
    }

    /// Of whoever cannot ask a limit of that size and does not let the request go: as if everything were used for so long.
    pub fn withheld(limit: u64, cost: u64, now: Nanos, retry_after: Duration) -> Self {
        Self::full(limit, cost, now, retry_after)
    }

    /// The same, told to whom so many cells of the limit are not for.
    pub(crate) fn without(self, cells: u64) -> Self {
        let (limit, remaining) = (self.limit.saturating_sub(cells), self.remaining.saturating_sub(cells));
        Self { limit, remaining, ..self }
    }

    /// How the request fared.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the request may go.
    #[inline]
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// What the limit holds at most: the burst, the count of a window, the permits. `u64::MAX` is without limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many whole cells are left after this decision.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// How long a denied request has to wait until it would fit, if nothing else is admitted; never zero. `None` when
    /// it was allowed or never fits.
    pub fn retry_after(&self) -> Option<Duration> {
        let wait = self.clock.until(self.retry_at, self.now);
        (self.outcome == Outcome::Denied).then_some(wait.max(Duration::from_nanos(1)))
    }

    /// How long until one cell more is left than now; zero when everything is.
    pub fn more_after(&self) -> Duration {
        self.clock.until(self.more_at, self.now)
    }

    /// How long until everything is left.
    pub fn reset_after(&self) -> Duration {
        self.clock.until(self.full_at, self.now)
    }
}
