//! Limits that come with the request: one table for all keys, and the policy is an argument of each call.

use std::time::Duration;

use crate::algorithms::{At, Compact, Step};
use crate::decision::{Decision, Outcome, Turns};
use crate::key::{HashSecret, Hasher, Key};
use crate::limit::{LimitError, Rate};
use crate::table::{Table, TableError, TableSize};
use crate::ticks::{CAPACITY_TICKS_MAX, CellClock, Nanos};

/// A cell that takes a fraction of a tick is rounded up to whole ticks. With so many ticks in a cell that is a rate which
/// is at most a thousandth too slow; with fewer, only cells of whole ticks are accepted.
const ROUNDED_CELL_TICKS_MIN: u128 = 1_024;

/// A bucket of `burst` cells that refills at a rate, whose state is in ticks that are the same for every policy: an
/// eighth of a nanosecond.
///
/// # Guarantees
///
/// - Any closed interval `w` admits at most `burst + ⌊w / T⌋` cells of a key that is checked with this policy alone.
/// - The rate is never above the one asked for, and at most one in a thousand below it; up to 125,000 cells a second one
///   in 64,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdHocPolicy {
    burst: u64,
    cell_ticks: u64,
    capacity: u64,
}

impl AdHocPolicy {
    /// The policy of this rate and burst.
    ///
    /// # Errors
    ///
    /// When the burst, the count or the period is zero; when a full bucket takes more than nine years to refill; or when
    /// the rate is above 7.8 million a second and a cell does not take a whole number of ticks.
    pub fn new(rate: Rate, burst: u64) -> Result<Self, LimitError> {
        let period_ns = rate.period_ns()?;
        if burst == 0 {
            return Err(LimitError::ZeroBurst);
        }
        let (count, period_ticks) = (u128::from(rate.count), u128::from(period_ns) * 8);
        let cell = period_ticks.div_ceil(count);
        let exact = period_ticks.is_multiple_of(count) || cell >= ROUNDED_CELL_TICKS_MIN;
        let capacity = cell.checked_mul(u128::from(burst)).filter(|capacity| *capacity < CAPACITY_TICKS_MAX);
        let Some(capacity) = capacity.filter(|_| exact) else {
            return Err(LimitError::DoesNotFit { rate, capacity: burst });
        };
        // Neither is larger than the capacity, which is below 2^61.
        Ok(Self { burst, cell_ticks: cell as u64, capacity: capacity as u64 })
    }

    /// The cells of a full bucket.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The time in which one cell refills, rounded up.
    pub fn cell_time(&self) -> Duration {
        CellClock::EIGHTHS.until(self.cell_ticks, Nanos(0))
    }
}

impl Compact for AdHocPolicy {
    #[inline]
    fn at(&self, now: Nanos) -> At {
        At { now, point: CellClock::EIGHTHS.tick(now) }
    }

    #[inline]
    fn is_dead(&self, state: u64, at: At) -> bool {
        state <= at.point
    }

    #[inline]
    fn decide(&self, state: u64, at: At, cost: u64) -> Step {
        // Ticks are below 2^62, what other policies left below 2^62 + 2^61, and a charge that fits ever below 2^61: no sum
        // reaches 2^63.
        let tick = at.point;
        let base = state.max(tick);
        let owed = base.saturating_sub(tick);
        let fits_ever = cost <= self.burst;
        let charge = if fits_ever { cost.saturating_mul(self.cell_ticks) } else { 0 };
        // A look is answered whatever another policy has left behind.
        let fits_now = cost == 0 || owed.saturating_add(charge) <= self.capacity;
        let outcome = match (fits_ever, fits_now) {
            (false, _) => Outcome::NeverFits,
            (true, true) => Outcome::Allowed,
            (true, false) => Outcome::Denied,
        };
        let after = if outcome == Outcome::Allowed { base.saturating_add(charge) } else { base };
        let left = self.capacity.saturating_sub(after.saturating_sub(tick));
        let remaining = left.checked_div(self.cell_ticks).unwrap_or(0);
        let turns = Turns {
            clock: CellClock::EIGHTHS,
            retry_at: base.saturating_add(charge).saturating_sub(self.capacity),
            more_at: after
                .saturating_add(remaining.saturating_add(1).saturating_mul(self.cell_ticks))
                .saturating_sub(self.capacity)
                .min(after),
            full_at: after,
        };
        let next = (outcome == Outcome::Allowed && charge > 0).then_some(after);
        Step { decision: Decision::new(outcome, self.burst, remaining, at.now, turns), next }
    }

