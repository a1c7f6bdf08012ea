//! Limits: built by constructors that refuse what cannot be kept exactly.

use std::time::Duration;

use crate::algorithms::sliding_log::SLIDING_LOG_MAX;
use crate::algorithms::{Boundaries, Calendar, Concurrency, FixedWindow, Gcra, SlidingLog, SlidingWindow};
use crate::table::{TableError, TableSize};

/// Bits of a state in the table; one more locks its slot.
pub(crate) const STATE_BITS: u32 = 63;

/// `count` cells per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Cells.
    pub count: u64,
    /// In this time.
    pub period: Duration,
}

impl Rate {
    /// `count` cells per `period`. A limit that is built of it checks both.
    pub const fn new(count: u64, period: Duration) -> Self {
        Self { count, period }
    }

    /// `count` cells per second.
    pub const fn per_second(count: u64) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// `count` cells per minute.
    pub const fn per_minute(count: u64) -> Self {
        Self::new(count, Duration::from_secs(60))
    }

    /// `count` cells per hour.
    pub const fn per_hour(count: u64) -> Self {
        Self::new(count, Duration::from_secs(3_600))
    }

    /// `count` cells per 24 hours.
    pub const fn per_day(count: u64) -> Self {
        Self::new(count, Duration::from_secs(86_400))
    }

    pub(crate) fn period_ns(self) -> Result<u64, LimitError> {
        if self.count == 0 {
            return Err(LimitError::ZeroCount);
        }
        period_ns(self.period)
    }
}

/// A limit that can be kept. Two limits of the same parameters are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// A bucket that refills evenly.
    Gcra(Gcra),
    /// A count per window of the clock.
    FixedWindow(FixedWindow),
    /// Two counters that estimate the last period.
    SlidingWindow(SlidingWindow),
    /// Every admission of the last period.
    SlidingLog(SlidingLog),
    /// A quota per civil unit.
    Calendar(Calendar),
    /// Permits that are held and given back.
    Concurrency(Concurrency),
    /// Admits everything, and counts nothing.
    Unlimited,
    /// Admits nothing.
    DenyAll,
}

impl Limit {
    /// A bucket of `burst` cells that refills at `rate`; see [`Gcra`] for what it promises.
    ///
    /// # Errors
    ///
    /// When the burst, the count or the period is zero, or when the numbers are too large to count exactly for nine
    /// years: about 16 cells per nanosecond, or bursts of 2^61 cells.
    pub fn gcra(rate: Rate, burst: u64) -> Result<Self, LimitError> {
        Gcra::new(rate, burst, 0).map(Self::Gcra)
    }

    /// As [`gcra`](Self::gcra), and a commitment may take up to `debt_max` cells more than there are.
    ///
    /// # Errors
    ///
    /// As for [`gcra`](Self::gcra).
    pub fn gcra_with_debt(rate: Rate, burst: u64, debt_max: u64) -> Result<Self, LimitError> {
        Gcra::new(rate, burst, debt_max).map(Self::Gcra)
    }

    /// `limit` cells per window; see [`FixedWindow`].
    ///
    /// # Errors
    ///
    /// When one of them is zero, or the number of windows in nine years and the count together need more than 63 bits.
    pub fn fixed_window(limit: u64, period: Duration) -> Result<Self, LimitError> {
        Self::fixed_window_from(limit, period, Duration::ZERO)
    }

    /// As [`fixed_window`](Self::fixed_window), with windows that begin where one began `phase` before the epoch: so they can
    /// begin with the minutes of a wall clock, whenever the epoch was.
    ///
    /// # Errors
    ///
    /// As for [`fixed_window`](Self::fixed_window).
    pub fn fixed_window_from(limit: u64, period: Duration, phase: Duration) -> Result<Self, LimitError> {
        FixedWindow::new(limit, period, phase).map(Self::FixedWindow)
    }

