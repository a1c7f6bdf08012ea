//! Every admission of the last period, remembered.

use std::time::Duration;

use super::Words;
use crate::decision::{Decision, Outcome, Turns};
use crate::limit::LimitError;
use crate::ticks::{CellClock, Nanos};

/// The most that a log may admit per period: each admission is kept.
pub const SLIDING_LOG_MAX: u64 = 64;

/// At most `limit` (up to 64) cells in any period, exactly.
///
/// # Guarantees
///
/// - Every half-open interval as long as the period admits at most `limit`.
///
/// State: for each cell the nanosecond at which it is forgotten, in no order; 0 is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingLog {
    limit: u64,
    period_ns: u64,
}

impl SlidingLog {
    pub(crate) fn new(limit: u64, period: Duration) -> Result<Self, LimitError> {
        let period_ns = crate::limit::period_ns(period)?;
        match limit {
            0 => Err(LimitError::ZeroCount),
            1..=SLIDING_LOG_MAX => Ok(Self { limit, period_ns }),
            _ => Err(LimitError::LogTooLong { limit, limit_max: SLIDING_LOG_MAX }),
        }
    }

    /// What any period admits.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The length of the period.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period_ns)
    }

    pub(crate) fn words(&self) -> usize {
        self.limit as usize
    }

    /// Whether `cost` fits. When it does, [`charge`](Self::charge) enters it.
    pub(crate) fn decide(&self, log: &dyn Words, now: Nanos, cost: u64) -> Decision {
        let mut ends = [0; SLIDING_LOG_MAX as usize];
        let mut live = 0;
        for index in 0..log.count() {
            let end = log.word(index);
            if let (true, Some(place)) = (end > now.0, ends.get_mut(live)) {
                *place = end;
                live += 1;
            }
        }
        let ends = ends.get_mut(..live).unwrap_or_default();
        ends.sort_unstable();
        self.judge(ends, now, cost)
    }

    /// `ends`: when each live cell is forgotten, ascending.
    fn judge(&self, ends: &[u64], now: Nanos, cost: u64) -> Decision {
        let live = ends.len() as u64;
        let own_end = now.0.saturating_add(self.period_ns);
        let allowed = live.checked_add(cost).is_some_and(|after| after <= self.limit);
        let outcome = match allowed {
            true => Outcome::Allowed,
            false if cost > self.limit => Outcome::NeverFits,
            false => Outcome::Denied,
        };
        let charged = if allowed { cost } else { 0 };
        // For `cost` to fit, the oldest `live + cost - limit` have to be forgotten.
        let surplus = live.saturating_add(cost).saturating_sub(self.limit);
        let end = |rank: u64| usize::try_from(rank).ok().and_then(|rank| ends.get(rank)).copied();
        let turns = Turns {
            clock: CellClock::NANOSECONDS,
            retry_at: surplus.checked_sub(1).and_then(end).unwrap_or(0),
            more_at: end(0).unwrap_or(if charged > 0 { own_end } else { 0 }),
            full_at: if charged > 0 {
                own_end.max(ends.last().copied().unwrap_or(0))
            } else {
                ends.last().copied().unwrap_or(0)
            },
        };
        let remaining = self.limit.saturating_sub(live).saturating_sub(charged);
        Decision::new(outcome, self.limit, remaining, now, turns)
    }

    /// Enters `cost` cells that fit. Returns when they are forgotten, which a grant keeps as its stamp.
    pub(crate) fn charge(&self, log: &mut dyn Words, now: Nanos, cost: u64) -> u64 {
        let end = now.0.saturating_add(self.period_ns);
        self.exchange(log, cost, |word| word <= now.0, end);
        end
    }

    /// Takes back `cost` cells that a grant entered; those that were forgotten meanwhile are gone.
    pub(crate) fn refund(&self, log: &mut dyn Words, stamp: u64, cost: u64) {
        self.exchange(log, cost, |word| word == stamp, 0);
    }

    /// When each cell is forgotten that is not at `now`.
    pub(crate) fn live(&self, log: &dyn Words, now: Nanos) -> Vec<u64> {
        (0..log.count()).map(|index| log.word(index)).filter(|end| *end > now.0).collect()
    }

    /// Enters of cells that are forgotten at `ends` as many as are missing for so many to be there: those that stay longest.
    pub(crate) fn absorb(&self, log: &mut dyn Words, mut ends: Vec<u64>, now: Nanos) {
        let missing = ends.len().saturating_sub(self.live(log, now).len());
        ends.sort_unstable_by(|a, b| b.cmp(a));
        for end in ends.into_iter().take(missing) {
            self.exchange(log, 1, |word| word <= now.0, end);
        }
    }

    /// Replaces the first `count` words that are `wanted`.
    fn exchange(&self, log: &mut dyn Words, mut count: u64, wanted: impl Fn(u64) -> bool, word: u64) {
        for index in 0..log.count() {
            if count > 0 && wanted(log.word(index)) {
                log.replace(index, word);
                count -= 1;
            }
        }
    }
}
