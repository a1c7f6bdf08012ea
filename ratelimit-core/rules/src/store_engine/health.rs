//! Whether the store is trusted to decide.
//!
//! Failures weigh more than answers, so that a store that answers only half of the time is not trusted either: three in a row
//! end the trust, and so does more than one in three for a while. All requests of an [interval](FAILURE_INTERVAL) together weigh
//! no more than one failure: many may wait for one slow commit. Trust comes back by probes alone.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratelimit_core::Nanos;

/// Failures in a row after which the store is not asked any more, no two of them in one [`FAILURE_INTERVAL`].
pub const FAILURES_TO_DEGRADE: u32 = 3;
/// Probes in a row that have to succeed before it is asked again.
pub const PROBES_TO_RETURN: u32 = 3;
/// Requests that begin within this time of each other are one failure at most. Each waits about as long for its answer, so that
/// one stall of less than twice that is no outage.
pub const FAILURE_INTERVAL: Duration = Duration::from_millis(250);
/// What a failure weighs against an answer.
const FAILURE_WEIGHT: u32 = 2;

/// How a store does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether rules decide without it.
    pub is_degraded: bool,
    /// For how long they have, over all.
    pub degraded: Duration,
    /// How often that began.
    pub outages: u64,
    /// Calls that it answered with an error.
    pub errors: u64,
    /// Calls that it did not answer in time.
    pub slow: u64,
    /// Keys whose local consumption it has not been told yet.
    pub unpushed_keys: u64,
    /// Requests that were denied because no more of those could be kept.
    pub unpushed_refused: u64,
}

#[derive(Debug, Default)]
pub(super) struct Health {
    is_degraded: AtomicBool,
    score: AtomicU32,
    errors: AtomicU64,
    slow: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    since: Nanos,
    before: Duration,
    outages: u64,
    good_probes: u32,
    interval: Option<Interval>,
}

/// An interval with failures.
#[derive(Debug, Clone, Copy)]
struct Interval {
    since: Nanos,
    /// The score at its end is at most this.
    score_max: u32,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Error,
    Slow,
}

impl Health {
    pub(super) fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Acquire)
    }

    /// The store has answered.
    pub(super) fn answered(&self) {
        if self.score.load(Ordering::Relaxed) > 0 {
            // Whoever is faster has lowered it.
            let _ =
                self.score.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |score| score.checked_sub(1));
        }
    }

    /// The store has not answered. Whether the trust ends with it.
    pub(super) fn failed(&self, why: Failed, now: Nanos) -> bool {
        self.count(why);
        let mut times = self.times();
        let score_max = times.score_max(self.score.load(Ordering::Relaxed), now);
        let add = |score: u32| score.saturating_add(FAILURE_WEIGHT).min(score_max.max(score));
        let before = self
            .score
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |score| Some(add(score)))
            .unwrap_or_else(|score| score);
        if add(before) < FAILURES_TO_DEGRADE * FAILURE_WEIGHT {
            return false;
        }
        let begins = !self.is_degraded.swap(true, Ordering::AcqRel);
        if begins {
            times.since = now;
            times.good_probes = 0;
            times.outages = times.outages.saturating_add(1);
        }
        begins
    }

    fn count(&self, why: Failed) {
        let counter = match why {
            Failed::Error => &self.errors,
            Failed::Slow => &self.slow,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A probe has succeeded. Whether it was the last one that was needed.
    pub(super) fn probed(&self) -> bool {
        let mut times = self.times();
        times.good_probes = times.good_probes.saturating_add(1);
        times.good_probes >= PROBES_TO_RETURN
    }

    pub(super) fn probe_failed(&self, why: Failed) {
        self.count(why);
        self.times().good_probes = 0;
    }

    /// From now on the store decides.
    pub(super) fn trust(&self, now: Nanos) {
        let mut times = self.times();
        if self.is_degraded.swap(false, Ordering::AcqRel) {
            times.before = times.before.saturating_add(now.since(times.since));
        }
        self.score.store(0, Ordering::Relaxed);
        times.interval = None;
    }

    pub(super) fn read(&self, now: Nanos) -> StoreHealth {
        let times = self.times();
        let is_degraded = self.is_degraded();
        let lasting = if is_degraded { now.since(times.since) } else { Duration::ZERO };
        StoreHealth {
            is_degraded,
            degraded: times.before.saturating_add(lasting),
            outages: times.outages,
            errors: self.errors.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
            ..StoreHealth::default()
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// The highest score that failures of requests that began at `now` may lead to; `score` is the present one.
    fn score_max(&mut self, score: u32, now: Nanos) -> u32 {
        let is_same = |interval: &Interval| {
            // Requests end in another order than they began.
            now.since(interval.since).max(interval.since.since(now)) < FAILURE_INTERVAL
        };
        let begin = || Interval { since: now, score_max: score.saturating_add(FAILURE_WEIGHT) };
        let interval = self.interval.filter(is_same).unwrap_or_else(begin);
        self.interval = Some(interval);
        interval.score_max
    }
}
