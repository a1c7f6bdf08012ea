//! How long disks take: usually some milliseconds, at times much longer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dice::Dice;

/// A commit usually takes so long, milliseconds.
const COMMIT_MS: std::ops::RangeInclusive<u64> = 1..=6;
/// One in so many thousand takes longer by itself.
const SLOW_PER_MILLE: u32 = 20;
const SLOW_MS: std::ops::RangeInclusive<u64> = 20..=120;

/// The timing of one host's disk. Clones share it.
#[derive(Clone)]
pub struct DiskTiming(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    stall: Duration,
}

impl fmt::Debug for DiskTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskTiming")
    }
}

impl DiskTiming {
    /// A disk that is as quick as it should be.
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State { dice, stall: Duration::ZERO })))
    }

    /// From now on everything takes so much longer; zero = as usual.
    pub fn set_stall(&self, stall: Duration) {
        self.lock().stall = stall;
    }

    /// How long the next commit takes.
    pub fn draw(&self) -> Duration {
        let mut state = self.lock();
        let usual = Duration::from_millis(state.dice.within(COMMIT_MS));
        let is_slow = state.dice.chance(SLOW_PER_MILLE);
        let slow = Duration::from_millis(state.dice.within(SLOW_MS));
        usual + state.stall + if is_slow { slow } else { Duration::ZERO }
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
