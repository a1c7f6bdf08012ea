//! The generic cell rate algorithm: a bucket of `burst` cells that refills evenly.

use std::time::Duration;

use super::{At, Compact, Step};
use crate::decision::{Decision, Outcome, Turns};
use crate::limit::{LimitError, Rate};
use crate::ticks::{CellClock, Nanos, TICK_MAX};

/// A bucket of `burst` cells that refills at a rate, one cell every `T = period / count`.
///
/// # Guarantees
///
/// - Any closed interval `w` admits at most `burst + ⌊w / T⌋` cells, time counted in ticks of the limit; a tick is below a
///   nanosecond unless the burst takes weeks to refill. (In one period of `burst · T` that is `2 · burst`; see
///   [`Limit::strict_window`](crate::Limit::strict_window) where that is too much.)
/// - The rate is never above the one asked for, and at most 2^-63 below it.
/// - With debt `d`: `burst + d + ⌊w / T⌋`.
///
/// State: the *theoretical arrival time*, the tick at which the bucket is full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    rate: Rate,
    burst: u64,
    debt_max: u64,
    clock: CellClock,
    /// A cell takes `2^cell_shift` ticks.
    cell_shift: u32,
    capacity: u64,
}

impl Gcra {
    pub(crate) fn new(rate: Rate, burst: u64, debt_max: u64) -> Result<Self, LimitError> {
        let period_ns = rate.period_ns()?;
        if burst == 0 {
            return Err(LimitError::ZeroBurst);
        }
        let capacity = u128::from(burst) + u128::from(debt_max);
        let (clock, cell_shift) = CellClock::fit(rate.count, period_ns, capacity)
            .ok_or(LimitError::DoesNotFit { rate, capacity: burst.saturating_add(debt_max) })?;
        Ok(Self { rate, burst, debt_max, clock, cell_shift, capacity: burst << cell_shift })
    }

    /// The cells of a full bucket.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The rate of refill.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// How many cells a commitment may go below empty.
    pub fn debt_max(&self) -> u64 {
        self.debt_max
    }

    /// The clock whose ticks the state counts.
    pub fn clock(&self) -> CellClock {
        self.clock
    }

    /// How many ticks a cell takes: a power of two.
    pub fn cell_ticks(&self) -> u64 {
        1 << self.cell_shift
    }

    /// The time that a full bucket takes to refill.
    pub fn refill_time(&self) -> Duration {
        self.clock.until(self.capacity, Nanos(0))
    }

    /// The time after which a bucket is full whatever was charged.
    pub(crate) fn forgets_after(&self) -> Duration {
        self.clock.until(self.capacity.saturating_add(self.debt_ticks()), Nanos(0))
    }

    /// Ticks of a full bucket.
    pub(crate) fn capacity_ticks(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn debt_ticks(&self) -> u64 {
        self.debt_max << self.cell_shift
    }

    pub(crate) fn cell_shift(&self) -> u32 {
        self.cell_shift
    }

    /// Ticks that `cost` cells take, at most those of all that can ever be owed.
    fn charge(&self, cost: u64) -> u64 {
        cost.min(self.burst.saturating_add(self.debt_max)) << self.cell_shift
    }
}

impl Compact for Gcra {
    #[inline]
    fn at(&self, now: Nanos) -> At {
        At { now, point: self.clock.tick(now) }
    }

    #[inline]
    fn is_dead(&self, state: u64, at: At) -> bool {
        state <= at.point
    }

    #[inline]
    fn decide(&self, state: u64, at: At, cost: u64) -> Step {
        // base >= tick, so `owed` is exact; only a cost of at most the burst is shifted. Nothing here can panic, so that what a
        // caller does not look at costs nothing.
        let tick = at.point;
        let base = state.max(tick);
        let owed = base.wrapping_sub(tick);
        let fits_ever = cost <= self.burst;
        let charge = if fits_ever { cost.wrapping_shl(self.cell_shift) } else { 0 };
        let allowed = fits_ever && owed.saturating_add(charge) <= self.capacity;
        let after = if allowed { base.saturating_add(charge) } else { base };
        let left = self.capacity.saturating_sub(after.wrapping_sub(tick));
        let remaining = left.wrapping_shr(self.cell_shift);
        let outcome = match (allowed, fits_ever) {
            (true, _) => Outcome::Allowed,
            (false, true) => Outcome::Denied,
            (false, false) => Outcome::NeverFits,
        };
        let turns = Turns {
            clock: self.clock,
            // At this tick `owed + charge` is the capacity. Wraps only where it is not read: when it was allowed.
            retry_at: base.wrapping_add(charge).wrapping_sub(self.capacity),
            more_at: after
                .saturating_add(remaining.wrapping_add(1).wrapping_shl(self.cell_shift))
                .saturating_sub(self.capacity)
                .min(after),
            full_at: after,
        };
        let next = (allowed && charge > 0).then_some(after);
        Step { decision: Decision::new(outcome, self.burst, remaining, at.now, turns), next }
    }

    fn debit(&self, state: u64, at: At, cost: u64) -> u64 {
        let most = at.point.saturating_add(self.capacity).saturating_add(self.debt_ticks());
        let base = state.max(at.point);
        // A stale clock must not forgive what others charged meanwhile.
        base.saturating_add(self.charge(cost)).min(most).max(state)
    }

    fn stamp(&self, _next: u64, at: At) -> u64 {
        at.point
    }

    fn refund(&self, state: u64, at: At, stamp: u64, cost: u64) -> u64 {
        if state <= at.point {
            return state;
        }
        // Aged: without the grant the bucket would have refilled no further than full in the meantime.
        let elapsed = at.point.saturating_sub(stamp);
        let back = self.charge(cost).saturating_sub(elapsed);
        state.saturating_sub(back).max(at.point)
    }

    fn merge(&self, a: u64, b: u64) -> u64 {
        a.max(b)
    }

    fn exhausted(&self, at: At) -> u64 {
        at.point.saturating_add(self.capacity)
    }

    fn used(&self, state: u64, at: At) -> u64 {
        let owed = state.saturating_sub(at.point);
        (owed >> self.cell_shift).saturating_add(u64::from(owed & ((1 << self.cell_shift) - 1) > 0))
    }

    fn clamp(&self, state: u64, at: At) -> u64 {
        let most = at.point.min(TICK_MAX).saturating_add(self.capacity).saturating_add(self.debt_ticks());
        state.min(most)
    }
}
