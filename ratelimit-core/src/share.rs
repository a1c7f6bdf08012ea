//! What one of several nodes may admit by itself, and how a counter elsewhere is taken over.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::algorithms::Compact;
use crate::decision::Decision;
use crate::limit::{Limit, LimitError, Rate};
use crate::ticks::Nanos;

impl Limit {
    /// The limit of one of `nodes` that count apart: `⌈size / nodes⌉`, and of a bucket the refill in `nodes` times the
    /// period. Together they admit at most `nodes - 1` more than the limit. A bucket of it is full at the same instant
    /// as one of the limit that was used to the same part.
    ///
    /// # Errors
    ///
    /// When the share cannot be counted exactly.
    pub fn share(&self, nodes: NonZeroU32) -> Result<Self, LimitError> {
        let part = |size: u64| size.div_ceil(u64::from(nodes.get()));
        match self {
            Self::Gcra(bucket) => {
                let Rate { count, period } = bucket.rate();
                let slower = period.checked_mul(nodes.get()).ok_or(LimitError::PeriodTooLong { period })?;
                Self::gcra_with_debt(Rate::new(count, slower), part(bucket.burst()), part(bucket.debt_max()))
            }
            Self::FixedWindow(window) => {
                Self::fixed_window_from(part(window.limit()), window.period(), window.phase())
            }
            Self::SlidingWindow(window) => Self::sliding_window(part(window.limit()), window.period()),
            Self::SlidingLog(log) => Self::sliding_log(part(log.limit()), log.period()),
            Self::Calendar(calendar) => Self::calendar(part(calendar.limit()), calendar.boundaries().clone()),
            Self::Concurrency(permits) => Self::concurrency(part(permits.permits()), permits.expiry()),
            Self::Unlimited => Ok(Self::Unlimited),
            Self::DenyAll => Ok(Self::DenyAll),
        }
    }
}

/// The word of a key of which a counter elsewhere has said this: as little is left of it, never more.
pub(crate) fn observed(limit: &Limit, algorithm: &dyn Compact, seen: &Decision, now: Nanos) -> u64 {
    let at = algorithm.at(now);
    if seen.reset_after() == Duration::ZERO || seen.limit() == 0 {
        return 0;
    }
    let word = match limit {
        // The instant at which it is full is the same for every share.
        Limit::Gcra(bucket) => bucket.clock().tick(now.after(seen.reset_after())),
        _ => {
            let used = u128::from(seen.limit().saturating_sub(seen.remaining()));
            let used = (used * u128::from(limit.size())).div_ceil(u128::from(seen.limit()));
            algorithm.debit(0, at, u64::try_from(used).unwrap_or(u64::MAX))
        }
    };
    algorithm.clamp(word, at)
}
