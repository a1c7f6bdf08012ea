use std::time::Duration;

/// Live keys of a store, unless asked for otherwise: about 8 MiB of memory and 10 MiB of file.
pub const KEYS_MAX: usize = 100_000;

/// Page cache of the file: 16 MiB. Every row is in memory anyway; the cache holds the inner pages that a commit changes.
pub const CACHE_BYTES: usize = 16 << 20;

/// The most policies of a store.
pub const POLICIES_MAX: usize = 65_536;

/// Bytes of a policy's name.
pub const NAME_BYTES_MAX: usize = 65_535;

/// Requests that are decided or wait for the disk at a time. Those beyond wait to be asked.
pub const IN_PROGRESS_MAX: usize = 4_096;

/// The part of a limit's size that is written ahead of what was used: one in so many cells, at least one, and never more
/// than are left.
pub const LEASE_DIVISOR: u64 = 10;

/// Rows that one commit brings along when limits change, beside those that requests wait for: what a request waits for is
/// bounded, however many rows there are. A thousand rows take a few milliseconds.
pub const MOVED_AT_ONCE: usize = 1_024;

/// Between two attempts to serve again after a failure.
pub const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateOptions {
    /// Keys that may have used something of their limits at a time. A key beyond is denied.
    pub keys_max: usize,
    /// What the wall clock showed at `Nanos(0)`, since the beginning of 1970. The file keeps it: counters of a file with another
    /// epoch are converted, each up to one cell stricter.
    pub epoch: Duration,
    /// Page cache of the file, in bytes; see [`CACHE_BYTES`].
    pub cache_bytes: usize,
}

impl RateOptions {
    /// The defaults, with times that count from this instant since the beginning of 1970.
    pub fn counting_from(epoch: Duration) -> Self {
        Self { keys_max: KEYS_MAX, epoch, cache_bytes: CACHE_BYTES }
    }
}
