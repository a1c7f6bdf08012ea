use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::redb::{BackendError, StorageBackend};

/// What a file has cost since it was opened.
#[derive(Debug, Default)]
pub(super) struct IoCounters {
    syncs: AtomicU64,
    growths: AtomicU64,
    bytes_written: AtomicU64,
    sync_failed: AtomicBool,
    was_full: AtomicBool,
}

impl IoCounters {
    /// Whether an fsync has failed. From then on the page cache may show what the disk never got.
    #[cfg(feature = "auth")]
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Relaxed)
    }

    /// Whether there was no room for something.
    #[cfg(feature = "auth")]
    pub(super) fn was_full(&self) -> bool {
        self.was_full.load(Ordering::Relaxed)
    }

    /// Notes what a call that may write said.
    fn noted(&self, result: io::Result<()>) -> io::Result<()> {
        if result.as_ref().is_err_and(is_no_room) {
            self.was_full.store(true, Ordering::Relaxed);
        }
        result
    }

    fn noted_sync(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.sync_failed.store(true, Ordering::Relaxed);
        }
        self.noted(result)
    }

    /// Calls of `fdatasync`.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How often the file grew: redb makes the new length durable with an fsync of its own.
    pub(super) fn growths(&self) -> u64 {
        self.growths.load(Ordering::Relaxed)
    }

    /// Bytes handed to the operating system.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A backend that counts what passes through it.
#[derive(Debug)]
pub(super) struct CountingBackend {
    inner: Box<dyn StorageBackend>,
    counters: Arc<IoCounters>,
}

impl CountingBackend {
    pub(super) fn new(inner: Box<dyn StorageBackend>, counters: Arc<IoCounters>) -> Self {
        Self { inner, counters }
    }
}

/// Locks pass through unchanged: they are what keeps a second process out of the file.
impl StorageBackend for CountingBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if len > self.inner.len()? {
            self.counters.growths.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.noted(self.inner.set_len(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.noted_sync(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.counters.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.counters.noted(self.inner.write(offset, data))
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
