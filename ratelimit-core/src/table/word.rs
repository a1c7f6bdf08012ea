//! The atomic word that a table is made of: the processor's, or one of a model checker.

use std::sync::atomic::{AtomicU64, Ordering};

/// Attempts at a word that another thread holds, before the processor is given away.
const SPINS_MAX: u32 = 64;

/// One atomic word of 64 bits. The tests put a model checker's word here.
pub(crate) trait Word: Sized + Send + Sync {
    /// A word.
    fn new(value: u64) -> Self;
    /// `count` words that are 0; `None` when there is no memory for them.
    fn zeroed(count: usize) -> Option<Box<[Self]>>;
    /// Reads (acquire).
    fn load(&self) -> u64;
    /// Writes (release).
    fn store(&self, value: u64);
    /// Writes `new` when it holds `current` (acquire and release); may fail without reason.
    fn replace(&self, current: u64, new: u64) -> Result<(), u64>;
    /// Writes the larger of what it holds and `value`.
    fn raise(&self, value: u64);
    /// Waits a moment; `patience` is over when whoever is waited for may need this processor.
    fn pause(patience: Patience);
}

/// Whether waiting has lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It has begun.
    Left,
    /// It has lasted.
    Over,
}

/// Waiting for a word that another thread holds.
#[derive(Default)]
pub(super) struct Wait {
    spins: u32,
}

impl Wait {
    pub(super) fn pause<W: Word>(&mut self) {
        W::pause(if self.spins < SPINS_MAX { Patience::Left } else { Patience::Over });
        self.spins = self.spins.saturating_add(1);
    }
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        AtomicU64::new(value)
    }

    fn zeroed(count: usize) -> Option<Box<[Self]>> {
        // From the system as zero pages (`alloc_zeroed`): what is never used never becomes resident.
        bytemuck::try_zeroed_slice_box(count).ok()
    }

    #[inline]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    #[inline]
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Release);
    }

    #[inline]
    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    fn raise(&self, value: u64) {
        self.fetch_max(value, Ordering::AcqRel);
    }

    fn pause(patience: Patience) {
        match patience {
            Patience::Left => std::hint::spin_loop(),
            // It may be waiting for this processor.
            Patience::Over => std::thread::yield_now(),
        }
    }
}
