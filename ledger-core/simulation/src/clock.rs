//! Wall clocks of hosts: the world's time and an error of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ledger_node::Clock;

/// When a simulation begins, unix milliseconds.
pub const START_MS: u64 = 1_800_000_000_000;

/// The time of the world. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct WorldTime(Arc<AtomicU64>);

impl WorldTime {
    /// Sets the time since the beginning.
    pub fn set_us(&self, now_us: u64) {
        self.0.store(now_us, Ordering::Relaxed);
    }

    /// The true time, unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        START_MS + self.0.load(Ordering::Relaxed) / 1_000
    }
}

/// The wall clock of one host. Clones share it.
#[derive(Debug, Clone)]
pub struct HostClock {
    world: WorldTime,
    error_ms: Arc<AtomicI64>,
}

impl HostClock {
    /// A clock that is right.
    pub fn new(world: WorldTime) -> Self {
        Self { world, error_ms: Arc::default() }
    }

    /// Sets how far it is ahead of the true time; negative = behind.
    pub fn set_error_ms(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now_ms(&self) -> u64 {
        self.world.unix_ms().saturating_add_signed(self.error_ms.load(Ordering::Relaxed))
    }
}
