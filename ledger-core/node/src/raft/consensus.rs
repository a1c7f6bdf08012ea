//! The engine as the rest of the node sees it: propose, confirm leadership, release the log, stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger_core::codec::CodecError;
use ledger_core::command::{Command, Outcome, Proposal};
use ledger_core::ports::StoreError;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};

use super::log::Log;
use super::network::NoPeers;
use super::state_machine::StateMachine;
use super::{LedgerRaft, Member, NodeId, ProposalData};
use crate::applied_state::AppliedLedger;
use crate::clock::Clock;
use crate::counters::CounterCells;
use crate::failure::FailureCell;
use crate::flusher::Flusher;
use crate::log_writer::{LogWriter, OnDurable};

/// Stalls of 100 to 500 ms in `fsync` are seen on loaded disks: shorter timeouts would elect without need.
const HEARTBEAT_INTERVAL_MS: u64 = 100;
const ELECTION_TIMEOUT_MIN_MS: u64 = 500;
const ELECTION_TIMEOUT_MAX_MS: u64 = 1_000;
/// At least twice the longest election timeout: how long a leader without a quorum stays silent.
const QUORUM_LOSS_PROBE_INTERVAL_MS: u64 = 4_000;

/// What the engine is built from.
pub(crate) struct ConsensusParts {
    pub node_id: NodeId,
    pub log_store: Arc<dyn ledger_core::ports::LogStore>,
    pub log_writer: LogWriter,
    pub ledger: Arc<AppliedLedger>,
    pub flusher: Flusher,
    pub flush_bytes: usize,
    pub overlay_bytes_max: usize,
    pub clock: Arc<dyn Clock>,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
}

/// The engine did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConsensusError {
    /// Another node leads, or none.
    #[error("this node is not the leader (leader: {leader:?})")]
    NotLeader { leader: Option<NodeId> },
    /// A quorum did not answer.
    #[error("a quorum of voters did not answer")]
    NoQuorum,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
    /// A proposal could not be encoded.
    #[error(transparent)]
    Encode(#[from] CodecError),
    /// The stored log belongs to other members.
    #[error(
        "the data directory belongs to another node: its members are {members:?}, this node is {node_id}"
    )]
    ForeignMembership { node_id: NodeId, members: Vec<NodeId> },
    /// The engine refused to start on what is stored.
    #[error("the log cannot be continued: {reason}")]
    Start { reason: String },
}

/// What the engine knows about itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsensusStatus {
    pub term: u64,
    pub is_leader: bool,
    pub last_log_index: Option<u64>,
    pub purged_index: Option<u64>,
}

/// The running engine. Clones share it; it may be called from any runtime.
#[derive(Clone)]
pub(crate) struct Consensus {
    raft: Raft<LedgerRaft, StateMachine>,
    node_id: NodeId,
    ledger: Arc<AppliedLedger>,
    clock: Arc<dyn Clock>,
}

impl Consensus {
    /// Reads the log. Returns with it what the log writer has to call after each commit; start the
    /// writer with that before [`start`](Self::start).
    pub fn open_log(parts: &ConsensusParts) -> Result<(StoredLog, OnDurable), StoreError> {
        let log = Log::open(Arc::clone(&parts.log_store), parts.log_writer.clone())?;
        let on_durable = log.on_durable();
        Ok((StoredLog(log), on_durable))
    }

    /// Starts the engine on the current runtime, after it has applied what is known to be committed.
    pub async fn start(parts: ConsensusParts, log: StoredLog) -> Result<Self, ConsensusError> {
        let state_machine = StateMachine {
            ledger: Arc::clone(&parts.ledger),
            flusher: parts.flusher,
            flush_bytes: parts.flush_bytes,
            overlay_bytes_max: parts.overlay_bytes_max,
            counters: parts.counters,
            failure: parts.failure,
        };
        let start = |error: String| ConsensusError::Start { reason: error };
        let config = settings().validate().map_err(|error| start(error.to_string()))?;
        let raft = Raft::new(parts.node_id, Arc::new(config), NoPeers, log.0, state_machine)
            .await
            .map_err(|error| start(error.to_string()))?;
        Ok(Self { raft, node_id: parts.node_id, ledger: parts.ledger, clock: parts.clock })
    }

