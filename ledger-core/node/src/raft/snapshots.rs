//! What the engine has to do with snapshots: the log is released, and a peer's snapshot is put in place.

use std::time::Duration;

use ledger_core::ledger_state::LedgerState;
use ledger_core::ports::LogId;
use openraft::async_runtime::watch::WatchReceiver;

use super::consensus::{Consensus, ConsensusError};
use super::retention::RetentionView;
use super::state_machine::{SnapshotContent, apply_to};
use super::{Snapshot, SnapshotMeta, record, wire};
use crate::peers::PeerFuture;
use crate::peers::messages::WireVote;
use crate::snapshots::{PreparedSnapshot, SnapshotTaker};

/// How long the engine may take to note a position; after it the log is released with the next one.
const NOTE_WAIT: Duration = Duration::from_secs(5);

impl Consensus {
    /// Lets the engine purge what no member is to get from the log any more, and never past what is durable in the state
    /// store: the snapshot that it takes for this is a reference to that position.
    pub async fn release_log(&self, durable: u64) -> Result<(), ConsensusError> {
        self.raft.trigger().snapshot().await.map_err(|_| ConsensusError::Stopped)?;
        let wait = self.raft.wait(Some(NOTE_WAIT));
        let noted = wait.metrics(
            |metrics| metrics.snapshot.as_ref().map(|id| id.index) >= Some(durable),
            "the durable position is noted",
        );
        if noted.await.is_err() {
            // It notes an earlier one first, or stops: then it is watched by others.
            return Ok(());
        }
        match self.retention.purge_target(&self.retention_view(durable)) {
            Some(target) => self.raft.trigger().purge_log(target).await.map_err(|_| ConsensusError::Stopped),
            None => Ok(()),
        }
    }

    /// Lets go of the log as far as a peer's content has been put in its place, whatever is kept for others: what this node
    /// had differed, and so may its entries.
    pub async fn release_replaced(&self, durable: u64) -> Result<(), ConsensusError> {
        self.raft.trigger().snapshot().await.map_err(|_| ConsensusError::Stopped)?;
        let wait = self.raft.wait(Some(NOTE_WAIT));
        let is_noted = |index: Option<u64>| index >= Some(durable);
        let noted = wait.metrics(
            |metrics| is_noted(metrics.snapshot.as_ref().map(|id| id.index)),
            "the durable position is noted",
        );
        if noted.await.is_err() {
            return Ok(());
        }
        self.raft.trigger().purge_log(durable).await.map_err(|_| ConsensusError::Stopped)
    }

    /// Keeps what comes after an entry for this node itself.
    pub fn hold_log_here(&self, last: u64) {
        self.retention.hold_here(last);
    }

    /// This node does not need the end of its log any more.
    pub fn release_log_here(&self) {
        self.retention.release_here();
    }

    /// Whether a part of the log is held for a member that is sent a snapshot.
    pub fn holds_log(&self) -> bool {
        self.retention.is_held()
    }

    fn retention_view(&self, durable: u64) -> RetentionView {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.iter().flatten();
        let bounds = self.retention.bounds;
        RetentionView {
            durable,
            matched: replication.map(|(id, matched)| (*id, matched.as_ref().map(|id| id.index))).collect(),
            kept_from: self.log.first_within(bounds.kept),
            held_from: self.log.first_within(bounds.held),
        }
    }
}

impl SnapshotTaker for Consensus {
    fn vote(&self) -> WireVote {
        let metrics = self.raft.metrics();
        wire::wire_vote(&metrics.borrow_watched().vote)
    }

    fn take(&self, vote: WireVote, snapshot: PreparedSnapshot) -> PeerFuture<'_, Result<WireVote, String>> {
        Box::pin(async move {
            let last_membership =
                record::decode_membership(&snapshot.header.membership).map_err(|error| error.to_string())?;
            let last_log_id = Some(record::engine_log_id(snapshot.header.applied));
            let meta = SnapshotMeta { last_log_id, last_membership };
            let snapshot = Snapshot { meta, snapshot: SnapshotContent::Prepared(Box::new(snapshot)) };
            let answer = self.raft.install_full_snapshot(wire::engine_vote(&vote), snapshot).await;
            answer.map(|answer| wire::wire_vote(&answer.vote)).map_err(|error| error.to_string())
        })
    }

    fn last_log_index(&self) -> Option<u64> {
        self.status().last_log_index
    }

    fn has_entry(&self, id: LogId) -> bool {
        self.log.has(&record::engine_log_id(id))
    }

    fn replay(&self, state: &mut LedgerState, through: u64) -> Result<(), String> {
        let mut next = state.last_applied().map_or(0, |id| id.index + 1);
        while next <= through {
            let entries = self.log.read_some(next, through + 1).map_err(|error| error.to_string())?;
            if entries.is_empty() {
                return Err(format!("the log does not have entry {next}"));
            }
            for entry in &entries {
                apply_to(state, entry).map_err(|error| error.to_string())?;
                next = entry.log_id.index + 1;
            }
        }
        Ok(())
    }
}
