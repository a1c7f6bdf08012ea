//! How far ahead of what was used the disk is.

use ratelimit_core::{Nanos, StoredLimit};

use super::options::LEASE_DIVISOR;

/// The word to write for one in memory: some cells ahead, so that the next few charges need no disk. They are at least one
/// and never more than are left; a restart wastes what was not used of them, and admits none of them twice.
pub(super) fn written_ahead(limit: StoredLimit<'_>, size: u64, word: u64, now: Nanos) -> u64 {
    let left = limit.decide(word, 0, now).decision.remaining();
    let cells = (size / LEASE_DIVISOR).max(1).min(left);
    limit.decide(word, cells, now).next.unwrap_or(word)
}
