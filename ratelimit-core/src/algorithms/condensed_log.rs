//! A log in one word: how the sketch counts a key of a log for which a table has no slot.

use super::{At, Compact, SlidingLog, Step};
use crate::decision::{Decision, Outcome, Turns};
use crate::ticks::{CellClock, Nanos, TICK_MAX};

/// At most `limit` cells in any period, as the [`SlidingLog`] that it is made of, and stricter: all cells are forgotten
/// together, one period after the last of them.
///
/// # Guarantees
///
/// - What the log would deny of these cells is denied. Cells less than a period apart are counted together, so an interval as
///   long as the period holds cells of one count at most.
/// - Whoever waits for a period has the whole limit again; whoever asks evenly has half of it in the long run.
///
/// State: when everything is forgotten, in units of 256 ns, rounded up; and the count, in 7 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CondensedLog {
    log: SlidingLog,
}

/// Bits of the count: a log has 64 cells at most.
const COUNT_BITS: u32 = 7;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// 56 bits of such units reach beyond any nanosecond that 64 bits can count.
const UNIT_NS: u64 = 256;
/// The last unit that is used: no state is all ones. It is later than all of time.
const UNITS_MAX: u64 = (1 << 56) - 2;

impl CondensedLog {
    pub(crate) fn new(log: SlidingLog) -> Self {
        Self { log }
    }

    /// The state in which `count` cells are forgotten at `end`.
    pub(crate) fn packed(self, end: u64, count: u64) -> u64 {
        end.div_ceil(UNIT_NS).min(UNITS_MAX) << COUNT_BITS | count.min(COUNT_MAX)
    }

    fn end(state: u64) -> u64 {
        (state >> COUNT_BITS).saturating_mul(UNIT_NS)
    }

    /// The cells that a state stands for, as a log keeps them: when each is forgotten.
    pub(crate) fn ends(self, state: u64, now: Nanos) -> Vec<u64> {
        let (end, count) = self.current(state, now.0);
        vec![end; usize::try_from(count).unwrap_or_default()]
    }

    fn current(self, state: u64, now: u64) -> (u64, u64) {
        match Self::end(state) {
            end if end > now => (end, (state & COUNT_MAX).min(self.log.limit())),
            _ => (0, 0),
        }
    }

    fn own_end(self, at: At) -> u64 {
        Nanos(at.point).after(self.log.period()).0
    }
}

impl Compact for CondensedLog {
    fn at(&self, now: Nanos) -> At {
        let now = Nanos(now.0.min(TICK_MAX));
        At { now, point: now.0 }
    }

    fn is_dead(&self, state: u64, at: At) -> bool {
        Self::end(state) <= at.point
    }

    fn decide(&self, state: u64, at: At, cost: u64) -> Step {
        let (end, count) = self.current(state, at.point);
        let limit = self.log.limit();
        let after = count.checked_add(cost).filter(|after| *after <= limit);
        let outcome = match after {
            Some(_) => Outcome::Allowed,
            None if cost > limit => Outcome::NeverFits,
            None => Outcome::Denied,
        };
        let charged = outcome == Outcome::Allowed && cost > 0;
        let next = self.packed(self.own_end(at).max(end), after.unwrap_or(count));
        let full_at = if charged { Self::end(next) } else { end };
        let turns = Turns { clock: CellClock::NANOSECONDS, retry_at: end, more_at: full_at, full_at };
        let remaining = limit.saturating_sub(after.unwrap_or(count));
        let decision = Decision::new(outcome, limit, remaining, at.now, turns);
        Step { decision, next: charged.then_some(next) }
    }

    fn debit(&self, state: u64, at: At, cost: u64) -> u64 {
        let (end, count) = self.current(state, at.point);
        let count = count.saturating_add(cost).min(self.log.limit());
        self.packed(self.own_end(at).max(end), count)
    }

    /// No word of a log: a grant of it gives nothing back.
    fn stamp(&self, _next: u64, _at: At) -> u64 {
        0
    }

    fn refund(&self, state: u64, _at: At, _stamp: u64, _cost: u64) -> u64 {
        state
    }

