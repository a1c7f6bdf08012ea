//! The engine's log on top of a [`LogStore`]: readable at once, durable a little later.
//!
//! An append goes into the [`LogIndex`], where every reader sees it, and into the stream of the
//! [`LogWriter`], whose thread makes whole groups of changes durable and then tells the engine, in order.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, stream};
use ledger_core::planted_bugs::{PlantedBug, is_planted};
use ledger_core::ports::{LogChange, LogRecord, LogStore, StoreError};
use openraft::errors::LeaderChanged;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamError, LeaderBoundedStreamResult, RaftLogReader, RaftLogStorage,
};
use openraft::{LogState, OptionalSend};

use super::log_index::LogIndex;
use super::record::{self, EngineVote};
use super::retention::LogAmount;
use super::{EngineLogId, Entry, LeaderId, LedgerRaft};
use crate::log_writer::{Completion, LogWriter, Urgency};

/// Most payload bytes that one read takes from the store (4 MiB); longer ranges take several.
const READ_BYTES_MAX: usize = 4 * 1_048_576;

/// The log of one node; clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    index: Arc<Mutex<LogIndex>>,
    store: Arc<dyn LogStore>,
    writer: LogWriter,
}

impl Log {
    /// Reads what the store remembers.
    pub fn open(store: Arc<dyn LogStore>, writer: LogWriter) -> Result<Self, StoreError> {
        let snapshot = store.snapshot()?;
        let mut index = LogIndex::new(
            snapshot.purged.map(record::engine_log_id),
            snapshot.last.map(record::engine_log_id),
        );
        index.vote = snapshot.vote.and_then(record::engine_vote);
        index.committed = snapshot.committed.map(record::engine_log_id);
        writer.set_committed(snapshot.committed);
        Ok(Self { index: Arc::new(Mutex::new(index)), store, writer })
    }

    /// Index of the last entry that was purged.
    pub fn purged_index(&self) -> Option<u64> {
        self.lock().purged().map(|id| id.index)
    }

    /// Whether the log has an entry, or ends with having purged it.
    pub(super) fn has(&self, id: &EngineLogId) -> bool {
        if self.lock().purged() == Some(*id) {
            return true;
        }
        let found = self.read_some(id.index, id.index.saturating_add(1));
        found.is_ok_and(|entries| entries.first().is_some_and(|entry| entry.log_id == *id))
    }

    /// The first index of the longest part of the log, up to its end, that is within so many entries and bytes.
    pub fn first_within(&self, amount: LogAmount) -> u64 {
        self.lock().first_within(amount.entries, amount.bytes)
    }

    /// What the writer's thread calls after each commit.
    pub fn on_durable(&self) -> crate::log_writer::OnDurable {
        let log = self.clone();
        Box::new(move |change| log.lock().set_durable(change))
    }

    /// At least one entry of a range that has any, from its start.
    pub(super) fn read_some(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let plan = self.lock().plan(from, to, READ_BYTES_MAX);
        let Some((from, stored_to)) = plan.stored else {
            return Ok(plan.held);
        };
        let records = self.store.read(from, stored_to, READ_BYTES_MAX).map_err(io::Error::other)?;
        // A range without any record lies before the log's beginning.
        let complete = records.last().is_none_or(|record| record.id.index + 1 == stored_to);
        let read_bytes: usize = records.iter().map(LogRecord::size_bytes).sum();
        let mut entries = records
            .into_iter()
            .map(record::entry)
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        // One read is one message to a peer: a full one is not made fuller.
        if complete && read_bytes < READ_BYTES_MAX / 2 {
            entries.extend(plan.held);
        }
        Ok(entries)
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, LogIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, change: LogChange, urgency: Urgency) -> io::Result<()> {
        self.writer.enqueue(vec![change], urgency, None).map(drop).map_err(io::Error::other)
    }

    /// Entries of a range, read piece by piece as the consumer takes them.
    fn pieces(&self, range: (u64, u64)) -> impl Stream<Item = io::Result<Entry>> + Send + 'static {
        let log = self.clone();
        let read = move |(from, to): (u64, u64)| {
            let log = log.clone();
            async move {
                if from >= to {
                    return None;
                }
                match log.read_some(from, to) {
                    Ok(piece) if piece.is_empty() => None,
                    Ok(piece) => {
                        let next = piece.last().map_or(to, |entry| entry.log_id.index + 1);
                        let items: Vec<io::Result<Entry>> = piece.into_iter().map(Ok).collect();
                        Some((stream::iter(items), (next, to)))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), (to, to))),
                }
            }
        };
        stream::unfold(range, read).flatten()
    }

    fn led_by(&self, leader: &LeaderId) -> Result<(), LeaderChanged<LedgerRaft>> {
        let vote = self.lock().vote;
        match vote {
            Some(vote) if vote.committed && vote.leader_id == *leader => Ok(()),
            other => Err(LeaderChanged::new(*leader, other)),
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<LedgerRaft> for Log {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<LedgerRaft>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let first = stream::iter(log.led_by(&leader).err().map(|changed| Err(changed.into())));
        // The vote is looked at after each entry was read: an entry of another leader never passes.
        let entries = self.pieces(bounds(&range)).map(move |entry| {
            let entry = entry.map_err(LeaderBoundedStreamError::IoError)?;
            log.led_by(&leader)?;
            Ok(entry)
        });
        let mut stopped = false;
        first.chain(entries).take_while(move |item| {
            let take = !stopped;
            stopped |= item.is_err();
            std::future::ready(take)
        })
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.pieces(bounds(&range))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut from, to) = bounds(&range);
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let piece = self.read_some(from, to)?;
            let Some(last) = piece.last() else { return Ok(entries) };
            from = last.log_id.index + 1;
            entries.extend(piece);
        }
    }

    async fn read_vote(&mut self) -> Result<Option<EngineVote>, io::Error> {
        Ok(self.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read_some(start, end)
    }
}

impl RaftLogStorage<LedgerRaft> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<LedgerRaft>, io::Error> {
        let index = self.lock();
        Ok(LogState { last_purged_log_id: index.purged(), last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &EngineVote) -> Result<(), io::Error> {
        self.lock().vote = Some(*vote);
        if is_planted(PlantedBug::ForgetVote) && !vote.committed {
            return Ok(());
        }
        self.writer.write(vec![LogChange::SaveVote(record::port_vote(vote))]).await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<EngineLogId>) -> Result<(), io::Error> {
        self.lock().committed = committed;
        match committed {
            Some(id) => self.enqueue(LogChange::SaveCommitted(record::port_log_id(&id)), Urgency::RideAlong),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<EngineLogId>, io::Error> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<LedgerRaft>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let changes = entries
            .iter()
            .map(|entry| record::log_record(entry).map(LogChange::Append))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        let completion: Completion =
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::other)));
        let mut index = self.lock();
        index.check_append(&entries).map_err(io::Error::other)?;
        // Under the index's lock: an entry is in the index before its change can be reported durable.
        let change =
            self.writer.enqueue(changes, Urgency::Now, Some(completion)).map_err(io::Error::other)?;
        index.append(entries, change);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<EngineLogId>) -> Result<(), io::Error> {
        self.lock().truncate_after(last_log_id);
        self.enqueue(LogChange::TruncateAfter(last_log_id.map(|id| id.index)), Urgency::Now)
    }

    /// Purging only frees space: it rides along with the next commit.
    async fn purge(&mut self, log_id: EngineLogId) -> Result<(), io::Error> {
        self.lock().purge(log_id);
        self.enqueue(LogChange::PurgeThrough(record::port_log_id(&log_id)), Urgency::RideAlong)
    }
}
