//! A count per window of the clock.

use std::time::Duration;

use super::{At, Compact, Step};
use crate::decision::{Decision, Outcome, Turns};
use crate::limit::{LimitError, STATE_BITS, window_bits};
use crate::ticks::{CellClock, HORIZON_NS, Nanos};

/// At most `limit` cells in each window `[n · period, (n + 1) · period)`, counted from `phase` before the epoch.
///
/// # Guarantees
///
/// - A window admits at most `limit`; so any interval as long as the period admits at most `2 · limit`.
/// - The stored window never goes back: a stamp of an earlier window counts in the stored one.
///
/// State: number of the window, and its count, in the bits that the limit needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    limit: u64,
    period_ns: u64,
    phase_ns: u64,
    counter: Counter,
}

/// Number of a window (from 1) above a count, in one word. Shared with the calendar quota, whose windows only begin
/// elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    limit: u64,
    count_bits: u32,
    window_max: u64,
}

/// When the window that counts ends, in ticks of `clock`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowEnd {
    pub clock: CellClock,
    pub now: Nanos,
    pub end: u64,
}

impl Counter {
    /// `None` when `limit` and the numbers of `windows` windows do not fit one state.
    pub(crate) fn fit(limit: u64, windows: u64) -> Option<Self> {
        let count_bits = window_bits(limit);
        let bits = STATE_BITS.checked_sub(count_bits).filter(|bits| window_bits(windows) <= *bits)?;
        Some(Self { limit, count_bits, window_max: (1 << bits) - 1 })
    }

    fn count_max(self) -> u64 {
        (1 << self.count_bits) - 1
    }

    pub(crate) fn window(self, state: u64) -> u64 {
        state >> self.count_bits
    }

    /// The number of a window that starts as the `ordinal`th. The last number is never used: no state is all ones.
    pub(crate) fn number(self, ordinal: u64) -> u64 {
        ordinal.saturating_add(1).min(self.window_max.saturating_sub(1))
    }

    /// The window that counts now, and its count. The clock of another thread may be ahead: then its window counts.
    fn current(self, state: u64, window: u64) -> (u64, u64) {
        let stored = self.window(state);
        if stored >= window { (stored, state & self.count_max()) } else { (window, 0) }
    }

    pub(crate) fn packed(self, window: u64, count: u64) -> u64 {
        window << self.count_bits | count.min(self.count_max())
    }

    pub(crate) fn decide(self, state: u64, window: u64, cost: u64, ends: impl Fn(u64) -> WindowEnd) -> Step {
        let (window, count) = self.current(state, window);
        let after = count.checked_add(cost).filter(|after| *after <= self.limit);
        let outcome = match after {
            Some(_) => Outcome::Allowed,
            None if cost > self.limit => Outcome::NeverFits,
            None => Outcome::Denied,
        };
        let count = after.unwrap_or(count);
        let WindowEnd { clock, now, end } = ends(window);
        let turn = if count == 0 { 0 } else { end };
        let turns = Turns { clock, retry_at: end, more_at: turn, full_at: turn };
        let decision = Decision::new(outcome, self.limit, self.limit.saturating_sub(count), now, turns);
        let next = (outcome == Outcome::Allowed && cost > 0).then(|| self.packed(window, count));
        Step { decision, next }
    }

    pub(crate) fn debit(self, state: u64, window: u64, cost: u64) -> u64 {
        let (window, count) = self.current(state, window);
        self.packed(window, count.saturating_add(cost).min(self.limit).max(count))
    }

    /// Counts of the window that was charged go down; a grant of an earlier window is over.
    pub(crate) fn refund(self, state: u64, window: u64, stamp: u64, cost: u64) -> u64 {
        let (stored, count) = self.current(state, window);
        if stored != stamp || self.window(state) != stamp {
            return state;
        }
        self.packed(stored, count.saturating_sub(cost))
    }

    pub(crate) fn used(self, state: u64, window: u64) -> u64 {
        self.current(state, window).1
    }

    pub(crate) fn exhausted(self, window: u64) -> u64 {
        self.packed(window, self.limit)
    }

    pub(crate) fn clamp(self, state: u64, window: u64) -> u64 {
        let (stored, count) = (self.window(state), (state & self.count_max()).min(self.limit));
        self.packed(stored.min(window), if stored >= window { count } else { 0 })
    }
}

impl FixedWindow {
    pub(crate) fn new(limit: u64, period: Duration, phase: Duration) -> Result<Self, LimitError> {
        let period_ns = crate::limit::period_ns(period)?;
        let phase_ns = u64::try_from(phase.as_nanos() % u128::from(period_ns)).unwrap_or(0);
        if limit == 0 {
            return Err(LimitError::ZeroCount);
        }
        let counter = Counter::fit(limit, HORIZON_NS / period_ns + 3)
            .ok_or(LimitError::WindowDoesNotFit { limit, period })?;
        Ok(Self { limit, period_ns, phase_ns, counter })
    }

    /// What one window admits.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The length of a window.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period_ns)
    }

    /// How long before the epoch a window began; below the period.
    pub fn phase(&self) -> Duration {
        Duration::from_nanos(self.phase_ns)
    }
}

impl Windows for FixedWindow {
    fn counter(&self) -> &Counter {
        &self.counter
    }

    fn number(&self, now: Nanos) -> u64 {
        now.0.saturating_add(self.phase_ns) / self.period_ns
    }

    fn end(&self, window: u64) -> u64 {
        window.saturating_mul(self.period_ns).saturating_sub(self.phase_ns)
    }
}

/// Limits that count in numbered windows. They differ in where a window begins and ends.
pub(super) trait Windows {
    /// What counts.
    fn counter(&self) -> &Counter;

    /// How many windows have ended at an instant.
    fn number(&self, now: Nanos) -> u64;

    /// The end, in nanoseconds since the epoch, of the window that the counter calls by this number.
    fn end(&self, window: u64) -> u64;
}

impl<W: Windows> Compact for W {
    fn at(&self, now: Nanos) -> At {
        At { now, point: self.counter().number(self.number(now)) }
    }

    fn is_dead(&self, state: u64, at: At) -> bool {
        self.counter().window(state) < at.point
    }

    fn decide(&self, state: u64, at: At, cost: u64) -> Step {
        self.counter().decide(state, at.point, cost, |window| WindowEnd {
            clock: CellClock::NANOSECONDS,
            now: at.now,
            end: self.end(window),
        })
    }

    fn debit(&self, state: u64, at: At, cost: u64) -> u64 {
        self.counter().debit(state, at.point, cost)
    }

    fn stamp(&self, next: u64, _at: At) -> u64 {
        self.counter().window(next)
    }

    fn refund(&self, state: u64, at: At, stamp: u64, cost: u64) -> u64 {
        self.counter().refund(state, at.point, stamp, cost)
    }

    fn merge(&self, a: u64, b: u64) -> u64 {
        a.max(b)
    }

    fn exhausted(&self, at: At) -> u64 {
        self.counter().exhausted(at.point)
    }

    fn used(&self, state: u64, at: At) -> u64 {
        self.counter().used(state, at.point)
    }

    fn clamp(&self, state: u64, at: At) -> u64 {
        self.counter().clamp(state, at.point)
    }
}
