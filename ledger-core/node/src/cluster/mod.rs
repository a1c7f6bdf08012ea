//! The cluster that a node belongs to: who is in it, who leads, and how both change.

mod checkpoints;
mod clocks;
mod comparison;
mod divergence;
mod duties;
mod evidence;
mod forwarding;
mod full_disk;
mod handler;
mod key_check;
mod leader_calls;
mod membership;
mod peer_recovery;
mod removal;
mod repair_sender;
mod status;
mod steward;
mod watchdog;

pub(crate) use checkpoints::LeaderCheckpoints;
pub(crate) use clocks::{CLOCK_AHEAD_MAX_MS, PeerClocks};
pub(crate) use comparison::Comparison;
pub(crate) use divergence::DivergenceRegister;
pub(crate) use duties::{Duties, FoundError, check_identity, check_mark, found};
pub(crate) use forwarding::{forward_command, forward_writes};
pub(crate) use full_disk::FullDiskWatch;
pub(crate) use handler::{AloneHandler, NodeHandler};
pub(crate) use key_check::KeyCheck;
pub(crate) use leader_calls::LeaderCalls;
pub(crate) use peer_recovery::{Decision, FencedVault, PeerRecovery, PeerRecoveryError, PeerRecoveryParts};
pub(crate) use removal::{Removal, RemovalWatch};
pub(crate) use repair_sender::RepairSender;
pub(crate) use steward::{Steward, StewardParts};
pub(crate) use watchdog::run as watch_the_disk;

pub use divergence::{Divergence, DivergenceKind, DivergenceState, Side, read_divergences};
pub use membership::{MembershipChange, MembershipError};
pub use status::{ClusterStatus, MemberRole, MemberStatus};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ordered_watch;
use crate::peers::{
    ClusterId, MemberRecord, NodeInfo, NodeInfoRequest, PeerError, PeerMethod, PeerTransport, messages,
};
use crate::raft::Consensus;

/// Voters of a cluster unless it is told otherwise; further members receive everything and do not vote.
pub const VOTERS_MAX_DEFAULT: usize = 5;
/// Most voters that a cluster may be told to have.
pub const VOTERS_MAX: usize = 7;
/// How much of the log a member keeps for others, unless it is told otherwise (256 MiB).
pub const LOG_KEEP_BYTES_DEFAULT: u64 = 256 * 1_048_576;
/// A voter that is silent for so long is replaced, unless it is told otherwise.
pub const SILENT_AFTER_DEFAULT: Duration = Duration::from_secs(30);

/// How long a node at an address may take to say who it is.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// What makes a node a member of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The way to the peers. It is called from the node's own threads, and may be called from many at once.
    pub transport: Arc<dyn PeerTransport>,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This node, as its peers shall know it.
    pub member: MemberRecord,
    /// Most voters; members beyond are learners, and are promoted when a voter goes. Default 5, at most 7.
    pub voters_max: usize,
    /// A voter that has been silent for so long loses its vote to a learner that has caught up, or to nobody when three voters
    /// remain without it. It stays a learner: when it is back it catches up by itself. `None` = never. Default 30 s.
    pub silent_after: Option<Duration>,
    /// Linearizable reads by lease, without asking a quorum each time. Default: off.
    pub lease_reads: Option<LeaseReads>,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// How much of the log each member keeps for others that are behind, in bytes of payload, beside what is not
    /// in its state store yet. One that is further behind gets a snapshot. Default 256 MiB.
    pub log_keep_bytes: u64,
}

/// Reads by lease: the leader answers by itself for as long as no other node can have been elected. That holds only
/// while clocks run at about the same speed: monotonic ones, which nobody sets, but which stand while a machine is suspended
/// or moved. A node that was started anew grants no vote and asks for none before a lease has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseReads {
    /// How much two nodes' clocks may drift apart during one lease ([`Timing::election_max`]): the lease is
    /// shortened by it. A larger drift allows stale reads.
    pub clock_drift_max: Duration,
}

/// How quickly a lost leader is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// An election starts after a time drawn from here ...
    pub election_min: Duration,
    /// ... to here, counted from the end of the old leader's lease, which is this long.
    pub election_max: Duration,
    /// How long a leader without a quorum stays silent, so that it hinders no other: at least twice `election_max`.
    pub quorum_loss_silence: Duration,
}

impl Default for Timing {
    /// A dead leader is replaced after its lease, 500 ms, and the shorter of two times of 250 to 500 ms: about 0.8 s. Nobody
    /// is elected before 750 ms of silence: stalls of 100 to 500 ms in `fsync`, or of a whole process, are seen on loaded
    /// machines.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
            quorum_loss_silence: Duration::from_millis(1_500),
        }
    }
}

