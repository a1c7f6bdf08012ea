//! What happens to a node that has no cluster yet, and what it does.

use super::errors::FormingError;
use crate::directory::Promise;
use crate::peers::{
    ClusterId, LedgerKey, MemberRecord, NodeInfo, NodeInfoRequest, PeerIdentity, PeerRefusal, PromiseAnswer,
    PromiseRequest, SettleAnswer, SettleRequest,
};

/// What a node without a cluster wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// To be taken into a cluster that exists.
    Join,
    /// To form one of so many nodes, itself included; to be taken into one that exists already.
    Form {
        /// How many, at least 2.
        nodes: u32,
    },
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub me: MemberRecord,
    pub goal: Goal,
    /// What its directory says that it promised.
    pub promise: Option<Promise>,
    pub now_ms: u64,
    pub poll_ms: u64,
    /// How long forming may take; joining has no limit.
    pub timeout_ms: u64,
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Time went by.
    Tick,
    /// Discovery answered, or failed.
    Discovered(Result<Vec<String>, String>),
    /// A peer answered a call, or did not.
    Answered { call: u64, answer: Result<Answer, CallFailure> },
    /// A peer asks.
    Asked { question: u64, from: PeerIdentity, request: Question },
}

/// What peers ask a node that has no cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    NodeInfo(NodeInfoRequest),
    Promise(PromiseRequest),
    Settle(SettleRequest),
}

/// What a node asks its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    NodeInfo(NodeInfoRequest),
    Promise(PromiseRequest),
    Settle(SettleRequest),
    Join(Admission),
}

/// Take me in: asked of a cluster's leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub node: MemberRecord,
    /// The cluster that is meant.
    pub cluster: ClusterId,
}

/// The node is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    pub cluster: ClusterId,
    pub key: LedgerKey,
}

/// What is answered to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    NodeInfo(NodeInfo),
    Promise(PromiseAnswer),
    Settle(SettleAnswer),
    Join(Admitted),
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallFailure {
    /// Whether it arrived is unknown. Without the address, which whoever calls knows.
    #[error("{0}")]
    Lost(String),
    /// The peer refused.
    #[error("{0}")]
    Refused(PeerRefusal),
}

/// What a node does, in this order: what comes after a [`Effect::Store`] is done only when that is durable.
#[derive(Debug)]
pub(super) enum Effect {
    /// Find out the addresses of peers; answered with [`Event::Discovered`].
    Discover,
    /// Ask a peer; answered with [`Event::Answered`].
    Call { call: u64, address: String, to: Option<PeerIdentity>, request: Call },
    /// Answer a peer's question.
    Reply { question: u64, answer: Result<Answer, PeerRefusal> },
    /// Make this durable. An error ends the node.
    Store(Change),
    /// The node belongs to a cluster: the machine is done.
    Finish(Formed),
    /// The node will belong to none: the machine is done.
    Fail(FormingError),
}

/// A change of what the directory remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Promise.
    Promise(Promise),
    /// Take the promise back.
    Release,
    /// Found the cluster that all promised themselves to.
    Found { cluster: ClusterId },
    /// Take the key of the cluster that this node promised itself to.
    Settle { cluster: ClusterId, key: LedgerKey },
    /// Take cluster and key of the cluster that took this node in.
    Adopt { cluster: ClusterId, key: LedgerKey },
}

/// How a node came into its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Formed {
    /// It coordinated and founded it.
    Founded,
    /// It promised and was told.
    Settled,
    /// It was taken in.
    Joined,
}

/// Mints ids of clusters.
pub(super) type Mint<'a> = &'a mut dyn FnMut() -> ClusterId;