    /// About `limit` cells in the last period; see [`SlidingWindow`].
    ///
    /// # Errors
    ///
    /// When one of them is zero, or the number of windows in nine years and two counts together need more than 63 bits.
    pub fn sliding_window(limit: u64, period: Duration) -> Result<Self, LimitError> {
        SlidingWindow::new(limit, period).map(Self::SlidingWindow)
    }

    /// Exactly `limit` cells in any period, up to 64; see [`SlidingLog`].
    ///
    /// # Errors
    ///
    /// When one of them is zero, or the limit is above 64.
    pub fn sliding_log(limit: u64, period: Duration) -> Result<Self, LimitError> {
        SlidingLog::new(limit, period).map(Self::SlidingLog)
    }

    /// Never more than `limit` cells in any period: a [log](Self::sliding_log) up to 64, a bucket from there on.
    ///
    /// The bucket pays for its small state with speed: it holds `⌈limit / 2⌉` cells and refills the other half in a
    /// period, so what it admits in the long run is half of `limit` per period.
    /// [`strict_bucket`](Self::strict_bucket) chooses another split.
    ///
    /// # Errors
    ///
    /// As for the two.
    pub fn strict_window(limit: u64, period: Duration) -> Result<Self, LimitError> {
        if limit <= SLIDING_LOG_MAX {
            return Self::sliding_log(limit, period);
        }
        Self::strict_bucket(limit, period, limit.div_ceil(2))
    }

    /// A bucket of `burst` cells that never admits more than `limit` in any closed interval as long as `period`: it refills
    /// `limit - burst` cells in it. A small burst is smooth and fast in the long run, a large one bursty and slow.
    ///
    /// # Errors
    ///
    /// [`LimitError::SplitOutOfRange`] unless `1 <= burst < limit`; else as for [`gcra`](Self::gcra).
    pub fn strict_bucket(limit: u64, period: Duration, burst: u64) -> Result<Self, LimitError> {
        let refill = limit.checked_sub(burst).filter(|refill| *refill > 0 && burst > 0);
        Self::gcra(Rate::new(refill.ok_or(LimitError::SplitOutOfRange { limit, burst })?, period), burst)
    }

    /// `limit` cells per civil unit; see [`Calendar`].
    ///
    /// # Errors
    ///
    /// When the limit is zero or above what fits beside the number of the unit (2^45 for 400 years of days).
    pub fn calendar(limit: u64, boundaries: Boundaries) -> Result<Self, LimitError> {
        Calendar::new(limit, boundaries).map(Self::Calendar)
    }

    /// `permits` requests at a time, each for at most `expiry`; see [`Concurrency`].
    ///
    /// # Errors
    ///
    /// When one of them is zero, or the permits are above 1,024.
    pub fn concurrency(permits: u64, expiry: Duration) -> Result<Self, LimitError> {
        Concurrency::new(permits, expiry).map(Self::Concurrency)
    }

    /// What the limit holds at most.
    pub fn size(&self) -> u64 {
        match self {
            Self::Gcra(gcra) => gcra.burst(),
            Self::FixedWindow(window) => window.limit(),
            Self::SlidingWindow(window) => window.limit(),
            Self::SlidingLog(log) => log.limit(),
            Self::Calendar(calendar) => calendar.limit(),
            Self::Concurrency(concurrency) => concurrency.permits(),
            Self::Unlimited => u64::MAX,
            Self::DenyAll => 0,
        }
    }

