use std::time::Duration;

/// Page cache of the file: 64 MiB, which holds the sessions of about 200,000 people.
pub const CACHE_BYTES: usize = 64 << 20;

/// Commits of one transaction, at most: so that those that come meanwhile do not wait for long.
pub const BATCH_COMMITS_MAX: usize = 1_024;

/// Bytes of all commits that are written or wait, at most: 64 MiB, each counted as 1 KiB at least. Those beyond wait to be
/// asked.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How many old ids, and how many old changes, are forgotten with each commit. More than one: a backlog shrinks.
pub const FORGOTTEN_PER_COMMIT: usize = 4;

/// Between two attempts to serve again after a failure, by the times of who asks.
pub const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthOptions {
    /// Page cache of the file, in bytes; see [`CACHE_BYTES`].
    pub cache_bytes: usize,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES }
    }
}
