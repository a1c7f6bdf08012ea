//! What a log remembers in memory: all but the payloads.

use std::collections::{BTreeMap, VecDeque};

use ledger_core::names::VaultId;
use ledger_core::ports::{LogChange, LogExtent, LogId, LogSnapshot, SignedMark, StoredVote};

use super::change::{LogState, RecordPlace};

/// Where every record stands, and all that is not a record. It is bounded by the purge: 40 bytes a record.
#[derive(Debug, Clone, Default)]
pub(super) struct LogIndex {
    vote: Option<StoredVote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    signed: BTreeMap<VaultId, SignedMark>,
    /// Index of the first of `records`.
    first: u64,
    records: VecDeque<RecordPlace>,
    /// Only while a log is opened: the records, first and last, that stood in segments which are gone.
    /// A later purge must cover them.
    absent: Option<(u64, u64)>,
}

impl LogIndex {
    /// As the first state frame of an open describes it.
    pub(super) fn from_state(state: LogState) -> Self {
        Self {
            vote: state.vote,
            committed: state.committed,
            purged: state.purged,
            signed: state.signed.into_iter().map(|mark| (mark.vault, mark)).collect(),
            first: 0,
            records: VecDeque::new(),
            absent: state.held.map(|(first, last)| (first, last.index)),
        }
    }

    /// What the state frame of a new segment holds.
    pub(super) fn state(&self, previous_end: u64) -> LogState {
        LogState {
            previous_end,
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            held: self.extent().held.zip(self.last_record()).map(|((first, _), last)| (first, last)),
            signed: self.signed.values().copied().collect(),
        }
    }

    /// Whether a state frame describes this index.
    pub(super) fn agrees(&self, state: &LogState) -> bool {
        let held = self.extent().held;
        let same_last = self.last_record().is_none_or(|last| state.held.map(|(_, last)| last) == Some(last));
        same_last
            && held == state.held.map(|(first, last)| (first, last.index))
            && (self.vote, self.committed, self.purged) == (state.vote, state.committed, state.purged)
            && self.signed.values().eq(state.signed.iter())
    }

    pub(super) fn marks(&self) -> usize {
        self.signed.len()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.absent.is_none()
    }

    pub(super) fn snapshot(&self) -> LogSnapshot {
        LogSnapshot {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            last: self.last_record().or(self.purged),
            signed: self.signed.values().copied().collect(),
        }
    }

    pub(super) fn extent(&self) -> LogExtent {
        let count = self.records.len() as u64;
        let placed = (count > 0).then(|| (self.first, self.first.saturating_add(count - 1)));
        let held = match (self.absent, placed) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (absent, placed) => placed.or(absent),
        };
        LogExtent { held, purged: self.purged.map(|id| id.index) }
    }

    fn last_record(&self) -> Option<LogId> {
        let last = self.records.back()?;
        let index = self.first.saturating_add(self.records.len() as u64 - 1);
        Some(LogId { term: last.term, node: last.node, index })
    }

    /// The oldest segment in which a record stands.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.records.front().map(|place| place.segment)
    }

    /// The records with `from <= index < to`, with their indexes.
    pub(super) fn places(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, RecordPlace)> {
        let end = self.first.saturating_add(self.records.len() as u64);
        let from = from.max(self.first).min(end);
        let to = to.min(end).max(from);
        let position = |index: u64| usize::try_from(index - self.first).unwrap_or(self.records.len());
        (from..to).zip(self.records.range(position(from)..position(to)).copied())
    }

    /// Applies a change that [`LogExtent::after`] allowed; an append with the place of its record.
    pub(super) fn apply(&mut self, change: &LogChange, place: Option<RecordPlace>) {
        match change {
            LogChange::Append(record) => {
                if self.records.is_empty() {
                    self.first = record.id.index;
                }
                self.records.extend(place);
            }
            LogChange::SaveVote(vote) => self.vote = Some(*vote),
            LogChange::TruncateAfter(keep) => self.truncate_after(*keep),
            LogChange::PurgeThrough(id) => {
                if self.purged.is_none_or(|purged| purged.index < id.index) {
                    self.purge_through(*id);
                }
            }
            LogChange::SaveCommitted(id) => self.committed = Some(*id),
            LogChange::SaveSigned(mark) => {
                self.signed.insert(mark.vault, *mark);
            }
        }
    }

    fn truncate_after(&mut self, keep: Option<u64>) {
        let Some(keep) = keep else {
            self.records.clear();
            self.absent = None;
            return;
        };
        let kept = keep.checked_sub(self.first).map_or(0, |after| after.saturating_add(1));
        self.records.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.absent = self.absent.and_then(|(first, last)| {
            let last = last.min(keep);
            (first <= last).then_some((first, last))
        });
    }

    fn purge_through(&mut self, id: LogId) {
        let end = self.first.saturating_add(self.records.len() as u64);
        let purged = id.index.saturating_add(1).min(end).saturating_sub(self.first);
        let count = usize::try_from(purged).unwrap_or(usize::MAX).min(self.records.len());
        self.records.drain(..count);
        self.first = self.first.saturating_add(count as u64);
        self.absent = self.absent.and_then(|(first, last)| {
            let first = first.max(id.index.saturating_add(1));
            (first <= last).then_some((first, last))
        });
        self.purged = Some(id);
    }
}
