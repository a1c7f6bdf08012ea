//! How long disks take: usually some milliseconds, at times much longer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_core::ports::StoreError;
use ledger_node::DiskTiming;
use ledger_node::peers::PeerFuture;

use crate::dice::Dice;
use crate::disk::LogDisk;

/// A sync usually takes so long, milliseconds.
const SYNC_MS: std::ops::RangeInclusive<u64> = 1..=6;
/// One in so many thousand takes longer by itself.
const SLOW_PER_MILLE: u32 = 20;
const SLOW_MS: std::ops::RangeInclusive<u64> = 20..=120;

/// The timing of one host's disks. Clones share it.
#[derive(Clone)]
pub struct SimulatedTiming(Arc<Inner>);

struct Inner {
    log: LogDisk,
    state: Mutex<Timing>,
}

struct Timing {
    dice: Dice,
    stall: Duration,
}

impl fmt::Debug for SimulatedTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedTiming")
    }
}

impl SimulatedTiming {
    /// A disk that is as quick as it should be.
    pub fn new(log: LogDisk, dice: Dice) -> Self {
        let state = Mutex::new(Timing { dice, stall: Duration::ZERO });
        Self(Arc::new(Inner { log, state }))
    }

    /// From now on everything takes so much longer; zero = as usual.
    pub fn set_stall(&self, stall: Duration) {
        self.lock().stall = stall;
    }

    fn draw(&self) -> Duration {
        let mut timing = self.lock();
        let usual = Duration::from_millis(timing.dice.within(SYNC_MS));
        let is_slow = timing.dice.chance(SLOW_PER_MILLE);
        let slow = Duration::from_millis(timing.dice.within(SLOW_MS));
        usual + timing.stall + if is_slow { slow } else { Duration::ZERO }
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Timing> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskTiming for SimulatedTiming {
    fn log_synced(&self) -> PeerFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            tokio::time::sleep(self.draw()).await;
            self.0.log.sync()
        })
    }

    fn state_ready(&self) -> PeerFuture<'_, ()> {
        Box::pin(async move { tokio::time::sleep(self.draw()).await })
    }
}
