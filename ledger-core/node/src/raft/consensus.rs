//! The engine as the rest of the node sees it: propose, confirm leadership, release the log, stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::codec::CodecError;
use ledger_core::command::{Command, Outcome, Proposal};
use ledger_core::planted_bugs::{PlantedBug, is_planted};
use ledger_core::ports::StoreError;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use tokio::time::{Instant, timeout_at};

use super::log::Log;
use super::network::{MemberAddresses, PeerNetwork};
use super::retention::LogRetention;
use super::state_machine::StateMachine;
use super::{LedgerRaft, Member, NodeId, ProposalData};
use crate::applied_state::AppliedLedger;
use crate::clock::Clock;
use crate::cluster::{CLOCK_AHEAD_MAX_MS, PeerClocks, Timing};
use crate::counters::CounterCells;
use crate::failure::FailureCell;
use crate::flusher::Flusher;
use crate::log_writer::{LogWriter, OnDurable};
use crate::peers::{MemberRecord, PeerCalls};
use crate::snapshots::{Installer, SnapshotDesk};

/// How long after an unreachable peer the engine tries again.
const BACKOFF: &str = "100ms";
/// How long a leader waits for the first answers of a quorum before it refuses to propose.
const CLOCKS_PATIENCE: Duration = Duration::from_secs(1);
/// Most entries in one message to a peer; bytes bound it before.
const MESSAGE_ENTRIES_MAX: u64 = 4_096;

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
    /// `None` = this ledger runs alone.
    pub calls: Option<PeerCalls>,
    pub timing: Timing,
    /// How old a quorum's last answer may be for a read by lease; `None` = every read asks a quorum.
    pub lease: Option<Duration>,
    /// How much of the log stays for members that are behind.
    pub retention: Arc<LogRetention>,
    pub clocks: Arc<PeerClocks>,
    pub desk: SnapshotDesk,
    pub installer: Arc<Installer>,
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
    /// It was proposed, and the lead was lost before it was known to be committed.
    #[error("the lead was lost before the outcome was known (leader: {leader:?})")]
    OutcomeUnknown { leader: Option<NodeId> },
    /// This node leads, but the ledger has no identity yet.
    #[error("the ledger is being started")]
    Starting,
    /// This node leads, and its clock cannot be right.
    #[error(
        "the clock of this node is {ahead_ms} ms ahead of a quorum's: correct it, or let another node lead"
    )]
    ClockAhead { ahead_ms: i64 },
    /// The membership did not change.
    #[error("the membership cannot change now: {reason}")]
    Membership { reason: String },
    /// Another change is under way, or the leader has just begun to lead: it works a little later.
    #[error("another change of the membership is under way: {reason}")]
    MembershipBusy { reason: String },
    /// The leader was asked, and does not know the outcome.
    #[error("the leader answers: {reason}")]
    Leader { reason: String },
    /// The leader was asked, and its disk is nearly full: nothing was done.
    #[error("the disk of the leader is nearly full")]
    LeaderDiskFull,
    /// The leader could not be asked.
    #[error("the leader (node {leader}) does not answer: {reason}")]
    LeaderUnreachable { leader: NodeId, reason: String },
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
    pub leader: Option<NodeId>,
    pub last_log_index: Option<u64>,
    pub purged_index: Option<u64>,
}