impl ClusterOptions {
    /// A member with everything else as it is by default.
    pub fn new(transport: Arc<dyn PeerTransport>, cluster_id: ClusterId, member: MemberRecord) -> Self {
        Self {
            transport,
            cluster_id,
            member,
            voters_max: VOTERS_MAX_DEFAULT,
            silent_after: Some(SILENT_AFTER_DEFAULT),
            lease_reads: None,
            timing: Timing::default(),
            log_keep_bytes: LOG_KEEP_BYTES_DEFAULT,
        }
    }
}

impl ClusterOptions {
    /// How old a quorum's last answer may be for a read by lease.
    pub(crate) fn lease(&self) -> Option<Duration> {
        self.lease_reads.map(|lease| self.timing.election_max.saturating_sub(lease.clock_drift_max))
    }
}

/// The cluster of an open ledger. Clones share it.
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<ClusterParts>);

pub(crate) struct ClusterParts {
    pub node_id: u64,
    /// `None` = the ledger runs alone.
    pub cluster_id: Option<ClusterId>,
    pub consensus: Consensus,
    pub leader_calls: LeaderCalls,
    pub steward: Steward,
    pub leader: ordered_watch::Receiver<Option<u64>>,
    /// The same, for whoever uses the node.
    pub leader_shown: watch::Receiver<Option<u64>>,
    pub ready: ordered_watch::Receiver<bool>,
    pub removal: Removal,
    /// What this node was found to have otherwise than its leader.
    pub register: DivergenceRegister,
}

/// Nobody was found at a peer address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is no way to other nodes.
    #[error("this node has no peers to ask: start it with --peer-listen")]
    Alone,
    /// This node is not, or not yet, a member itself.
    #[error("this node is no member of its cluster: ask one that is")]
    NoMember,
    /// No answer, or one that is not trusted.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The answer is none of this protocol.
    #[error("what answers at {peer_address} is no node of this release")]
    Malformed {
        /// The address.
        peer_address: String,
    },
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("node_id", &self.0.node_id)
            .field("cluster_id", &self.0.cluster_id)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// What this node knows about its cluster.
    pub fn status(&self) -> ClusterStatus {
        status::of(&self.0)
    }

    /// What this node was found to have otherwise than its leader, and what became of it; oldest first. It outlives a
    /// restart.
    pub fn divergences(&self) -> Vec<Divergence> {
        self.0.register.list()
    }

    /// Who leads as far as this node knows; changes with it.
    pub fn watch_leader(&self) -> watch::Receiver<Option<u64>> {
        self.0.leader_shown.clone()
    }

    /// Asks whoever answers at a peer address who it is, so that it can be [added](Self::add).
    ///
    /// # Errors
    /// Nobody answers there, or nobody of this cluster's authority; or this ledger runs alone.
    pub async fn find(&self, peer_address: &str) -> Result<MemberRecord, FindError> {
        let calls = self.0.leader_calls.calls.as_ref().ok_or(FindError::Alone)?;
        let mut records = self.status().members.into_iter().filter_map(|member| member.record);
        let asker =
            records.find(|record| record.identity.node_id == self.0.node_id).ok_or(FindError::NoMember)?;
        let malformed = || FindError::Malformed { peer_address: peer_address.to_owned() };
        let body = messages::encode(&NodeInfoRequest { asker }).map_err(|_| malformed())?;
        let answer = calls.call_address(peer_address, PeerMethod::NodeInfo, body, FIND_TIMEOUT).await?;
        let info: NodeInfo = messages::decode(&answer).map_err(|_| malformed())?;
        Ok(MemberRecord { peer_address: peer_address.to_owned(), ..info.node })
    }

    /// Takes a node in: it receives everything, and once it has caught up it votes, when there is a vote to give.
    /// Returns when that is decided, or after thirty seconds: it goes on by itself then. A member
    /// that is there already, with the same name and incarnation, gets its new addresses.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add(&self, member: MemberRecord) -> Result<MembershipChange, MembershipError> {
        membership::add(&self.0, member).await
    }

    /// Takes a node out, this one too. It does not come back under the same directory unless it is added again.
    ///
    /// # Errors
    /// See [`MembershipError`]: the last voter stays, and so does one without which no quorum would answer.
    pub async fn remove(&self, node_id: u64) -> Result<MembershipChange, MembershipError> {
        membership::remove(&self.0, node_id).await
    }

    /// Hands the lead to a voter, or to the one that has most of the log; answers who leads then.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64, MembershipError> {
        membership::transfer(&self.0, to).await
    }
}
