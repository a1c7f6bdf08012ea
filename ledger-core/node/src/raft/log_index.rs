//! The part of the log that is held in memory: all that is not durable yet, and the newest of the rest.

use std::collections::VecDeque;

use super::record::EngineVote;
use super::{EngineLogId, Entry};
use crate::log_writer::ChangeNumber;

/// Most bytes of durable entries that stay in memory (32 MiB); older ones are read from the store.
const HELD_BYTES_MAX: usize = 32 * 1_048_576;
/// What an entry takes in the store beside its payload, roughly.
const STORED_OVERHEAD_BYTES: usize = 64;
/// What an entry that was there when the log was opened counts in [`LogIndex::first_within`].
const UNKNOWN_ENTRY_BYTES: u64 = 1_024;
/// An entry's share of the index beside its payload, which is held encoded and decoded.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Entries by index without holes, and the log's bounds.
#[derive(Default)]
pub(crate) struct LogIndex {
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Bytes of the newest entries, up to the last, as they are in the log: of all that came since the log was opened.
    sizes: VecDeque<u32>,
    durable: ChangeNumber,
    last: Option<EngineLogId>,
    purged: Option<EngineLogId>,
    /// The newest vote, durable or about to be.
    pub vote: Option<EngineVote>,
    /// How far the log is known to be committed.
    pub committed: Option<EngineLogId>,
}

struct Held {
    entry: Entry,
    bytes: usize,
    /// The change that makes it durable.
    change: ChangeNumber,
}

/// Where the entries of a range are.
pub(crate) struct ReadPlan {
    /// Older entries, to be read from the store: `from <= index < to`.
    pub stored: Option<(u64, u64)>,
    /// Those after them that are held.
    pub held: Vec<Entry>,
}

/// An append that would leave a hole.
#[derive(Debug, thiserror::Error)]
#[error("an append at index {given} would leave a hole: the log continues at {expected}")]
pub(crate) struct HoleError {
    given: u64,
    expected: u64,
}

impl LogIndex {
    pub fn new(purged: Option<EngineLogId>, last: Option<EngineLogId>) -> Self {
        Self { last, purged, ..Self::default() }
    }

    pub fn last(&self) -> Option<EngineLogId> {
        self.last
    }

    pub fn purged(&self) -> Option<EngineLogId> {
        self.purged
    }

    /// Checks that entries continue the log; an empty log may start anywhere.
    pub fn check_append(&self, entries: &[Entry]) -> Result<(), HoleError> {
        let mut expected = self.last.map(|id| id.index + 1);
        for entry in entries {
            let given = entry.log_id.index;
            if let Some(expected) = expected
                && expected != given
            {
                return Err(HoleError { given, expected });
            }
            expected = Some(given + 1);
        }
        Ok(())
    }

    /// Adds entries that [`check_append`](Self::check_append) allowed.
    pub fn append(&mut self, entries: Vec<Entry>, change: ChangeNumber) {
        for entry in entries {
            let payload = match &entry.payload {
                openraft::EntryPayload::Normal(data) => data.encoded().len(),
                _ => 0,
            };
            let bytes = ENTRY_OVERHEAD_BYTES + 2 * payload;
            self.last = Some(entry.log_id);
            self.sizes.push_back(u32::try_from(payload + STORED_OVERHEAD_BYTES).unwrap_or(u32::MAX));
            self.held_bytes += bytes;
            self.held.push_back(Held { entry, bytes, change });
        }
    }

    /// Drops entries after `last`; a log that ends before it stays as it is.
    pub fn truncate_after(&mut self, last: Option<EngineLogId>) {
        let end = last.map_or(0, |id| id.index + 1);
        if self.last.is_none_or(|last| last.index < end) {
            return;
        }
        while self.held.back().is_some_and(|held| held.entry.log_id.index >= end) {
            self.held_bytes -= self.held.pop_back().map_or(0, |held| held.bytes);
        }
        let dropped = self.last.map_or(0, |last| last.index + 1).saturating_sub(end);
        let left = self.sizes.len().saturating_sub(usize::try_from(dropped).unwrap_or(usize::MAX));
        self.sizes.truncate(left);
        self.last = last.max(self.purged);
    }

    /// Drops entries up to and with `purged`.
    pub fn purge(&mut self, purged: EngineLogId) {
        while self.held.front().is_some_and(|held| held.entry.log_id.index <= purged.index) {
            self.held_bytes -= self.held.pop_front().map_or(0, |held| held.bytes);
        }
        self.purged = self.purged.max(Some(purged));
        self.last = self.last.max(self.purged);
        let left = self.last.map_or(0, |last| last.index).saturating_sub(purged.index);
        while self.sizes.len() as u64 > left {
            self.sizes.pop_front();
        }
    }

    /// The first index of the longest part of the log, up to its end, that is within so many entries and bytes.
    pub fn first_within(&self, entries_max: u64, bytes_max: u64) -> u64 {
        let mut first = self.last.map_or(0, |last| last.index + 1);
        let oldest = self.purged.map_or(0, |purged| purged.index + 1);
        let (mut entries, mut bytes) = (entries_max, bytes_max);
        for size in self.sizes.iter().rev() {
            let Some(left) = bytes.checked_sub(u64::from(*size)).filter(|_| entries > 0) else { return first };
            bytes = left;
            entries -= 1;
            first = first.saturating_sub(1);
        }
        first.saturating_sub(entries.min(bytes / UNKNOWN_ENTRY_BYTES)).max(oldest)
    }

    /// Everything up to this change is durable: its entries may leave memory.
    pub fn set_durable(&mut self, change: ChangeNumber) {
        self.durable = self.durable.max(change);
        while self.held_bytes > HELD_BYTES_MAX
            && self.held.front().is_some_and(|held| held.change <= self.durable)
        {
            self.held_bytes -= self.held.pop_front().map_or(0, |held| held.bytes);
        }
    }

    /// Splits `from <= index < to` at the oldest entry that is held, stopping when `bytes_max` is reached.
    pub fn plan(&self, from: u64, to: u64, bytes_max: usize) -> ReadPlan {
        let from = from.max(self.purged.map_or(0, |id| id.index + 1));
        let to = to.min(self.last.map_or(0, |id| id.index + 1));
        if from >= to {
            return ReadPlan { stored: None, held: Vec::new() };
        }
        let first_held = self.held.front().map_or(to, |held| held.entry.log_id.index);
        let stored = (from < first_held).then_some((from, first_held.min(to)));
        let skip = usize::try_from(from.saturating_sub(first_held)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut held = Vec::new();
        for candidate in self.held.iter().skip(skip) {
            if candidate.entry.log_id.index >= to || bytes >= bytes_max {
                break;
            }
            bytes += candidate.bytes;
            held.push(candidate.entry.clone());
        }
        ReadPlan { stored, held }
    }
}
