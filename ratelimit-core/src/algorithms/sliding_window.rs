//! Two counters that together estimate the last period.

use std::time::Duration;

use super::{At, Compact, Step};
use crate::decision::{Decision, Outcome, Turns};
use crate::limit::{LimitError, STATE_BITS, window_bits};
use crate::ticks::{CellClock, HORIZON_NS, Nanos};

/// At most `limit` cells in the last `period`, estimated: the count of this window, and of the window before it the part
/// that the period still covers, rounded up.
///
/// # Guarantees
///
/// - Nothing is admitted with which the estimate would exceed `limit`.
/// - The estimate takes the window before for evenly filled. Where it was not, an interval as long as the period can hold
///   more than `limit`, but less than `2 · limit`.
///
/// State: number of the window, the count of the one before, its own count, in the bits that the limit needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    limit: u64,
    period_ns: u64,
    count_bits: u32,
    window_max: u64,
}

/// A state, moved on to the window that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    window: u64,
    before: u64,
    here: u64,
}

impl SlidingWindow {
    pub(crate) fn new(limit: u64, period: Duration) -> Result<Self, LimitError> {
        let period_ns = crate::limit::period_ns(period)?;
        if limit == 0 {
            return Err(LimitError::ZeroCount);
        }
        let count_bits = window_bits(limit);
        let bits = STATE_BITS
            .checked_sub(count_bits * 2)
            .filter(|bits| window_bits(HORIZON_NS / period_ns + 3) <= *bits)
            .ok_or(LimitError::WindowDoesNotFit { limit, period })?;
        Ok(Self { limit, period_ns, count_bits, window_max: (1 << bits) - 1 })
    }

    /// What the estimate may reach.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The length of the period.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period_ns)
    }

    fn unpacked(&self, state: u64) -> Counts {
        let mask = (1 << self.count_bits) - 1;
        let (before, here) = (state >> self.count_bits & mask, state & mask);
        Counts { window: state >> (2 * self.count_bits), before, here }
    }

    fn packed(&self, counts: Counts) -> u64 {
        let mask = (1 << self.count_bits) - 1;
        (counts.window << self.count_bits | counts.before.min(mask)) << self.count_bits
            | counts.here.min(mask)
    }

    /// The state as of `window`, or of its own window when that is later.
    fn moved_on(&self, state: u64, window: u64) -> Counts {
        let stored = self.unpacked(state);
        match window.saturating_sub(stored.window) {
            0 => stored,
            1 => Counts { window, before: stored.here, here: 0 },
            _ => Counts { window, before: 0, here: 0 },
        }
    }

    /// First nanosecond of a window; numbers start from 1.
    fn start(&self, window: u64) -> u64 {
        window.saturating_sub(1).saturating_mul(self.period_ns)
    }

    /// What the window before still counts for, `into` nanoseconds into the window: rounded up.
    fn carried(&self, before: u64, into: u64) -> u64 {
        let covered = u128::from(self.period_ns.saturating_sub(into));
        (u128::from(before) * covered).div_ceil(u128::from(self.period_ns)) as u64
    }

    /// The first nanosecond of a window at which at most `room` of `before` is still carried.
    fn carried_at_most(&self, room: u64, before: u64) -> u64 {
        if room >= before {
            return 0;
        }
        let covered = u128::from(room) * u128::from(self.period_ns) / u128::from(before.max(1));
        self.period_ns.saturating_sub(covered as u64)
    }

    /// The first instant at which `cost`, at most the limit, fits if nothing else is admitted.
    fn fits_at(&self, counts: Counts, cost: u64) -> u64 {
        let start = self.start(counts.window);
        match self.limit.checked_sub(counts.here.saturating_add(cost)) {
            Some(room) => start.saturating_add(self.carried_at_most(room, counts.before)),
            None => start
                .saturating_add(self.period_ns)
                .saturating_add(self.carried_at_most(self.limit.saturating_sub(cost), counts.here)),
        }
    }

    fn empty_at(&self, counts: Counts) -> u64 {
        let windows = if counts.here > 0 { 2 } else { u64::from(counts.before > 0) };
        if windows == 0 { 0 } else { self.start(counts.window.saturating_add(windows)) }
    }

    fn estimate(&self, counts: Counts, now: Nanos) -> u64 {
        let into = now.0.saturating_sub(self.start(counts.window));
        self.carried(counts.before, into).saturating_add(counts.here)
    }
}

impl Compact for SlidingWindow {
    fn at(&self, now: Nanos) -> At {
        At { now, point: (now.0 / self.period_ns).saturating_add(1).min(self.window_max - 1) }
    }

    fn is_dead(&self, state: u64, at: At) -> bool {
        let counts = self.unpacked(state);
        counts.window.saturating_add(u64::from(counts.here > 0)) < at.point
    }

    fn decide(&self, state: u64, at: At, cost: u64) -> Step {
        let mut counts = self.moved_on(state, at.point);
        let estimate = self.estimate(counts, at.now);
        let allowed = estimate.checked_add(cost).is_some_and(|after| after <= self.limit);
        let outcome = match allowed {
            true => Outcome::Allowed,
            false if cost > self.limit => Outcome::NeverFits,
            false => Outcome::Denied,
        };
        let retry_at = if outcome == Outcome::Denied { self.fits_at(counts, cost) } else { 0 };
        if allowed {
            counts.here = counts.here.saturating_add(cost);
        }
        let remaining =
            self.limit.saturating_sub(if allowed { estimate.saturating_add(cost) } else { estimate });
        let turns = Turns {
            clock: CellClock::NANOSECONDS,
            retry_at,
            more_at: if remaining < self.limit { self.fits_at(counts, remaining + 1) } else { 0 },
            full_at: self.empty_at(counts),
        };
        let next = (allowed && cost > 0).then(|| self.packed(counts));
        Step { decision: Decision::new(outcome, self.limit, remaining, at.now, turns), next }
    }

    fn debit(&self, state: u64, at: At, cost: u64) -> u64 {
        let mut counts = self.moved_on(state, at.point);
        counts.here = counts.here.saturating_add(cost).min(self.limit).max(counts.here);
        self.packed(counts)
    }

    fn stamp(&self, next: u64, _at: At) -> u64 {
        self.unpacked(next).window
    }

    /// The count that was charged goes down, wherever it has moved; a grant of an earlier window is over.
    fn refund(&self, state: u64, _at: At, stamp: u64, cost: u64) -> u64 {
        let mut counts = self.unpacked(state);
        if counts.window == stamp {
            counts.here = counts.here.saturating_sub(cost);
        } else if counts.window == stamp.saturating_add(1) {
            counts.before = counts.before.saturating_sub(cost);
        } else {
            return state;
        }
        self.packed(counts)
    }

    /// Not the larger word: a count of the window before weighs less than one of this window.
    fn merge(&self, a: u64, b: u64) -> u64 {
        let window = self.unpacked(a).window.max(self.unpacked(b).window);
        let (a, b) = (self.moved_on(a, window), self.moved_on(b, window));
        self.packed(Counts { window, before: a.before.max(b.before), here: a.here.max(b.here) })
    }

    fn exhausted(&self, at: At) -> u64 {
        self.packed(Counts { window: at.point, before: 0, here: self.limit })
    }

    fn used(&self, state: u64, at: At) -> u64 {
        self.estimate(self.moved_on(state, at.point), at.now)
    }

    fn clamp(&self, state: u64, at: At) -> u64 {
        let counts = self.unpacked(state);
        let (before, here) = (counts.before.min(self.limit), counts.here.min(self.limit));
        self.packed(Counts { window: counts.window.min(at.point), before, here })
    }
}
