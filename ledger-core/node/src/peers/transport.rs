//! The port to the peers: implemented over mutual TLS by the server, in memory by simulations.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::identity::{ClusterId, NodeName, PeerIdentity};

/// Most bytes of one request or answer: a page of the log, or a chunk of a snapshot, with framing (16 MiB).
pub const PEER_BODY_BYTES_MAX: usize = 16 * 1_048_576;

/// A boxed future, so that the port can be an object.
pub type PeerFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a request asks for. The numbers are on the wire and never given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum PeerMethod {
    /// Who are you, and whom do you know? Answered in every phase, also across clusters.
    NodeInfo = 1,
    /// Coordinated bootstrap: will you be in this cluster and in no other?
    Promise = 2,
    /// Coordinated bootstrap: the cluster exists, here are its key and members. Or: it will not be.
    Settle = 3,
    /// Take me in as a learner. Answered by the leader with the cluster's key and members.
    Join = 4,
    /// Raft: a vote.
    Vote = 16,
    /// Raft: would you vote?
    PreVote = 17,
    /// Raft: entries, or a heartbeat.
    Append = 18,
    /// Raft: take the lead.
    TransferLeader = 19,
    /// A snapshot is offered: how much of it is there already?
    SnapshotOffer = 24,
    /// A chunk of a snapshot.
    SnapshotChunk = 25,
    /// All of the snapshot was sent: install it.
    SnapshotInstall = 26,
    /// A follower's linearizable read: the leader confirms its lead and answers with the index to wait for.
    ReadIndex = 32,
    /// Transactions and commands that reached a follower.
    Propose = 33,
    /// A signed checkpoint for a follower's verified read.
    Checkpoint = 34,
    /// Tips of vaults, to be compared between replicas.
    Tips = 35,
    /// A member asks the leader for a change of the membership (leave, remove, transfer).
    Membership = 36,
    /// Does this member take writes, or is its disk nearly full?
    WriteState = 37,
    /// What any member has, leader or not: the witnesses when a replica differs from the leader.
    Compare = 38,
    /// A member that differs asks the leader for a snapshot of everything.
    Repair = 39,
    /// A member asks the leader for the ledger's present key: it may have been rotated while the member was no part of the
    /// cluster.
    LedgerKey = 40,
}

impl PeerMethod {
    /// All methods.
    pub const ALL: [Self; 20] = [
        Self::NodeInfo,
        Self::Promise,
        Self::Settle,
        Self::Join,
        Self::Vote,
        Self::PreVote,
        Self::Append,
        Self::TransferLeader,
        Self::SnapshotOffer,
        Self::SnapshotChunk,
        Self::SnapshotInstall,
        Self::ReadIndex,
        Self::Propose,
        Self::Checkpoint,
        Self::Tips,
        Self::Membership,
        Self::WriteState,
        Self::Compare,
        Self::Repair,
        Self::LedgerKey,
    ];

    /// The method of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| u32::from(*method as u8) == number)
    }
}

/// One request to a peer.
#[derive(Clone)]
pub struct PeerRequest {
    /// The sender's cluster; `None` before it has one.
    pub cluster: Option<ClusterId>,
    /// The sender.
    pub from: PeerIdentity,
    /// Who must answer: another node at the same address refuses. `None` while the sender does not know.
    pub to: Option<u64>,
    /// What it asks for.
    pub method: PeerMethod,
    /// The request in the encoding of its method.
    pub body: Bytes,
}

impl fmt::Debug for PeerRequest {
    /// Without the body: it may hold a cluster's key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRequest")
            .field("cluster", &self.cluster)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// A peer said no. The numbers are on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// The request belongs to another cluster.
    #[error("it belongs to cluster {theirs}, not to {}", ours.map_or_else(|| "one".to_owned(), |id| id.to_string()))]
    OtherCluster {
        /// The answering node's cluster.
        theirs: ClusterId,
        /// The cluster in the request.
        ours: Option<ClusterId>,
    },
    /// The sender is not who the membership, or its certificate, says.
    #[error("it does not accept this node: {reason}")]
    Identity {
        /// What does not fit.
        reason: String,
    },
    /// The answering node is in no cluster yet, or in another phase.
    #[error("it is not ready for that: {reason}")]
    NotReady {
        /// What it waits for.
        reason: String,
    },
    /// The answering node does not lead.
    #[error("it does not lead{}", leader.map_or_else(String::new, |id| format!(" (node {id} does)")))]
    NotLeader {
        /// Who leads, as far as it knows.
        leader: Option<u64>,
    },
    /// The request is malformed, or of a version it does not know.
    #[error("it does not understand the request: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// It is at a limit.
    #[error("it is busy")]
    Busy,
    /// It refuses what was asked, for a reason of its method.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// A request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No connection, or it broke: whether the request arrived is unknown.
    #[error("cannot reach the peer at {address}: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// No answer in time: whether the request arrived is unknown.
    #[error("the peer at {address} did not answer within {timeout:?}")]
    Timeout {
        /// Its address.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer's certificate is not that of the node that was expected.
    #[error("the peer at {address} is not who it should be: {reason}")]
    Untrusted {
        /// Its address.
        address: String,
        /// What does not fit.
        reason: String,
    },
    /// It answered no.
    #[error("the peer at {address} refused: {refusal}")]
    Refused {
        /// Its address.
        address: String,
        /// Its answer.
        refusal: PeerRefusal,
    },
}

/// How a node reaches its peers.
pub trait PeerTransport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request to an address and waits for its answer, at most `timeout`. With `expect`, the peer must prove
    /// that name. Dropping the future gives up waiting; the request may still be carried out.
    fn call<'a>(
        &'a self,
        address: &'a str,
        expect: Option<&'a NodeName>,
        request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>>;
}

/// Answers the requests of peers. The transport has checked that the sender holds a certificate of the cluster's
/// authority for the name in `request.from`; everything else the handler checks.
pub trait PeerHandler: fmt::Debug + Send + Sync + 'static {
    /// Answers one request. Dropping the future must be harmless at every point.
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>>;
}
