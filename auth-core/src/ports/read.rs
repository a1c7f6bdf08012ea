//! What is read: records by their keys and ranges of them, as one state.

use std::fmt;
use std::sync::Arc;

use super::auth_store::{AuthStoreError, Limit};
use super::commit::{Position, Version};
use crate::key::{KEY_BYTES_MAX, Key, KeyRange};
use crate::millis::Millis;

/// Keys of a read, at most.
pub const KEYS_PER_READ_MAX: usize = 128;

/// Ranges of a read, at most.
pub const RANGES_PER_READ_MAX: usize = 16;

/// Rows of one range in one read, at most.
pub const ROWS_PER_RANGE_MAX: usize = 1_000;

/// Bytes of keys and values of all ranges of a read together. A range whose turn comes when they are used up still yields
/// one row, so that who pages gets on.
pub const RANGE_BYTES_PER_READ_MAX: usize = 4 << 20;

/// Keys of one scan for expired records, at most.
pub const EXPIRED_PER_SCAN_MAX: usize = 1_000;

/// From which end a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From its first key.
    Ascending,
    /// From its last key.
    Descending,
}

/// One range to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRead {
    /// Which keys.
    pub range: KeyRange,
    /// From which end.
    pub direction: Direction,
    /// How many rows, up to [`ROWS_PER_RANGE_MAX`].
    pub rows_max: usize,
}

impl RangeRead {
    /// What of the range is left behind a row that was read; all of it, when none was.
    #[must_use]
    pub fn rest_behind(&self, last: Option<&Key>) -> Self {
        let range = self.range.clone();
        let range = match (last, self.direction) {
            (None, _) => range,
            (Some(last), Direction::Ascending) => range.behind(last),
            (Some(last), Direction::Descending) => range.until(last),
        };
        Self { range, ..*self }
    }
}

/// What is read as one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Records by their keys.
    pub keys: Vec<Key>,
    /// Ranges of records.
    pub ranges: Vec<RangeRead>,
}

impl ReadSet {
    /// Of these keys.
    pub fn of(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().collect(), ranges: Vec::new() }
    }

    /// With one range more, from its first key.
    #[must_use]
    pub fn range(self, range: KeyRange, rows_max: usize) -> Self {
        self.ranged(RangeRead { range, direction: Direction::Ascending, rows_max })
    }

    /// With one range more, from its last key.
    #[must_use]
    pub fn latest(self, range: KeyRange, rows_max: usize) -> Self {
        self.ranged(RangeRead { range, direction: Direction::Descending, rows_max })
    }

    fn ranged(mut self, range: RangeRead) -> Self {
        self.ranges.push(range);
        self
    }

    /// Refuses a read that is beyond a limit. Every store asks this first.
    ///
    /// # Errors
    ///
    /// [`AuthStoreError::TooLarge`].
    pub fn check_limits(&self) -> Result<(), AuthStoreError> {
        Limit::Keys.hold(self.keys.len(), KEYS_PER_READ_MAX)?;
        Limit::Ranges.hold(self.ranges.len(), RANGES_PER_READ_MAX)?;
        let rows_max = self.ranges.iter().map(|range| range.rows_max).max();
        Limit::Rows.hold(rows_max.unwrap_or(0), ROWS_PER_RANGE_MAX)?;
        let key_bytes = self.keys.iter().map(|key| key.as_bytes().len()).max();
        Limit::KeyBytes.hold(key_bytes.unwrap_or(0), KEY_BYTES_MAX)
    }
}

/// A record as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it holds.
    pub value: Arc<[u8]>,
    /// To commit under the condition that it is still this one.
    pub version: Version,
    /// From when on it is gone, if ever.
    pub expires_at: Option<Millis>,
}

impl Record {
    /// Whether it is gone by this time.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// The value stays out of logs.
impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} bytes, version {}, until {:?}",
            self.value.len(),
            self.version.0,
            self.expires_at
        )
    }
}

/// A record of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// The record.
    pub record: Record,
}

impl Row {
    /// What it counts against [`RANGE_BYTES_PER_READ_MAX`].
    pub fn size_bytes(&self) -> usize {
        self.key.as_bytes().len().saturating_add(self.record.value.len())
    }
}

/// What was read of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys, or in the opposite one.
    pub rows: Vec<Row>,
    /// What of the range is left to read; `None` when nothing is.
    pub rest: Option<RangeRead>,
}

/// One state of a store, or the part of it that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The state has every commit up to this one. Whoever keeps what was read asks for the changes behind it.
    pub position: Position,
    /// For each key, in the order in which they were asked.
    pub records: Vec<Option<Record>>,
    /// For each range, in the order in which they were asked.
    pub pages: Vec<Page>,
}

/// A record that is gone for readers and still takes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredRecord {
    /// Its key. To remove it, commit a [`Delete`](super::Write::Delete) under the condition that it is
    /// [`Absent`](super::Expect::Absent): a successor that was made meanwhile stays.
    pub key: Key,
    /// Since when it is gone.
    pub expires_at: Millis,
}
