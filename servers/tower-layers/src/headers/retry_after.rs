//! When a refused client may come again.

use std::time::Duration;

use super::policy::{Quota, seconds_up};

/// The value of `Retry-After`: whole seconds, rounded up, at least 1, and not before the time that `RateLimit` names for any
/// limit that was violated (draft 10, section 5). `None` when waiting does not help.
pub fn retry_after_seconds(retry_after: Option<Duration>, violated: &[Quota<'_>]) -> Option<u64> {
    let more_after = violated.iter().map(|quota| quota.more_after).max().unwrap_or_default();
    retry_after.map(|wait| seconds_up(wait.max(more_after)).max(1))
}