    /// Makes this node the only voter of a new ledger, or checks that it is one of the stored members.
    pub async fn bootstrap_single_voter(&self) -> Result<(), ConsensusError> {
        let initialized = self.raft.is_initialized().await.map_err(|_| ConsensusError::Stopped)?;
        if !initialized {
            let members = BTreeMap::from([(self.node_id, Member::default())]);
            let start = |error: String| ConsensusError::Start { reason: error };
            return self.raft.initialize(members).await.map_err(|error| start(error.to_string()));
        }
        let members = self.voters().await?;
        if members.contains(&self.node_id) {
            Ok(())
        } else {
            Err(ConsensusError::ForeignMembership { node_id: self.node_id, members })
        }
    }

    /// The voters of the newest membership in the log, whether it is committed or not.
    pub async fn voters(&self) -> Result<Vec<NodeId>, ConsensusError> {
        self.raft
            .with_raft_state(|state| state.membership_state.effective().voter_ids().collect())
            .await
            .map_err(|_| ConsensusError::Stopped)
    }

    /// Waits until this node leads and has applied everything that was ever committed here.
    pub async fn wait_until_recovered(&self) -> Result<(), ConsensusError> {
        let node_id = self.node_id;
        let wait = self.raft.wait(None);
        let leads = wait.metrics(|metrics| metrics.current_leader == Some(node_id), "this node leads");
        leads.await.map_err(|_| ConsensusError::Stopped)?;
        self.raft.wait_for_recovery(None).await.map_err(|_| ConsensusError::Stopped)?;
        self.confirm_leadership().await
    }

    /// Proposes a command with the time of the node's clock; answers once it is committed and applied.
    pub async fn propose(&self, command: Command) -> Result<Option<Outcome>, ConsensusError> {
        let data = ProposalData::encode(Proposal { time_ms: self.clock.now_ms(), command })?;
        match self.raft.client_write(data).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ConsensusError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(_)) => Err(ConsensusError::NotLeader { leader: None }),
            Err(RaftError::Fatal(_)) => Err(ConsensusError::Stopped),
        }
    }

    /// The read barrier (ReadIndex): a read of the applied state that starts after this returned sees
    /// everything that was committed before it was called.
    pub async fn confirm_leadership(&self) -> Result<(), ConsensusError> {
        let linearizer = match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(ConsensusError::NotLeader { leader: forward.leader_id });
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                return Err(ConsensusError::NoQuorum);
            }
            Err(RaftError::Fatal(_)) => return Err(ConsensusError::Stopped),
        };
        self.ledger.wait_applied(linearizer.read_log_id().index()).await;
        Ok(())
    }

    /// Lets the engine purge the log up to what is durable in the state store, and never further: the
    /// snapshot that it takes for this is a reference to that position.
    pub async fn release_log(&self) -> Result<(), ConsensusError> {
        self.raft.trigger().snapshot().await.map_err(|_| ConsensusError::Stopped)
    }

    /// What the engine knows about itself.
    pub fn status(&self) -> ConsensusStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        ConsensusStatus {
            term: metrics.current_term,
            is_leader: metrics.current_leader == Some(self.node_id),
            last_log_index: metrics.last_log_index,
            purged_index: metrics.purged.map(|id| id.index),
        }
    }

    /// Waits until the engine has stopped by itself, and says why.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the engine ended".to_owned();
            }
        }
    }

    /// Stops the engine; what is queued for the log is still written by the log writer.
    pub async fn shutdown(&self) {
        // The engine's task may have ended before, by an error that is reported elsewhere.
        let _ = self.raft.shutdown().await;
    }
}

/// The log as it was read, on its way into the engine.
pub(crate) struct StoredLog(Log);

fn settings() -> Config {
    Config {
        cluster_name: "strongroom".to_owned(),
        heartbeat_interval: HEARTBEAT_INTERVAL_MS,
        election_timeout_min: ELECTION_TIMEOUT_MIN_MS,
        election_timeout_max: ELECTION_TIMEOUT_MAX_MS,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(QUORUM_LOSS_PROBE_INTERVAL_MS),
        // The node decides when: after each flush of the state store.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        allow_log_reversion: Some(false),
        ..Config::default()
    }
}
