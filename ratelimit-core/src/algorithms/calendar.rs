//! A quota per day, week, month, quarter or year of a time zone.

use std::sync::Arc;
use std::time::Duration;

use super::fixed_window::{Counter, Windows};
use crate::limit::LimitError;
use crate::ticks::Nanos;

/// Windows that one table of boundaries may have: 400 years of days.
pub const BOUNDARIES_MAX: usize = 150_000;

/// What civil unit a quota is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// A civil day; 23 or 25 hours long when clocks change.
    Day,
    /// A week from Monday (ISO 8601).
    Week,
    /// A real month.
    Month,
    /// January, April, July, October.
    Quarter,
    /// A real year.
    Year,
}

/// When each unit begins in a time zone. Made outside, where zones are known; this crate knows none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundaries {
    unit: CalendarUnit,
    zone: Arc<str>,
    starts: Arc<[u64]>,
}

impl Boundaries {
    /// The instants at which units begin, as nanoseconds since the engine's epoch, ascending: two at least, 150,000 at
    /// most. `zone` names the time zone and the version of its data, for people.
    ///
    /// # Errors
    ///
    /// [`LimitError::Boundaries`] when they are too few, too many, or not ascending.
    pub fn new(unit: CalendarUnit, zone: &str, starts: Vec<Nanos>) -> Result<Self, LimitError> {
        let starts: Arc<[u64]> = starts.into_iter().map(|start| start.0).collect();
        if starts.len() < 2 || starts.len() > BOUNDARIES_MAX || !starts.is_sorted_by(|a, b| a < b) {
            return Err(LimitError::Boundaries { count: starts.len() });
        }
        Ok(Self { unit, zone: zone.into(), starts })
    }

    /// The unit.
    pub fn unit(&self) -> CalendarUnit {
        self.unit
    }

    /// The time zone and the version of its data.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// The instants at which units begin, ascending.
    pub fn starts(&self) -> impl ExactSizeIterator<Item = Nanos> + '_ {
        self.starts.iter().copied().map(Nanos)
    }

    /// The longest of the units; for ever when the table runs out.
    pub(crate) fn unit_max(&self) -> Duration {
        let lengths =
            self.starts.iter().zip(self.starts.iter().skip(1)).map(|(from, to)| to.saturating_sub(*from));
        lengths.max().map_or(Duration::MAX, Duration::from_nanos)
    }

    /// How many units have begun at `now`.
    fn begun(&self, now: Nanos) -> u64 {
        self.starts.partition_point(|start| *start <= now.0) as u64
    }

    /// When the unit after `begun` begins; never, after the last.
    fn end(&self, begun: u64) -> u64 {
        usize::try_from(begun).ok().and_then(|next| self.starts.get(next)).copied().unwrap_or(u64::MAX)
    }
}

/// At most `limit` cells in each unit of a calendar.
///
/// # Guarantees
///
/// - A unit admits at most `limit`; across a boundary that is `2 · limit`, by definition.
/// - The stored unit never goes back: a wall clock that is set back reopens nothing, one that jumps ahead costs at most
///   `limit` for each boundary crossed.
/// - After the last boundary its unit goes on for ever: a table that has run out denies, it does not admit.
///
/// State: number of the unit, and its count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    limit: u64,
    boundaries: Boundaries,
    counter: Counter,
}

impl Calendar {
    pub(crate) fn new(limit: u64, boundaries: Boundaries) -> Result<Self, LimitError> {
        if limit == 0 {
            return Err(LimitError::ZeroCount);
        }
        let counter = Counter::fit(limit, boundaries.starts.len() as u64 + 2)
            .ok_or(LimitError::QuotaDoesNotFit { limit })?;
        Ok(Self { limit, boundaries, counter })
    }

    /// What one unit admits.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// When units begin.
    pub fn boundaries(&self) -> &Boundaries {
        &self.boundaries
    }
}

impl Windows for Calendar {
    fn counter(&self) -> &Counter {
        &self.counter
    }

    fn number(&self, now: Nanos) -> u64 {
        self.boundaries.begun(now)
    }

    fn end(&self, window: u64) -> u64 {
        self.boundaries.end(window.saturating_sub(1))
    }
}
