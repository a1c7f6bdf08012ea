//! Why a node is in no cluster yet, or will be in none.

use std::fmt;
use std::time::Duration;

use crate::directory::DirectoryError;
use crate::peers::{ClusterId, NodeName, PeerRefusal, PromiseRefusal};

/// What a node that forms or joins a cluster waits for: facts, most of which pass by themselves. What to do when they do not
/// is in [`Waiting::remedy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Waiting {
    /// It has not looked around yet.
    #[error("it has not looked around yet")]
    FirstLook,
    /// Addresses are not known.
    #[error("the addresses of its peers are not known: {reason}")]
    Discovery {
        /// What discovery said.
        reason: String,
    },
    /// Addresses that it was given give no usable answer.
    #[error("no usable answer yet from {}", listed(peers))]
    Silent {
        /// The addresses, each with the reason.
        peers: Vec<SilentPeer>,
    },
    /// It sees fewer nodes than it expects.
    #[error("it sees {seen} of {expected} nodes, itself included")]
    TooFew {
        /// How many it sees.
        seen: usize,
        /// How many it expects.
        expected: u32,
    },
    /// It sees more nodes than it expects.
    #[error(
        "it sees {} nodes that want to form a cluster ({}), and was told to form one of {expected}",
        seen.len(),
        listed(seen)
    )]
    TooMany {
        /// The nodes, by name.
        seen: Vec<NodeName>,
        /// How many it expects.
        expected: u32,
    },
    /// A node expects another number.
    #[error("node {name} wants to form a cluster of {theirs} nodes, this one of {ours}")]
    OtherSize {
        /// The other node.
        name: NodeName,
        /// Its number.
        theirs: u32,
        /// This node's number.
        ours: u32,
    },
    /// Two nodes have one name.
    #[error("two nodes are called {name}")]
    SameName {
        /// The name.
        name: NodeName,
    },
    /// A node does not see the same nodes yet.
    #[error("node {name} has not seen the same nodes yet (it sees {theirs}, this one {ours})")]
    OtherView {
        /// The other node.
        name: NodeName,
        /// How many nodes it sees.
        theirs: usize,
        /// How many this node sees.
        ours: usize,
    },
    /// Another node coordinates.
    #[error("node {name} coordinates, as it has the lowest id, and asks this one next")]
    Coordinator {
        /// The coordinator.
        name: NodeName,
    },
    /// A node has not promised.
    #[error("node {name} has not promised itself to cluster {cluster} yet{}", because(refusal.as_ref()))]
    Promises {
        /// The cluster that this node coordinates.
        cluster: ClusterId,
        /// The other node.
        name: NodeName,
        /// What it said.
        refusal: Option<PromiseRefusal>,
    },
    /// This node promised and does not know the outcome.
    #[error(
        "it promised itself to cluster {cluster}; node {coordinator}, which coordinates that, tells the outcome next"
    )]
    Outcome {
        /// The cluster.
        cluster: ClusterId,
        /// The coordinator.
        coordinator: NodeName,
    },
    /// No node that answers belongs to a cluster.
    #[error("no node that answers belongs to a cluster that it could join yet{}", without(silent))]
    NoCluster {
        /// Addresses that give no usable answer, each with the reason.
        silent: Vec<SilentPeer>,
    },
    /// A cluster has not taken this node in.
    #[error("cluster {cluster} has not taken it in yet{}", after(reason.as_deref()))]
    Admission {
        /// The cluster.
        cluster: ClusterId,
        /// What was said last.
        reason: Option<String>,
    },
}

/// An address that gives no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentPeer {
    /// The address.
    pub address: String,
    /// What the transport or the node there said: nobody listens, a certificate does not fit, it starts.
    pub reason: String,
}

impl fmt::Display for SilentPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.reason)
    }
}

impl Waiting {
    /// What an operator does about it when it does not pass; `None` when there is nothing to say.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Silent { .. } => {
                "start the nodes there, make their certificates fit, or take addresses that belong to no node off the list"
            }
            Self::TooMany { .. } => {
                "stop those that do not belong to it, or start all with the same --bootstrap; further nodes join later with \
                 --bootstrap 0"
            }
            Self::OtherSize { .. } => "give all the same --bootstrap",
            Self::SameName { .. } => "give each a --name of its own",
            Self::OtherView { .. } => "give all the same addresses",
            Self::Coordinator { .. } | Self::Promises { .. } => {
                "look at what that node says, then start all again"
            }
            Self::Outcome { .. } => {
                "neither that node nor any other member has told it. Start that node again with the directory it had; if it is \
                 lost, this node's directory must be removed: no other node can know whether the cluster exists"
            }
            Self::NoCluster { .. } => {
                "start a node of the cluster there, or give the addresses of those that run"
            }
            Self::FirstLook | Self::Discovery { .. } | Self::TooFew { .. } | Self::Admission { .. } => {
                return None;
            }
        })
    }
}

/// A node will be in no cluster. The process should end: what it promised stays promised, and a new start goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormingError {
    /// It took too long.
    #[error("no cluster within {} s: {waiting}{}", after.as_secs_f64(), advice(waiting))]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// For what.
        waiting: Waiting,
    },
    /// There are two clusters.
    #[error("the peers belong to two clusters, {one} and {other}: name the addresses of one of them only")]
    TwoClusters {
        /// One.
        one: ClusterId,
        /// The other.
        other: ClusterId,
    },
    /// A cluster refuses this node for good.
    #[error("cluster {cluster} does not take this node in: {refusal}")]
    Refused {
        /// The cluster.
        cluster: ClusterId,
        /// Why.
        refusal: PeerRefusal,
    },
    /// Another node has this node's id.
    #[error(
        "the node at {address} has this node's id {node_id}: one of the two directories is a copy of the other. Remove the \
         copy's, a new node gets an id of its own"
    )]
    Copied {
        /// Where it is.
        address: String,
        /// The id of both.
        node_id: u64,
    },
    /// The directory holds a ledger, which a new cluster would not have.
    #[error(
        "the data directory holds a ledger already: start it with --bootstrap 1 and let the other nodes join it with \
         --bootstrap 0, or give a directory that is empty"
    )]
    HoldsLedger,
    /// A cluster of a number of nodes that does not work.
    #[error("a cluster is formed of 2 to {max} nodes, not of {given}; more join later, with --bootstrap 0")]
    Size {
        /// What was asked for.
        given: u32,
        /// The most that works.
        max: usize,
    },
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Whoever runs the node stopped it.
    #[error("it was stopped before it belonged to a cluster")]
    Stopped,
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn without(silent: &[SilentPeer]) -> String {
    if silent.is_empty() { String::new() } else { format!("; no usable answer from {}", listed(silent)) }
}

fn advice(waiting: &Waiting) -> String {
    waiting.remedy().map_or_else(String::new, |remedy| format!(". What to do: {remedy}"))
}

fn because(refusal: Option<&PromiseRefusal>) -> String {
    refusal.map_or_else(String::new, |refusal| format!(": {refusal}"))
}

fn after(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
