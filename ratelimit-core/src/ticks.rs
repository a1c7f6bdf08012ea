//! Time as the limits count it.
//!
//! A caller hands in [`Nanos`]. A limit converts them to *ticks* of its own, chosen when it is built, such
//! that one cell takes exactly `2^j` ticks: no division and no rounding is left for the hot path.

use std::time::Duration;

/// How far after its epoch an engine counts exactly: 2^58 ns, nine years. Later, time stands still for it,
/// which only ever denies.
pub const HORIZON_NS: u64 = 1 << 58;

/// The last tick there is. It leaves room above it for a bucket that is in use, and for the table's lock.
pub(crate) const TICK_MAX: u64 = (1 << 62) - 1;

/// Ticks that one full bucket may take, debt included.
pub(crate) const CAPACITY_TICKS_MAX: u128 = 1 << 61;

/// Nanoseconds since the engine's epoch, whatever the caller chose that to be. The clock must be monotonic;
/// stamps that are `d` old admit what `d` later would be admitted, and nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The instant `elapsed` after the epoch; what does not fit is the last instant.
    pub fn from_duration(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant `later` after this one; what does not fit is the last instant.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(Self::from_duration(later).0))
    }

    /// The time from `earlier` to this instant; zero when `earlier` is the later of the two.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Bits by which the product of nanoseconds and multiplier is shifted.
const SHIFT: u32 = 60;

/// Added to each product: more than what rounding the multiplier down can take from it before the horizon. So an instant
/// that is exactly a tick is that tick. It shifts all of time by the same quarter of a tick at most, and no interval.
const BIAS: u128 = HORIZON_NS as u128;

/// The smallest multiplier: rounding it down slows the rate by at most 2^-32.
const MULTIPLIER_MIN: u128 = 1 << 32;

/// Converts nanoseconds to ticks: `ticks = ⌊(ns · multiplier + bias) / 2^60⌋`, with a multiplier that is rounded down. So
/// the rate is never too fast and at most 2^-32 too slow (2^-63 as a rule), and the error does not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellClock {
    multiplier: u64,
}

impl CellClock {
    /// One tick is one nanosecond.
    pub const NANOSECONDS: Self = Self { multiplier: 1 << SHIFT };
    /// One tick is an eighth of a nanosecond: the finest that nine years and a full bucket leave room for.
    pub(crate) const EIGHTHS: Self = Self { multiplier: 8 << SHIFT };

    /// The clock of a limit of `count` cells per `period_ns` whose bucket holds `capacity` cells, and `j`: a cell
    /// takes `2^j` ticks. `j` is as large as the capacity and the horizon allow. `None` when none fits.
    pub(crate) fn fit(count: u64, period_ns: u64, capacity: u128) -> Option<(Self, u32)> {
        let (count, period_ns) = (u128::from(count), u128::from(period_ns));
        let ticks_per_ns_max = u128::from((TICK_MAX + 1) / HORIZON_NS);
        let fits = |j: &u32| capacity << j < CAPACITY_TICKS_MAX && count << j < period_ns * ticks_per_ns_max;
        let j = (0..61).take_while(|j| capacity < CAPACITY_TICKS_MAX && fits(j)).last()?;
        // The numerator is below 2^68, so that shifting it by 60 is within 128 bits.
        let multiplier = ((count << j) << SHIFT) / period_ns;
        let multiplier = u64::try_from(multiplier).ok().filter(|m| u128::from(*m) >= MULTIPLIER_MIN)?;
        Some((Self { multiplier }, j))
    }

    /// The tick that is running at `now`.
    #[inline]
    pub fn tick(self, now: Nanos) -> u64 {
        // At most (2^64 - 1)^2 + 2^58: nothing wraps.
        let product = u128::from(now.0).wrapping_mul(u128::from(self.multiplier)).wrapping_add(BIAS);
        let ticks = product >> SHIFT;
        if ticks > u128::from(TICK_MAX) { TICK_MAX } else { ticks as u64 }
    }

    /// The first instant at which `tick` runs; the last instant when it never does.
    pub fn instant(self, tick: u64) -> Nanos {
        let product = (u128::from(tick) << SHIFT).saturating_sub(BIAS);
        Nanos(u64::try_from(product.div_ceil(u128::from(self.multiplier))).unwrap_or(u64::MAX))
    }

