//! Applies committed entries to the [`AppliedLedger`].
//!
//! The state is durable on its own: the flusher writes it to the state store with its position in the
//! log. A snapshot is therefore a reference to that position, enough for the engine to purge the log; what is sent to
//! other members is a file, the newest that the log goes on from.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use ledger_core::command::Outcome;
use ledger_core::ledger_state::LedgerState;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use super::log::Log;
use super::network::MemberAddresses;
use super::{EngineLogId, Entry, LedgerRaft, Snapshot, SnapshotMeta, StoredMembershipOf, record};
use crate::applied_state::AppliedLedger;
use crate::counters::{CounterCells, add};
use crate::failure::{FailedPart, FailureCell, PanicReport, SharedError, shared};
use crate::flusher::Flusher;
use crate::snapshots::{InstallError, Installer, PreparedSnapshot, SnapshotDesk, SnapshotToSend};

/// What is behind a snapshot of the engine.
#[derive(Debug)]
pub(crate) enum SnapshotContent {
    /// The state store of this node holds it.
    Position,
    /// A file that can be sent.
    File(Arc<SnapshotToSend>),
    /// One that came from a peer, verified and stored beside the present content.
    Prepared(Box<PreparedSnapshot>),
}

/// A snapshot that is not one of a peer's cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("the engine asks to install a snapshot that no peer sent")]
struct NotFromAPeer;

/// Applies entries, one after the other.
#[derive(Clone)]
pub(crate) struct StateMachine {
    pub ledger: Arc<AppliedLedger>,
    pub flusher: Flusher,
    pub flush_bytes: usize,
    pub overlay_bytes_max: usize,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
    pub log: Log,
    pub desk: SnapshotDesk,
    pub installer: Arc<Installer>,
    pub addresses: MemberAddresses,
}

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

/// Applies the entry that is next.
pub(super) fn apply_to(state: &mut LedgerState, entry: &Entry) -> Result<Option<Outcome>, SharedError> {
    let at = record::port_log_id(&entry.log_id);
    let expected = state.last_applied().map_or(0, |id| id.index + 1);
    if at.index != expected {
        return Err(shared(NotNext { expected, found: at.index }));
    }
    match &entry.payload {
        EntryPayload::Blank => {
            state.apply_blank(at);
            Ok(None)
        }
        EntryPayload::Normal(data) => state.apply(at, data.proposal()).map(Some).map_err(shared),
        EntryPayload::Membership(membership) => {
            let encoded = record::encode_membership(Some(&entry.log_id), membership).map_err(shared)?;
            state.apply_membership(at, encoded);
            Ok(None)
        }
    }
}

impl StateMachine {
    fn apply_entry(&self, entry: &Entry) -> Result<(Option<Outcome>, usize), SharedError> {
        let mut state = self.ledger.write().map_err(shared)?;
        let outcome = apply_to(&mut state, entry)?;
        if let EntryPayload::Membership(membership) = &entry.payload {
            self.addresses.replace(membership);
        }
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
        Ok(Some(Snapshot { meta, snapshot: SnapshotContent::Position }))
    }
}

impl StateMachine {
    /// The newest file that the log goes on from.
    fn snapshot_file(&self) -> io::Result<Option<Snapshot>> {
        let Some(durable) = self.flusher.durable_index() else { return Ok(None) };
        let Some(file) = self.desk.newest(self.log.purged_index(), durable) else { return Ok(None) };
        let last_membership = record::decode_membership(&file.membership).map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: Some(record::engine_log_id(file.last)), last_membership };
        Ok(Some(Snapshot { meta, snapshot: SnapshotContent::File(file) }))
    }

    async fn install(&self, meta: &SnapshotMeta, prepared: PreparedSnapshot) -> Result<(), SharedError> {
        let last = record::engine_log_id(prepared.header.applied);
        if meta.last_log_id != Some(last) {
            return Err(shared(NotFromAPeer));
        }
        match self.installer.publish(prepared).await {
            // Everything in it is applied.
            Ok(()) | Err(InstallError::Older { .. }) => Ok(()),
            Err(error) => Err(shared(error)),
        }
    }
}

impl RaftStateMachine<LedgerRaft> for StateMachine {
    type SnapshotData = SnapshotContent;
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
        meta: &SnapshotMeta,
        snapshot: SnapshotContent,
    ) -> Result<(), io::Error> {
        let SnapshotContent::Prepared(prepared) = snapshot else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, NotFromAPeer));
        };
        self.install(meta, *prepared).await.map_err(|error| {
            self.failure.report(FailedPart::StateStore, Arc::clone(&error));
            io::Error::other(error)
        })
    }

    /// For a follower: a file when there is one that helps it, otherwise the position that a new one will be behind.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match self.snapshot_file()? {
            Some(snapshot) => Ok(Some(snapshot)),
            None => self.durable_snapshot(),
        }
    }
}

impl RaftSnapshotBuilder<LedgerRaft> for StateMachine {
    type SnapshotData = SnapshotContent;

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
