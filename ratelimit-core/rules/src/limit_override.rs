//! Limits that come with a request, in place of a rule's.
//!
//! A proxy may send another count with each request. A table for each count would let it fill the memory, and would give
//! whoever is sent a new count a new allowance. So there is one table for each unit of time, whose windows are those of the
//! wall clock, and the count of the request only says how far into it the request may go.
//!
//! # Guarantees
//!
//! - A window admits at most as many hits of one descriptor as the largest count that was sent with any of them, in whatever
//!   order counts change.
//! - Memory does not grow with the number of different counts.

use std::time::Duration;

use ratelimit_core::{Limit, LimitError};

use crate::file::Epoch;

const DAY_SECONDS: u64 = 86_400;

/// The length of a window, as the Envoy project's service counts them: months of 30 days, years of 365.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverrideUnit {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

impl OverrideUnit {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// How long it is.
    pub fn period(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => DAY_SECONDS,
            Self::Week => 7 * DAY_SECONDS,
            Self::Month => 30 * DAY_SECONDS,
            Self::Year => 365 * DAY_SECONDS,
        })
    }
}

/// A count per unit: windows of the wall clock, as `rate_limit` in a file means them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOverride {
    limit: Limit,
    window: Limit,
    count: u32,
}

impl LimitOverride {
    /// `count` in each window; 0 denies all. `epoch` is that of the engine's clock.
    ///
    /// # Errors
    ///
    /// [`LimitError`], when the engine cannot count it: not with these units.
    pub fn new(count: u32, unit: OverrideUnit, epoch: Epoch) -> Result<Self, LimitError> {
        let (period, phase) = (unit.period(), epoch.phase(unit.period()));
        let limit = match count {
            0 => Limit::DenyAll,
            count => Limit::fixed_window_from(count.into(), period, phase)?,
        };
        Ok(Self { limit, window: Limit::fixed_window_from(u32::MAX.into(), period, phase)?, count })
    }

    /// The limit, as answers tell it.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The window that every count of the unit is counted in.
    pub(crate) fn window(&self) -> &Limit {
        &self.window
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.into()
    }
}
