//! How full the file system is that holds the data.

use std::io;
use std::path::{Path, PathBuf};

/// From this share of use on, in percent, a warning is due.
pub const WARN_AT_PERCENT: u8 = 80;
/// From this share of use on, in percent, writes are refused: recovery needs room too.
pub const READ_ONLY_AT_PERCENT: u8 = 95;

/// What the use of the disk allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskState {
    /// Enough room.
    Ample,
    /// At or above [`WARN_AT_PERCENT`].
    Warning,
    /// At or above [`READ_ONLY_AT_PERCENT`]: refuse writes.
    ReadOnly,
}

/// Use of one file system, in bytes, as `df` counts it: room reserved for root is neither used nor available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// Occupied.
    pub used_bytes: u64,
    /// Available to this process.
    pub available_bytes: u64,
}

impl DiskUse {
    /// Measures the file system that holds `directory`.
    ///
    /// # Errors
    /// The directory's.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let status = rustix::fs::statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Self {
            used_bytes: bytes(status.f_blocks.saturating_sub(status.f_bfree)),
            available_bytes: bytes(status.f_bavail),
        })
    }

    /// Share in use, in percent, rounded up. An empty file system without room is full.
    pub fn used_percent(&self) -> u8 {
        let total = u128::from(self.used_bytes) + u128::from(self.available_bytes);
        let percent = (u128::from(self.used_bytes) * 100).div_ceil(total.max(1));
        if total == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) }
    }

    /// What this use allows.
    pub fn state(&self) -> DiskState {
        match self.used_percent() {
            READ_ONLY_AT_PERCENT.. => DiskState::ReadOnly,
            WARN_AT_PERCENT.. => DiskState::Warning,
            _ => DiskState::Ample,
        }
    }
}

/// Watches one directory's file system and tells when its state changes.
#[derive(Debug)]
pub struct DiskGuard {
    directory: PathBuf,
    state: DiskState,
}

impl DiskGuard {
    /// A guard that has seen ample room so far.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), state: DiskState::Ample }
    }

    /// Measures now, logs a change of state, and returns the state.
    ///
    /// # Errors
    /// The directory's; the last state stays.
    pub fn observe(&mut self) -> io::Result<DiskState> {
        let disk_use = DiskUse::of(&self.directory)?;
        Ok(self.enter(disk_use))
    }

    /// As [`DiskGuard::observe`] with a measurement of the caller's.
    pub fn enter(&mut self, disk_use: DiskUse) -> DiskState {
        let state = disk_use.state();
        if state != self.state {
            let directory = self.directory.display();
            let (used_percent, available_bytes) = (disk_use.used_percent(), disk_use.available_bytes);
            match state {
                DiskState::Ample => tracing::info!(%directory, used_percent, "disk has room again"),
                DiskState::Warning => {
                    tracing::warn!(%directory, used_percent, available_bytes, "disk is filling up: add room");
                }
                DiskState::ReadOnly => {
                    tracing::error!(%directory, used_percent, available_bytes, "disk is full: writes are refused");
                }
            }
            self.state = state;
        }
        state
    }

    /// The state last observed.
    pub fn state(&self) -> DiskState {
        self.state
    }
}
