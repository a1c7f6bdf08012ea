//! The time, as the layer needs it.

use std::time::{SystemTime, UNIX_EPOCH};

use ratelimit_core::Nanos;
use tokio::time::Instant;

/// Tells the time to the layer.
///
/// # Contract
/// - G1: `now` never decreases, whatever happens to the wall clock.
/// - G2: it moves as tokio's clock does, by which requests wait.
pub trait Clock: Send + Sync + 'static {
    /// Since the limits' epoch.
    fn now(&self) -> Nanos;

    /// Seconds of Unix time: for headers that name an instant, and nothing else.
    fn unix_seconds(&self) -> u64;
}

/// The system's monotonic clock, and tokio's when that is paused. Its epoch is when it was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    epoch: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { epoch: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Nanos {
        Nanos::from_duration(self.epoch.elapsed())
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