/// The running engine. Clones share it; it may be called from any runtime.
#[derive(Clone)]
pub(crate) struct Consensus {
    pub(super) raft: Raft<LedgerRaft, StateMachine>,
    pub(super) node_id: NodeId,
    pub(super) clock: Arc<dyn Clock>,
    ledger: Arc<AppliedLedger>,
    clocks: Arc<PeerClocks>,
    lease: Option<Duration>,
    /// Until then this node grants no vote.
    pub(super) votes_from: Instant,
    pub(super) log: Log,
    pub(super) retention: Arc<LogRetention>,
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
        let addresses = MemberAddresses::default();
        let state_machine = StateMachine {
            ledger: Arc::clone(&parts.ledger),
            flusher: parts.flusher,
            flush_bytes: parts.flush_bytes,
            overlay_bytes_max: parts.overlay_bytes_max,
            counters: Arc::clone(&parts.counters),
            failure: parts.failure,
            log: log.0.clone(),
            desk: parts.desk.clone(),
            installer: Arc::clone(&parts.installer),
            addresses: addresses.clone(),
        };
        let start = |error: String| ConsensusError::Start { reason: error };
        let restart = if parts.calls.is_some() { Restart::Elected } else { Restart::LeadsOn };
        let stored = parts.log_store.snapshot().map_err(|error| start(error.to_string()))?;
        // What it told a leader before it stopped counts for as long as that leader's lease.
        let is_bound = restart == Restart::Elected && stored.vote.is_some();
        let votes_from = Instant::now() + if is_bound { parts.timing.election_max } else { Duration::ZERO };
        let mut config = settings(&parts.timing, restart);
        config.enable_elect = !is_bound;
        let config = config.validate().map_err(|error| start(error.to_string()))?;
        let network = PeerNetwork {
            calls: parts.calls,
            clocks: Arc::clone(&parts.clocks),
            addresses,
            retention: Arc::clone(&parts.retention),
            desk: parts.desk,
            counters: parts.counters,
            blocking: parts.installer.blocking,
        };
        let kept_log = log.0.clone();
        let raft = Raft::new(parts.node_id, Arc::new(config), network, log.0, state_machine)
            .await
            .map_err(|error| start(error.to_string()))?;
        let consensus = Self {
            raft,
            node_id: parts.node_id,
            ledger: parts.ledger,
            clock: parts.clock,
            clocks: parts.clocks,
            lease: parts.lease,
            votes_from,
            log: kept_log,
            retention: parts.retention,
        };
        // A sole voter needs nobody's vote: it does not wait as those do who let others go first.
        if restart == Restart::Elected && consensus.voters().await? == [consensus.node_id] {
            consensus.raft.trigger().elect(false).await.map_err(|_| ConsensusError::Stopped)?;
        }
        Ok(consensus)
    }

    /// Makes these nodes the voters of a new ledger, or checks that this node is one of the stored members.
    pub async fn bootstrap(
        &self,
        members: Vec<(NodeId, Option<MemberRecord>)>,
    ) -> Result<(), ConsensusError> {
        let initialized = self.raft.is_initialized().await.map_err(|_| ConsensusError::Stopped)?;
        if !initialized {
            let members: BTreeMap<NodeId, Member> =
                members.into_iter().map(|(id, record)| (id, Member { record })).collect();
            return match self.raft.initialize(members).await {
                // Another member was quicker, with the same members.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => Err(ConsensusError::Start { reason: error.to_string() }),
            };
        }
        let members = self.voters().await?;
        if members.contains(&self.node_id) || self.is_member() {
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
        self.check_may_propose(&command)?;
        let time_ms = self.proposal_time().await?;
        let data = ProposalData::encode(Proposal { time_ms, command })?;
        match self.raft.client_write(data).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ConsensusError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(forward))) => {
                Err(ConsensusError::OutcomeUnknown { leader: forward.leader_id })
            }
            Err(RaftError::APIError(_)) => Err(ConsensusError::NotLeader { leader: None }),
            Err(RaftError::Fatal(_)) => Err(ConsensusError::Stopped),
        }
    }

    /// Before the ledger has its identity nothing else can be applied.
    fn check_may_propose(&self, command: &Command) -> Result<(), ConsensusError> {
        let starts = matches!(command, Command::Initialise { .. });
        if !starts && self.ledger.read_directory().ledger_id().is_none() {
            let leader = self.status().leader;
            return Err(if leader == Some(self.node_id) {
                ConsensusError::Starting
            } else {
                ConsensusError::NotLeader { leader }
            });
        }
        Ok(())
    }

    /// The time of a proposal. Time in the ledger never goes back, so a leader whose clock is wrong does not set it: one that
    /// has just begun to lead waits until it has heard of a quorum's clocks.
    async fn proposal_time(&self) -> Result<u64, ConsensusError> {
        let mut answers = self.clocks.answers();
        let deadline = Instant::now() + CLOCKS_PATIENCE;
        loop {
            let time_ms = self.clock.now_ms();
            match self.ahead_of_quorum_ms(time_ms) {
                Some(ahead_ms) if ahead_ms > CLOCK_AHEAD_MAX_MS => {
                    return Err(ConsensusError::ClockAhead { ahead_ms });
                }
                Some(_) => return Ok(time_ms),
                None => {}
            }
            let status = self.status();
            if !status.is_leader {
                return Err(ConsensusError::NotLeader { leader: status.leader });
            }
            if !matches!(timeout_at(deadline, answers.changed()).await, Ok(Ok(()))) {
                return Err(ConsensusError::NoQuorum);
            }
        }
    }

    /// During a change of the voters: of the quorum that is furthest behind.
    fn ahead_of_quorum_ms(&self, time_ms: u64) -> Option<i64> {
        let metrics = self.raft.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let ahead = |voters| self.clocks.ahead_of_quorum_ms(time_ms, self.node_id, voters);
        let ahead: Option<Vec<i64>> = membership.get_joint_config().iter().map(ahead).collect();
        ahead?.into_iter().max()
    }

    /// The read barrier (ReadIndex) of a leader: an index that everything which was committed before the call is at
    /// or before. A quorum has confirmed meanwhile that this node leads, or did so lately enough for the lease. While
    /// the lead is handed over there is no lease.
    pub async fn read_index(&self) -> Result<u64, ConsensusError> {
        if is_planted(PlantedBug::StaleRead) && self.status().is_leader {
            return Ok(self.ledger.applied_index().unwrap_or(0));
        }
        let policy = match self.lease {
            Some(age_max) => LinearizerOption::new(Some(age_max), true),
            None => ReadPolicy::ReadIndex.into(),
        };
        match self.raft.get_read_linearizer(policy).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ConsensusError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ConsensusError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ConsensusError::Stopped),
        }
    }

    /// Waits until this node has confirmed that it leads and has applied everything that was committed before.
    pub async fn confirm_leadership(&self) -> Result<(), ConsensusError> {
        let index = self.read_index().await?;
        self.ledger.wait_applied(index).await;
        Ok(())
    }

    /// What is known about the clocks of the peers.
    pub fn clocks(&self) -> &PeerClocks {
        &self.clocks
    }

    /// What the engine knows about itself.
    pub fn status(&self) -> ConsensusStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        ConsensusStatus {
            term: metrics.current_term,
            is_leader: metrics.current_leader == Some(self.node_id),
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index,
            purged_index: metrics.purged.map(|id| id.index),
        }
    }

    /// Lets this node campaign once it may vote; waits for ever then.
    pub async fn begin_elections(self) {
        tokio::time::sleep_until(self.votes_from).await;
        self.raft.runtime_config().elect(true);
        std::future::pending().await
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

/// What a node does that led when it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// It leads on, in the same term: nobody else has its entries.
    LeadsOn,
    /// It leads again when it is elected. Its followers may have entries, and may have committed them, that were not
    /// on its own disk yet: leading on in the same term, it would give their places in the log to other entries, and
    /// nobody could tell one from the other.
    Elected,
}

fn settings(timing: &Timing, restart: Restart) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "strongroom".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(ms(timing.quorum_loss_silence)),
        // The node decides when: after each flush of the state store.
        snapshot_policy: SnapshotPolicy::Never,
        // And how much: see `retention`.
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        allow_log_reversion: Some(false),
        enable_leader_restore: Some(restart == Restart::LeadsOn),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    }
}
