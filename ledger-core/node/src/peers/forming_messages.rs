//! Bodies of the methods with which a cluster is formed: `NodeInfo`, `Promise`, `Settle`. They are answered by
//! `forming` for as long as the process runs.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::{ClusterId, MemberRecord, PeerIdentity};

/// The ledger's signing key in its text form, `PRIVATE+KEY+…`. Erased from memory when it is dropped, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct LedgerKey(Zeroizing<String>);

impl LedgerKey {
    /// The text of a signing key.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, a secret.
    pub fn secret_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerKey(…)")
    }
}

impl From<String> for LedgerKey {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<LedgerKey> for String {
    fn from(key: LedgerKey) -> Self {
        key.0.as_str().to_owned()
    }
}

/// `NodeInfo`: who are you, and whom do you know?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfoRequest {
    /// The asking node, with the address where it is reached: so that whoever is asked gets to know it too.
    pub asker: MemberRecord,
}

/// The answer to [`NodeInfoRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The answering node.
    pub node: MemberRecord,
    /// What it is part of.
    pub standing: Standing,
}

/// What a node is part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It waits to be taken into a cluster that exists.
    Joining,
    /// It is about to form a cluster with others.
    Forming {
        /// How many nodes it waits for, itself included.
        expected: u32,
        /// The nodes that want the same, as it saw them in its last look around, itself included, ascending by id.
        seen: Vec<MemberRecord>,
        /// Whether every address that it was given had answered then.
        complete: bool,
    },
    /// It belongs to a cluster.
    Member(MemberStanding),
}

/// What a member of a cluster tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStanding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who leads it, as far as the answering node knows.
    pub leader: Option<u64>,
    /// Its members, voters and learners, as far as the answering node knows. Empty right after it was formed.
    pub members: Vec<MemberRecord>,
    /// The asking node as this leader knows it: `None` when the answering node does not lead, or when the asking node
    /// is no member.
    pub asker: Option<KnownAsker>,
}

/// The asking node as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAsker {
    /// The member with the asking node's id.
    pub identity: PeerIdentity,
    /// Index of the last log entry that this leader knows the asking node to have acknowledged. `None` when it has not
    /// heard of it since it leads.
    pub matched_index: Option<u64>,
    /// Index of the last log entry that was committed when this was asked; a quorum confirmed then that it leads.
    pub committed_index: u64,
}

/// `Promise`: will you be a member of this cluster and of no other? The sender coordinates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// The cluster, minted by the coordinator for this attempt alone.
    pub cluster: ClusterId,
    /// All its members, ascending by node id: the first one coordinates.
    pub members: Vec<MemberRecord>,
}

/// The answer to [`PromiseRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromiseAnswer {
    /// Yes: stored, until the cluster exists or its coordinator says that it never will.
    Promised,
    /// No.
    Refused(PromiseRefusal),
}

/// Why a node does not promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PromiseRefusal {
    /// It belongs to a cluster.
    #[error("it belongs to cluster {cluster}")]
    Member {
        /// The cluster.
        cluster: ClusterId,
    },
    /// It knows of a cluster that exists already.
    #[error("it knows of cluster {cluster}, which exists already")]
    ClusterExists {
        /// The cluster.
        cluster: ClusterId,
    },
    /// It promised itself to another one.
    #[error("it promised itself to cluster {cluster}, which node {coordinator} coordinates")]
    PromisedElsewhere {
        /// The other one.
        cluster: ClusterId,
        /// Who coordinates that.
        coordinator: u64,
    },
    /// It expects another number of nodes, or none.
    #[error("it was started to form a cluster of {expected} nodes")]
    OtherSize {
        /// How many nodes it expects; 0 = it waits to join one that exists, 1 = it stays alone.
        expected: u32,
    },
    /// It sees other nodes than the members.
    #[error("it sees other nodes: {seen:?}")]
    OtherView {
        /// The ids of the nodes that it sees.
        seen: Vec<u64>,
    },
    /// It is not one of the members, or the sender is not the first of them.
    #[error("the members do not fit: {reason}")]
    OtherMembers {
        /// What does not fit.
        reason: String,
    },
    /// It ends.
    #[error("it stopped waiting")]
    Ending,
}

/// `Settle`: what becomes of a cluster that nodes promised themselves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleRequest {
    /// Does it exist? Asked by a node that promised.
    Ask {
        /// The cluster.
        cluster: ClusterId,
        /// Who coordinates it.
        coordinator: u64,
    },
    /// It will never exist: said by its coordinator.
    Dead {
        /// The cluster.
        cluster: ClusterId,
    },
}

/// The answer to [`SettleRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleAnswer {
    /// It exists, with the asking node as a member.
    Exists(Settlement),
    /// Its coordinator still collects promises.
    Open,
    /// It will never exist: only its coordinator answers so.
    Dead,
    /// The answering node cannot tell.
    Unknown,
    /// Heard.
    Noted,
}

/// A cluster that exists, for one of its first members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its ledger's key.
    pub key: LedgerKey,
    /// Its first members, ascending by node id.
    pub members: Vec<MemberRecord>,
}
