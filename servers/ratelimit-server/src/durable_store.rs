//! Counters in a file, and a clock that counts from when the file was made.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::{Decision, KeyParts, Nanos, Verdict};
use ratelimit_rules::RuleStore;
use storage_adapters::redb::rates::{RateGrant, RateOptions, RedbRateError, RedbRateStore};
use tokio::time::Instant;
use tower_layers::rate_limit::Clock;

/// A file's counters are converted to another epoch when theirs is longer ago than this: a year and a day. Time is exact for
/// nine years behind an epoch ([`HORIZON_NS`](ratelimit_core::HORIZON_NS)), so a process may run for eight.
pub const EPOCH_AGE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A file of counters.
pub struct DurableStore(RedbRateStore);

impl DurableStore {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`RedbRateError`].
    pub fn open(
        path: &Path,
        policies: Vec<Policy>,
        clock: &WallClock,
        keys_max: u64,
    ) -> Result<Self, RedbRateError> {
        let keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX);
        let options = RateOptions { keys_max, ..RateOptions::counting_from(clock.epoch) };
        RedbRateStore::open(path, policies, options, clock.now()).map(Self)
    }

    /// Why nothing is answered any more.
    pub fn failure(&self) -> Option<RedbRateError> {
        self.0.failure()
    }

    /// Makes everything durable, gives back what was written ahead, and closes the file.
    ///
    /// # Errors
    /// [`RedbRateError`]; it is closed all the same.
    pub async fn close(&self, now: Nanos) -> Result<(), RedbRateError> {
        self.0.close(now).await
    }
}

impl std::fmt::Debug for DurableStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("DurableStore").finish_non_exhaustive()
    }
}

impl RateStore for DurableStore {
    type Grant = RateGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<RateGrant>), RateStoreError> {
        self.0.check(charges, now).await
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        self.0.peek(charges, now).await
    }

    async fn refund(&self, grant: &mut Option<RateGrant>, now: Nanos) -> Result<(), RateStoreError> {
        self.0.refund(grant, now).await
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.0.reset(charges, now).await
    }
}

impl RuleStore for DurableStore {
    async fn reopen(&self, policies: Vec<Policy>, now: Nanos) -> Result<(), RateStoreError> {
        let failed =
            |error| RateStoreError::Failed { action: "take other policies", source: Box::new(error) };
        self.0.reopen(policies, now).await.map(drop).map_err(failed)
    }

    async fn probe(&self, now: Nanos) -> Result<(), RateStoreError> {
        let failed = |error| RateStoreError::Failed { action: "write a probe", source: Box::new(error) };
        self.0.probe(now).await.map_err(failed)
    }

    async fn revive(&self, now: Nanos) -> Result<(), RateStoreError> {
        // A file that is slow has not failed: nobody has to wait for another one.
        if self.0.failure().is_none() {
            return Ok(());
        }
        let failed = |error| RateStoreError::Failed { action: "make a new file", source: Box::new(error) };
        self.0.recover(now).await.map_err(failed)
    }

    fn last_known(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Option<Decision> {
        self.0.last_known(policy, key, now)
    }

    fn live_keys(&self, now: Nanos) -> u64 {
        self.0.live_keys(now)
    }

    fn overflowed(&self) -> u64 {
        self.0.overflowed()
    }
}

/// Counts from an instant of the wall clock, which is read once: from then on nothing that happens to it matters.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    epoch: Duration,
    start: Nanos,
    started: Instant,
}

impl WallClock {
    /// The clock of a file: it counts from the epoch of the file, or from now if there is none.
    ///
    /// # Errors
    /// [`RedbRateError`], when there is a file that cannot be read.
    pub fn of(path: &Path) -> Result<Self, RedbRateError> {
        Self::at(path, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The same, of a wall clock that shows this, since the beginning of 1970.
    ///
    /// An epoch that is ahead of that, or further behind than [`EPOCH_AGE_MAX`], is given up for the present: the file was made by
    /// a clock that was wrong, or long ago. Opening the file with it converts the counters. What was used is rounded up to cells,
    /// aged by as much as the two clocks are apart, and by nothing when the clock went back.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn at(path: &Path, wall: Duration) -> Result<Self, RedbRateError> {
        let recorded = RedbRateStore::recorded_epoch(path)?;
        let is_near = |epoch: &Duration| wall.checked_sub(*epoch).is_some_and(|age| age <= EPOCH_AGE_MAX);
        let epoch = recorded.filter(is_near).unwrap_or(wall);
        if let Some(recorded) = recorded.filter(|recorded| *recorded != epoch) {
            let (recorded_s, now_s) = (recorded.as_secs(), wall.as_secs());
            tracing::warn!(
                recorded_s,
                now_s,
                "the counters were made when the clock was far from what it shows now: they are converted"
            );
        }
        let start = Nanos::from_duration(wall.saturating_sub(epoch));
        Ok(Self { epoch, start, started: Instant::now() })
    }

    /// What the wall clock showed at `Nanos(0)`, since the beginning of 1970.
    pub fn epoch(&self) -> Duration {
        self.epoch
    }
}

impl Clock for WallClock {
    fn now(&self) -> Nanos {
        self.start.after(self.started.elapsed())
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
