//! Applies committed entries to the [`AppliedLedger`].
//!
//! The state is durable on its own: the flusher writes it to the state store with its position in the
//! log. A snapshot is therefore a reference to that position, enough for the engine to purge the log.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use ledger_core::command::Outcome;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use super::{EngineLogId, Entry, LedgerRaft, Snapshot, SnapshotMeta, StoredMembershipOf, record};
use crate::applied_state::AppliedLedger;
use crate::counters::{CounterCells, add};
use crate::failure::{FailedPart, FailureCell, PanicReport, SharedError, shared};
use crate::flusher::Flusher;

/// The content of a snapshot: none, the state store of this node holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurablePosition;

/// Applies entries, one after the other.
#[derive(Clone)]
pub(crate) struct StateMachine {
    pub ledger: Arc<AppliedLedger>,
    pub flusher: Flusher,
    pub flush_bytes: usize,
    pub overlay_bytes_max: usize,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
}

/// A snapshot of another node arrived.
#[derive(Debug, thiserror::Error)]
#[error("this release takes no snapshots from peers: restore this node from a snapshot file")]
struct NoInstallation;

/// Applying cannot go on because the flusher has ended.
#[derive(Debug, thiserror::Error)]
#[error("the overlay is full and the flusher has ended")]
struct FlusherEnded;

/// An entry is missing in the log: applying the next one would make another history.
#[derive(Debug, thiserror::Error)]
#[error("the log has entry {found} where entry {expected} belongs: entries are missing")]
struct NotNext {
    expected: u64,
    found: u64,
}

impl StateMachine {
    fn apply_entry(&self, entry: &Entry) -> Result<(Option<Outcome>, usize), SharedError> {
        let at = record::port_log_id(&entry.log_id);
        let mut state = self.ledger.write().map_err(shared)?;
        let expected = state.last_applied().map_or(0, |id| id.index + 1);
        if at.index != expected {
            return Err(shared(NotNext { expected, found: at.index }));
        }
        let outcome = match &entry.payload {
            EntryPayload::Blank => {
                state.apply_blank(at);
                None
            }
            EntryPayload::Normal(data) => Some(state.apply(at, data.proposal()).map_err(shared)?),
            EntryPayload::Membership(membership) => {
                let encoded = record::encode_membership(Some(&entry.log_id), membership).map_err(shared)?;
                state.apply_membership(at, encoded);
                None
            }
        };
        Ok((outcome, state.overlay_bytes()))
    }

    /// Back-pressure: an overlay at its limit is flushed before anything else is applied.
    async fn wait_for_room(&self) -> io::Result<()> {
        let mut rounds = self.flusher.rounds();
        let mut stalled = false;
        loop {
            rounds.mark_unchanged();
            let overlay_bytes = self.ledger.read().map_err(io::Error::other)?.overlay_bytes();
            if overlay_bytes < self.overlay_bytes_max {
                return Ok(());
            }
            if self.flusher.has_ended() {
                return Err(io::Error::other(FlusherEnded));
            }
            if !stalled {
                stalled = true;
                add(&self.counters.apply_stalls, 1);
            }
            self.flusher.request();
            rounds.changed().await.map_err(io::Error::other)?;
        }
    }

    fn durable_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let Some(durable) = self.flusher.durable() else { return Ok(None) };
        let last_membership = record::decode_membership(&durable.membership).map_err(io::Error::other)?;
        let meta =
            SnapshotMeta { last_log_id: Some(record::engine_log_id(durable.last_applied)), last_membership };
        Ok(Some(Snapshot { meta, snapshot: DurablePosition }))
    }
}

impl RaftStateMachine<LedgerRaft> for StateMachine {
    type SnapshotData = DurablePosition;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<EngineLogId>, StoredMembershipOf), io::Error> {
        let state = self.ledger.read().map_err(io::Error::other)?;
        let membership = record::decode_membership(state.membership()).map_err(io::Error::other)?;
        Ok((state.last_applied().map(record::engine_log_id), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<LedgerRaft>, io::Error>> + Unpin + OptionalSend,
    {
        let _report = PanicReport(self.failure.clone());
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (outcome, overlay_bytes) = self.apply_entry(&entry).map_err(|error| {
                self.failure.report(FailedPart::Apply, Arc::clone(&error));
                io::Error::other(error)
            })?;
            self.ledger.set_applied(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
            if overlay_bytes >= self.flush_bytes {
                self.flusher.request();
            }
            if overlay_bytes >= self.overlay_bytes_max {
                self.wait_for_room().await?;
            }
        }
        Ok(())
    }

    /// `force` flushes first; otherwise a node that has nothing durable has nothing to refer to.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self> {
        (force || self.flusher.durable_index().is_some()).then(|| self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        _snapshot: DurablePosition,
    ) -> Result<(), io::Error> {
        Err(io::Error::new(io::ErrorKind::Unsupported, NoInstallation))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.durable_snapshot()
    }
}

impl RaftSnapshotBuilder<LedgerRaft> for StateMachine {
    type SnapshotData = DurablePosition;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut rounds = self.flusher.rounds();
        loop {
            rounds.mark_unchanged();
            if let Some(snapshot) = self.durable_snapshot()? {
                return Ok(snapshot);
            }
            if self.flusher.has_ended() {
                return Err(io::Error::other(FlusherEnded));
            }
            self.flusher.request();
            rounds.changed().await.map_err(io::Error::other)?;
        }
    }
}
