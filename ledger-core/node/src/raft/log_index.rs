//! The part of the log that is held in memory: all that is not durable yet, and the newest of the rest.

use std::collections::VecDeque;

use super::record::EngineVote;
use super::{EngineLogId, Entry};
use crate::log_writer::ChangeNumber;

/// Most bytes of durable entries that stay in memory (32 MiB); older ones are read from the store.
const HELD_BYTES_MAX: usize = 32 * 1_048_576;
/// An entry's share of the index beside its payload, which is held encoded and decoded.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// How finely it is known how much of the log comes after an entry (1 MiB).
const MILESTONE_BYTES: u64 = 1_048_576;

/// Entries by index without holes, and the log's bounds.
#[derive(Default)]
pub(crate) struct LogIndex {
    held: VecDeque<Held>,
    held_bytes: usize,
    durable: ChangeNumber,
    last: Option<EngineLogId>,
    purged: Option<EngineLogId>,
    /// Payload bytes that were appended since the log was opened, those that were truncated again included.
    appended_bytes: u64,
    /// Entries, and how much was appended up to and with them.
    milestones: VecDeque<(u64, u64)>,
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
            self.appended_bytes += payload as u64;
            let since = self.milestones.back().map_or(0, |(_, appended)| *appended);
            if self.appended_bytes - since >= MILESTONE_BYTES {
                self.milestones.push_back((entry.log_id.index, self.appended_bytes));
            }
            self.last = Some(entry.log_id);
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
        while self.milestones.back().is_some_and(|(index, _)| *index >= end) {
            self.milestones.pop_back();
        }
        self.last = last.max(self.purged);
    }

    /// The newest entry that at least `keep_bytes` of the log come after; `None` = the log is not known to be that long.
    pub fn end_of_surplus(&self, keep_bytes: u64) -> Option<u64> {
        let limit = self.appended_bytes.checked_sub(keep_bytes)?;
        let surplus = self.milestones.iter().take_while(|(_, appended)| *appended <= limit);
        surplus.last().map(|(index, _)| *index)
    }

    /// Drops entries up to and with `purged`.
    pub fn purge(&mut self, purged: EngineLogId) {
        while self.held.front().is_some_and(|held| held.entry.log_id.index <= purged.index) {
            self.held_bytes -= self.held.pop_front().map_or(0, |held| held.bytes);
        }
        while self.milestones.front().is_some_and(|(index, _)| *index <= purged.index) {
            self.milestones.pop_front();
        }
        self.purged = self.purged.max(Some(purged));
        self.last = self.last.max(self.purged);
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

#[cfg(test)]
mod tests {
    use ledger_core::command::{Command, Proposal};
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::{Clid, proposal_data::ProposalData};

    fn entry(index: u64, bytes: usize) -> Entry {
        let vault = "a/b".parse().unwrap();
        // Only its size matters: a page of zeroes stands for any payload of that size.
        let proposal = Proposal { time_ms: 0, command: Command::DeleteVault { vault } };
        let mut data = ProposalData::encode(proposal).unwrap();
        data.pad_for_test(bytes);
        Entry { log_id: EngineLogId::new(Clid::new(1), index), payload: EntryPayload::Normal(data) }
    }

    #[test]
    fn what_is_kept_of_the_log_is_counted_from_its_end() {
        let mut index = LogIndex::default();
        let mebibyte = 1_048_576;
        index.append((1..=10).map(|at| entry(at, mebibyte)).collect(), 1);
        assert_eq!(index.end_of_surplus(3 * mebibyte as u64), Some(7));
        assert_eq!(index.end_of_surplus(20 * mebibyte as u64), None);
        index.purge(EngineLogId::new(Clid::new(1), 5));
        assert_eq!(index.end_of_surplus(6 * mebibyte as u64), None, "it is purged already");
        assert_eq!(index.end_of_surplus(3 * mebibyte as u64), Some(7));
    }
}
