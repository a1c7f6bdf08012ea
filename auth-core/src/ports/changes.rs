//! The feed of what was committed: by it caches and workers learn what to read again.

use std::time::Duration;

use super::commit::{Commit, Position, Write};
use crate::key::Key;
use crate::millis::Millis;

/// Commits of one read of the feed, at most.
pub const COMMITS_PER_CHANGES_MAX: usize = 1_000;

/// Bytes of keys of one read of the feed. One commit is told whatever its size.
pub const CHANGE_BYTES_PER_READ_MAX: usize = 1 << 20;

/// How long a commit stays in the feed, at least: who follows it less often reads everything anew.
pub const FEED_HORIZON: Duration = Duration::from_secs(600);

/// How many commits are in the feed, at most: the latest. At more than 1,666 commits a second they stay for less than
/// [`FEED_HORIZON`].
pub const CHANGES_KEPT_MAX: u64 = 1_000_000;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was made or replaced; its version is the commit's position.
    Put,
    /// It was removed.
    Deleted,
}

/// A commit, as the feed tells it: which records it wrote, not what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub position: Position,
    /// Its time, from whoever committed.
    pub committed_at: Millis,
    /// Its writes, in their order.
    pub keys: Vec<(Key, Changed)>,
}

impl Change {
    /// What the feed tells of a commit.
    pub fn of(commit: &Commit, position: Position, committed_at: Millis) -> Self {
        let change = |write: &Write| match write {
            Write::Put { key, .. } => (key.clone(), Changed::Put),
            Write::Delete { key } => (key.clone(), Changed::Deleted),
        };
        Self { position, committed_at, keys: commit.writes.iter().map(change).collect() }
    }

    /// What it counts against [`CHANGE_BYTES_PER_READ_MAX`].
    pub fn size_bytes(&self) -> usize {
        self.keys.iter().fold(0, |sum, (key, _)| sum.saturating_add(key.as_bytes().len()))
    }
}

/// A part of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// Whole commits in their order, none left out.
    pub changes: Vec<Change>,
    /// What to ask for next: behind the last of these, or what was asked for when there is none.
    pub next: Position,
}