    /// Whether it counts anything, so that its keys have a state.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self, Self::Unlimited | Self::DenyAll)
    }

    /// How long a key may be live after its last charge.
    pub(crate) fn memory(&self) -> Duration {
        match self {
            Self::Gcra(gcra) => gcra.forgets_after(),
            Self::FixedWindow(window) => window.period(),
            Self::SlidingWindow(window) => window.period().saturating_mul(2),
            Self::SlidingLog(log) => log.period(),
            Self::Calendar(calendar) => calendar.boundaries().unit_max(),
            Self::Concurrency(permits) => permits.expiry(),
            Self::Unlimited | Self::DenyAll => Duration::MAX,
        }
    }

    /// Bytes that the table of this limit reserves: 0 where nothing is counted.
    ///
    /// # Errors
    ///
    /// [`TableError::TooLarge`], as whatever would make the table.
    pub fn table_bytes(&self, size: TableSize) -> Result<u64, TableError> {
        if self.counts() { self.table_size(size).bytes(self.more_words()) } else { Ok(0) }
    }

    /// Which permits of a shared cell are back, nobody could tell: what is not exact would have to deny for ever.
    pub(crate) fn table_size(&self, size: TableSize) -> TableSize {
        if matches!(self, Self::Concurrency(_)) { TableSize { sketch_bytes: 0, ..size } } else { size }
    }

    /// Words of state beside the first.
    pub(crate) fn more_words(&self) -> usize {
        match self {
            Self::SlidingLog(log) => log.words(),
            Self::Concurrency(concurrency) => concurrency.words(),
            _ => 0,
        }
    }
}

/// A period in nanoseconds, neither zero nor beyond 64 bits.
pub(crate) fn period_ns(period: Duration) -> Result<u64, LimitError> {
    match u64::try_from(period.as_nanos()) {
        Ok(0) => Err(LimitError::ZeroPeriod),
        Ok(period_ns) => Ok(period_ns),
        Err(_) => Err(LimitError::PeriodTooLong { period }),
    }
}

/// Bits that a number up to `value` takes.
pub(crate) fn window_bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Why a limit cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The burst is zero.
    #[error("a burst of 0 admits nothing: use at least 1, or deny all explicitly")]
    ZeroBurst,
    /// The count, limit or number of permits is zero.
    #[error("a limit of 0 admits nothing: use at least 1, or deny all explicitly")]
    ZeroCount,
    /// The period or expiry is zero.
    #[error("a period of 0 is no limit: use at least 1 ns, or unlimited explicitly")]
    ZeroPeriod,
    /// The period does not fit 64 bits of nanoseconds.
    #[error("a period of {period:?} is longer than 584 years: use a shorter one")]
    PeriodTooLong {
        /// What was asked for.
        period: Duration,
    },
    /// Rate and capacity together cannot be counted exactly.
    #[error(
        "{} cells per {:?} with room for {capacity} cannot be counted exactly: lower the rate or the burst",
        rate.count, rate.period
    )]
    DoesNotFit {
        /// The rate.
        rate: Rate,
        /// Burst and debt.
        capacity: u64,
    },
    /// Windows and counts do not fit one word.
    #[error(
        "{limit} per window of {period:?} does not fit one word: lower the limit or take a longer window"
    )]
    WindowDoesNotFit {
        /// The limit.
        limit: u64,
        /// The length of the window.
        period: Duration,
    },
    /// The quota does not fit beside the number of its unit.
    #[error("a quota of {limit} does not fit one word: lower it")]
    QuotaDoesNotFit {
        /// The quota.
        limit: u64,
    },
    /// A log keeps every admission.
    #[error("a log of {limit} admissions is too long, {limit_max} is the most: use another algorithm")]
    LogTooLong {
        /// What was asked for.
        limit: u64,
        /// The most.
        limit_max: u64,
    },
    /// Every permit is kept.
    #[error("{permits} permits are too many, {permits_max} is the most")]
    TooManyPermits {
        /// What was asked for.
        permits: u64,
        /// The most.
        permits_max: u64,
    },
    /// The burst of a strict bucket leaves nothing to refill.
    #[error("a strict limit of {limit} cannot be split with a burst of {burst}: use 1 to {limit} exclusive")]
    SplitOutOfRange {
        /// The limit.
        limit: u64,
        /// The burst.
        burst: u64,
    },
    /// Boundaries are too few, too many, or not ascending.
    #[error("{count} boundaries: give at least 2 and at most 150000 instants, ascending")]
    Boundaries {
        /// How many were given.
        count: usize,
    },
}