    fn debit(&self, state: u64, at: At, cost: u64) -> u64 {
        let most = at.point.saturating_add(self.capacity);
        let charge = cost.min(self.burst).saturating_mul(self.cell_ticks);
        state.max(at.point).saturating_add(charge).min(most).max(state)
    }

    fn stamp(&self, _next: u64, at: At) -> u64 {
        at.point
    }

    fn refund(&self, state: u64, at: At, stamp: u64, cost: u64) -> u64 {
        if state <= at.point {
            return state;
        }
        let elapsed = at.point.saturating_sub(stamp);
        let back = cost.min(self.burst).saturating_mul(self.cell_ticks).saturating_sub(elapsed);
        state.saturating_sub(back).max(at.point)
    }

    fn merge(&self, a: u64, b: u64) -> u64 {
        a.max(b)
    }

    fn exhausted(&self, at: At) -> u64 {
        at.point.saturating_add(self.capacity)
    }

    fn used(&self, state: u64, at: At) -> u64 {
        state.saturating_sub(at.point).div_ceil(self.cell_ticks.max(1))
    }

    fn clamp(&self, state: u64, at: At) -> u64 {
        state.min(self.exhausted(at))
    }
}

/// What is kept for keys whose limits come with each request.
///
/// A key has one state whatever policies it is checked with: the instant at which its bucket is full again. A policy is
/// applied to what earlier ones left, so a smaller one may deny for as long as the larger one takes to refill.
///
/// # Guarantees
///
/// - Those of [`Limiter`](crate::Limiter): exact under threads, denials are free, memory is fixed, keys without a slot
///   may be denied early and never admitted early, nothing panics.
///
/// ```
/// use ratelimit_core::{AdHoc, AdHocPolicy, HashSecret, Nanos, Rate, TableSize};
///
/// let keys = AdHoc::new(TableSize::for_keys(10_000), HashSecret([7; 16]))?;
/// let policy = AdHocPolicy::new(Rate::per_minute(30), 16)?;
/// let decision = keys.check("user123", &policy, 1, Nanos(0));
/// assert_eq!((decision.is_allowed(), decision.remaining()), (true, 15));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AdHoc {
    table: Table,
    hasher: Hasher,
}

impl AdHoc {
    /// A table of that size. The secret has to be random.
    ///
    /// # Errors
    ///
    /// [`TableError`] when the table cannot be had.
    pub fn new(size: TableSize, secret: HashSecret) -> Result<Self, TableError> {
        Ok(Self { table: Table::new(size, 0)?, hasher: Hasher::new(secret) })
    }

    /// Takes `cost` cells of the key if the policy has so many left for it, else none. A cost of 0 looks.
    #[inline]
    pub fn check<K: Key + ?Sized>(&self, key: &K, policy: &AdHocPolicy, cost: u64, now: Nanos) -> Decision {
        let (tag, at) = (key.tag(&self.hasher), policy.at(now));
        match self.table.charge(policy, tag, at, cost) {
            Some(step) => step.decision,
            // It is never given a successor; whatever could not be charged is not admitted.
            None => policy.decide(policy.exhausted(at), at, cost).decision,
        }
    }

    /// What [`check`](Self::check) would answer, without taking anything.
    pub fn peek<K: Key + ?Sized>(&self, key: &K, policy: &AdHocPolicy, cost: u64, now: Nanos) -> Decision {
        self.table.look(policy, key.tag(&self.hasher), policy.at(now), cost).decision
    }

    /// Forgets what was taken of the key. Does nothing for a key without a slot of its own.
    pub fn reset<K: Key + ?Sized>(&self, key: &K) {
        self.table.lower(key.tag(&self.hasher), |_| 0);
    }

    /// Keys that have a slot and are not full. Reads the whole table.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        let tick = CellClock::EIGHTHS.tick(now);
        self.table.live(|state| state <= tick)
    }

    /// How often a key was charged for which there was no slot.
    pub fn overflowed(&self) -> u64 {
        self.table.overflowed()
    }

    /// Bytes that are reserved for keys, and for the sketch.
    pub fn bytes(&self) -> (usize, usize) {
        self.table.bytes()
    }
}

impl std::fmt::Debug for AdHoc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AdHoc").field("overflowed", &self.overflowed()).finish_non_exhaustive()
    }
}