    /// The time from `now` until `tick` runs.
    pub fn until(self, tick: u64, now: Nanos) -> Duration {
        self.instant(tick).since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_NS: u64 = 86_400_000_000_000;

    #[test]
    fn a_cell_has_as_many_ticks_as_burst_and_horizon_allow() {
        for (count, period_ns, burst, shift) in [
            (1, DAY_NS, 300_000, Some(42)),
            (1, 1_000_000_000, 10, Some(33)),
            (7, 1_000_000_000, 10, Some(31)),
            (999_999, 1_000_000_000, 10, Some(13)),
            (600_000_001, 1_000_000_000, 10, Some(4)),
            (3_000_000_000, 1_000_000_000, 1, Some(2)),
            (1_000_000_000_000, 1_000_000_000, 1, None),
            (1, u64::MAX, 1, Some(60)),
            (1, 1, (1 << 61) - 1, Some(0)),
            (1, 1, 1 << 61, None),
            (1, u64::MAX, 1 << 60, None),
        ] {
            assert_eq!(
                CellClock::fit(count, period_ns, burst).map(|(_, j)| j),
                shift,
                "{count} per {period_ns}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_interval_is_never_long_by_a_tick_and_short_by_two_to_the_minus_32_of_it(
            count in 1..u64::MAX, period_ns in 1..u64::MAX, burst in 1..u64::MAX >> 3,
            from in 0..HORIZON_NS, to in 0..HORIZON_NS,
        ) {
            let Some((clock, j)) = CellClock::fit(count, period_ns, u128::from(burst)) else { return Ok(()) };
            let (from, to) = (from.min(to), from.max(to));
            let ticks = u128::from(clock.tick(Nanos(to)) - clock.tick(Nanos(from)));
            let (floor, exact) = wide_mul_div(u128::from(to - from), u128::from(count) << j, u128::from(period_ns));
            prop_assert!(ticks <= floor + u128::from(!exact));
            prop_assert!(ticks + 1 + (floor >> 31) >= floor);
            prop_assert!(clock.tick(Nanos(0)) == 0);
        }

        #[test]
        fn an_instant_that_is_exactly_a_number_of_cells_is_that_tick(
            count in 1..1_000_000u64, cell_ns in 1..1_000_000_000u64, cells in 0..1_000u64,
        ) {
            let period_ns = count * cell_ns;
            let Some((clock, j)) = CellClock::fit(count, period_ns, 10) else { return Ok(()) };
            prop_assert_eq!(clock.tick(Nanos(cells * cell_ns)), cells << j);
            prop_assert_eq!(clock.instant(cells << j), Nanos(cells * cell_ns));
        }

        #[test]
        fn an_instant_is_the_first_one_of_its_tick(
            count in 1..u64::MAX, period_ns in 1..u64::MAX, tick in 0..TICK_MAX,
        ) {
            let Some((clock, _)) = CellClock::fit(count, period_ns, 1) else { return Ok(()) };
            let instant = clock.instant(tick);
            if instant.0 < u64::MAX {
                prop_assert!(clock.tick(instant) >= tick);
            }
            if instant.0 > 0 && instant.0 < u64::MAX {
                prop_assert!(clock.tick(Nanos(instant.0 - 1)) < tick);
            }
        }

        #[test]
        fn nanoseconds_are_themselves(ns in 0..TICK_MAX) {
            prop_assert_eq!(CellClock::NANOSECONDS.tick(Nanos(ns)), ns);
            prop_assert_eq!(CellClock::NANOSECONDS.instant(ns), Nanos(ns));
        }
    }

    /// `⌊a · b / c⌋` with a < 2^64, c < 2^64 and b < 2^68, in two halves of `b`, and whether that is exact.
    fn wide_mul_div(a: u128, b: u128, c: u128) -> (u128, bool) {
        let (high, low) = (b >> 32, b & 0xffff_ffff);
        let (whole, rest) = (a * high / c, a * high % c);
        let more = (rest << 32) + a * low;
        ((whole << 32) + more / c, more.is_multiple_of(c))
    }

    #[test]
    fn past_the_horizon_time_stands_still() {
        let (clock, _) = CellClock::fit(3_000_000_000, 1_000_000_000, 1).expect("it fits");
        assert_eq!(clock.tick(Nanos(u64::MAX)), TICK_MAX);
        assert_eq!(clock.tick(Nanos(u64::MAX - 1)), TICK_MAX);
        assert!(clock.tick(Nanos(HORIZON_NS)) < TICK_MAX);
    }
}