    /// `a`, with `b` entered. A count that was over when `b` was last charged does not count on: otherwise a cell that many
    /// keys share would be full for ever after it was full once.
    fn merge(&self, a: u64, b: u64) -> u64 {
        let period = self.log.period().as_nanos().div_ceil(u128::from(UNIT_NS));
        let period = u64::try_from(period).unwrap_or(u64::MAX);
        // A unit more, because ends are rounded up.
        let charged_at = (b >> COUNT_BITS).saturating_sub(period).saturating_sub(1);
        if a >> COUNT_BITS <= charged_at {
            return b;
        }
        (a >> COUNT_BITS).max(b >> COUNT_BITS) << COUNT_BITS | (a & COUNT_MAX).max(b & COUNT_MAX)
    }

    fn exhausted(&self, at: At) -> u64 {
        self.packed(self.own_end(at), self.log.limit())
    }

    fn used(&self, state: u64, at: At) -> u64 {
        self.current(state, at.point).1
    }

    fn clamp(&self, state: u64, at: At) -> u64 {
        let count = (state & COUNT_MAX).min(self.log.limit());
        self.packed(Self::end(state).min(self.own_end(at)), count).min(state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PERIOD_NS: u64 = 1_000_000;

    fn condensed(limit: u64) -> CondensedLog {
        CondensedLog::new(SlidingLog::new(limit, Duration::from_nanos(PERIOD_NS)).expect("a limit"))
    }

    /// The same requests of some keys that share one cell: what each is admitted, it keeps within its limit.
    fn admitted(limit: u64, requests: &[(u64, u64, u64)]) -> Vec<(u64, u64, u64)> {
        let (log, mut cell, mut now) = (condensed(limit), 0, 0);
        let mut admitted = Vec::new();
        for (wait, key, cost) in requests {
            now += wait;
            let step = log.decide(cell, log.at(Nanos(now)), *cost);
            if let Some(next) = step.next {
                cell = log.merge(cell, next);
                admitted.push((now, *key, *cost));
            }
        }
        admitted
    }

    proptest! {
        #[test]
        fn no_period_admits_more_than_the_limit(
            limit in 1..65u64,
            requests in prop::collection::vec((0..PERIOD_NS, 0..3u64, 1..20u64), 1..200),
        ) {
            let admitted = admitted(limit, &requests);
            for (from, _, _) in &admitted {
                let within = admitted.iter().filter(|(at, _, _)| (*from..from + PERIOD_NS).contains(at));
                prop_assert!(within.map(|(_, _, cost)| cost).sum::<u64>() <= limit);
            }
        }

        #[test]
        fn a_merged_state_denies_whatever_either_would_from_when_the_second_was_charged(
            limit in 1..65u64, first in (0..3 * PERIOD_NS, 1..65u64), second in (0..3 * PERIOD_NS, 1..65u64),
            later in 0..3 * PERIOD_NS, cost in 1..65u64,
        ) {
            let log = condensed(limit);
            let state = |(at, count): (u64, u64)| log.packed(at + PERIOD_NS, count.min(limit));
            let merged = log.merge(state(first), state(second));
            let at = log.at(Nanos(second.0 + later));
            for one in [first, second] {
                if log.decide(state(one), at, cost).next.is_none() {
                    prop_assert!(log.decide(merged, at, cost).next.is_none());
                }
            }
        }
    }

    #[test]
    fn a_cell_that_was_full_is_not_full_for_ever() {
        let log = condensed(5);
        let full = log.exhausted(log.at(Nanos(0)));
        let at = log.at(Nanos(3 * PERIOD_NS));
        let next = log.decide(full, at, 1).next.expect("everything is forgotten");
        assert_eq!(log.used(log.merge(full, next), at), 1);
    }

    #[test]
    fn a_period_beyond_all_of_time_is_never_over() {
        let log = CondensedLog::new(SlidingLog::new(2, Duration::from_nanos(u64::MAX)).expect("a limit"));
        let full = log.exhausted(log.at(Nanos(5)));
        assert!(full >> 63 == 0 && log.decide(full, log.at(Nanos(u64::MAX)), 1).next.is_none());
    }
}
