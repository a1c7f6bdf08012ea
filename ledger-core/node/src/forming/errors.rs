//! Why a node is in no cluster yet, or will be in none.

use std::fmt;
use std::time::Duration;

use crate::directory::DirectoryError;
use crate::peers::{ClusterId, NodeName, PeerRefusal, PromiseRefusal};

/// What a node that forms or joins a cluster waits for.
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
    /// Addresses that it was given do not answer.
    #[error(
        "no answer from {}: start the nodes there, or take addresses that belong to no node off the list",
        listed(addresses)
    )]
    Silent {
        /// The addresses.
        addresses: Vec<String>,
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
        "it sees {} nodes that want to form a cluster ({}), but was told to form one of {expected}: stop those that do \
         not belong to it, or start all with the same --bootstrap; further nodes join later with --bootstrap 0",
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
    #[error(
        "node {name} wants to form a cluster of {theirs} nodes, this one of {ours}: give all the same --bootstrap"
    )]
    OtherSize {
        /// The other node.
        name: NodeName,
        /// Its number.
        theirs: u32,
        /// This node's number.
        ours: u32,
    },
    /// Two nodes have one name.
    #[error("two nodes are called {name}: give each a --name of its own")]
    SameName {
        /// The name.
        name: NodeName,
    },
    /// A node does not see the same nodes yet.
    #[error(
        "node {name} sees other nodes than this one does ({theirs} of {ours}): give all the same addresses"
    )]
    OtherView {
        /// The other node.
        name: NodeName,
        /// How many nodes it sees.
        theirs: usize,
        /// How many this node sees.
        ours: usize,
    },
    /// Another node coordinates.
    #[error("node {name} has the lowest id and coordinates, but has not asked this one yet")]
    Coordinator {
        /// The coordinator.
        name: NodeName,
    },
    /// A node has not promised.
    #[error("node {name} has not promised itself to cluster {cluster}{}", because(refusal.as_ref()))]
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
        "it promised itself to cluster {cluster}, and neither node {coordinator}, which coordinates that, nor any other of \
         its members has said what became of it. Start that node again with the directory it had; if it is lost, this \
         node's directory must be removed: no other node can know whether the cluster exists"
    )]
    Outcome {
        /// The cluster.
        cluster: ClusterId,
        /// The coordinator.
        coordinator: NodeName,
    },
    /// No node that answers belongs to a cluster.
    #[error("none of the nodes that answer belongs to a cluster that it could join")]
    NoCluster,
    /// A cluster has not taken this node in.
    #[error("cluster {cluster} has not taken it in{}", after(reason.as_deref()))]
    Admission {
        /// The cluster.
        cluster: ClusterId,
        /// What was said last.
        reason: Option<String>,
    },
}

/// A node will be in no cluster. The process should end: what it promised stays promised, and a new start goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormingError {
    /// It took too long.
    #[error("no cluster within {} s: {waiting}", after.as_secs_f64())]
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

fn because(refusal: Option<&PromiseRefusal>) -> String {
    refusal.map_or_else(String::new, |refusal| format!(": {refusal}"))
}

fn after(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
