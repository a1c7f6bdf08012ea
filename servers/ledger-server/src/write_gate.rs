//! Whether a server takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use service_kit::disk::DiskState;
use tonic::Status;

use crate::errors;

/// The switch between reading and writing, and reading only. Clones share it; a new one lets writes through.
///
/// It stands before the log: what it refuses has not happened and will not.
#[derive(Debug, Clone, Default)]
pub struct WriteGate {
    disk_full: Arc<AtomicBool>,
}

impl WriteGate {
    /// Closes while the disk is [read-only](DiskState::ReadOnly), opens when it is not.
    pub fn follow_disk(&self, state: DiskState) {
        let is_full = state == DiskState::ReadOnly;
        self.disk_full.store(is_full, Ordering::Relaxed);
        metrics::gauge!("ledger_read_only").set(if is_full { 1.0 } else { 0.0 });
    }

    /// Refuses with `DISK_FULL` while the gate is closed.
    pub(crate) fn admit(&self) -> Result<(), Status> {
        if self.disk_full.load(Ordering::Relaxed) { Err(errors::disk_full()) } else { Ok(()) }
    }
}
