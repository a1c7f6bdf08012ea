//! Changes of the membership, asked for on any node and carried out by the leader.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::ClusterParts;
use super::leader_calls::AskError;
use crate::peers::messages::{self, MembershipAnswer, MembershipRequest, ReadIndexRequest};
use crate::peers::{MEMBER_TEXT_BYTES_MAX, MemberRecord, PeerMethod, PeerRefusal};
use crate::raft::{ConsensusError, Members};

/// How long adding a node waits for it to catch up and vote; after it that goes on by itself.
pub(crate) const ADD_WAIT: Duration = Duration::from_secs(30);
/// How long a follower waits for the leader's answer: longer than the leader itself needs.
const ASK_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a change waits for somebody to lead: longer than a few elections.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a leader may take to confirm that a quorum answers it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Leaders that are asked to take a node out, when the lead moves meanwhile.
const LEADERS_MAX: usize = 20;
/// How long whoever takes the leader out waits for its successor.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(2);

/// A change of the membership that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MembershipChange {
    /// The node receives everything. It votes once it has caught up and there is a vote to give.
    Learner {
        /// The node.
        node_id: u64,
        /// Where the change stands in the log.
        log_index: u64,
    },
    /// The node votes.
    Voter {
        /// The node.
        node_id: u64,
        /// Where the change stands in the log.
        log_index: u64,
    },
    /// The node is no member any more.
    Removed {
        /// The node.
        node_id: u64,
        /// Where the change stands in the log.
        log_index: u64,
    },
}

/// The membership did not change, or the lead stayed where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// This ledger was opened without a way to peers.
    #[error("this ledger runs alone: start it as a member of a cluster")]
    Alone,
    /// Nobody leads. Nothing was done.
    #[error("no leader is known: try again in a second")]
    NoLeader {
        /// Who may lead.
        leader: Option<u64>,
    },
    /// There is no such member.
    #[error("node {node_id} is no member of this cluster")]
    NotMember {
        /// The node.
        node_id: u64,
    },
    /// The node is a member but does not vote.
    #[error("node {node_id} does not vote: wait until it has caught up")]
    NotVoter {
        /// The node.
        node_id: u64,
    },
    /// A record that peers could not use.
    #[error("the record of node {node_id} cannot be used: {reason}")]
    Record {
        /// The node.
        node_id: u64,
        /// What is wrong.
        reason: String,
    },
    /// The name belongs to another member that is alive.
    #[error("the name {name} belongs to node {node_id}, which is alive: give the new node another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        node_id: u64,
    },
    /// The number belongs to another directory: it was wiped, or copied.
    #[error(
        "node {node_id} is known with another name or incarnation: this directory was wiped or copied. Let it start with \
         an empty directory, under a new number"
    )]
    OtherIncarnation {
        /// The number.
        node_id: u64,
    },
    /// The last voter stays.
    #[error("node {node_id} is the only voter: add another one first")]
    LastVoter {
        /// The node.
        node_id: u64,
    },
    /// Too few of the voters answer.
    #[error(
        "of the voters that would be left, {alive} of {voters} answer: that is no quorum. Start them again first. If they are \
         lost for good, stop this node and start it with --force-new-cluster once; the others then join with empty directories"
    )]
    QuorumLost {
        /// Voters that answer.
        alive: usize,
        /// Voters that would be left.
        voters: usize,
    },
    /// No other voter has the whole log.
    #[error("no other voter is ready to lead: try again when one has caught up")]
    NoSuccessor,
    /// The cluster is full.
    #[error("a cluster has at most {max} members")]
    TooManyMembers {
        /// The limit.
        max: usize,
    },
    /// The change may or may not happen.
    #[error("the outcome is unknown ({reason}): look at the cluster's status, then repeat the call")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// Too few voters are there for any change. Nothing was done.
    #[error(
        "nothing can change: nobody leads {} of the {} voters ({}). Start those that do not run again. If they are lost for \
         good, stop this node and start it with --force-new-cluster once; the others then join with empty directories",
        voters.len() / 2 + 1,
        voters.len(),
        voters.join(", "),
    )]
    NoQuorum {
        /// The voters, by name or number.
        voters: Vec<String>,
    },
}

impl From<ConsensusError> for MembershipError {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::NotLeader { leader } => Self::NoLeader { leader },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

pub(super) async fn add(
    parts: &ClusterParts,
    member: MemberRecord,
) -> Result<MembershipChange, MembershipError> {
    in_a_cluster(parts)?;
    check_record(&member)?;
    require_quorum(parts).await?;
    if parts.consensus.status().is_leader {
        return parts.steward.add(member).await;
    }
    match ask(parts, MembershipRequest::Add(member)).await? {
        MembershipAnswer::Changed(change) => Ok(change),
        other => Err(unexpected(other)),
    }
}

/// Replaces the record of a member: it votes or not, as before.
pub(super) async fn publish(parts: &ClusterParts, member: MemberRecord) -> Result<(), MembershipError> {
    check_record(&member)?;
    if parts.consensus.status().is_leader {
        return parts.steward.take_in(member).await.map(drop);
    }
    match ask(parts, MembershipRequest::Add(member)).await? {
        MembershipAnswer::Changed(_) => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// Between two looks at who leads.
const SUCCESSOR_POLL: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) async fn remove(parts: &ClusterParts, node_id: u64) -> Result<MembershipChange, MembershipError> {
    in_a_cluster(parts)?;
    require_quorum(parts).await?;
    for _ in 0..LEADERS_MAX {
        let before = parts.consensus.status().leader;
        match remove_once(parts, node_id).await {
            Ok(Some(change)) => return Ok(change),
            // The leader, who is to be taken out, has handed over: its successor is asked.
            Ok(None) => {}
            // That it has may become known before its answer comes.
            Err(MembershipError::Unavailable { .. })
                if before == Some(node_id) && *parts.leader.borrow() != before => {}
            // Nothing was done: the lead moves, and nobody has been heard of yet.
            Err(MembershipError::NoLeader { .. }) => tokio::time::sleep(SUCCESSOR_POLL).await,
            Err(error) => return Err(error),
        }
        let mut leader = parts.leader.clone();
        let successor = leader.wait_for(|leader| leader.is_some_and(|id| id != node_id));
        // Without one the next attempt says so.
        let _ = tokio::time::timeout(SUCCESSOR_TIMEOUT, successor).await;
    }
    Err(MembershipError::NoLeader { leader: *parts.leader.borrow() })
}

/// `None` = the leader, who is to be taken out, has handed the lead over.
async fn remove_once(
    parts: &ClusterParts,
    node_id: u64,
) -> Result<Option<MembershipChange>, MembershipError> {
    let leads = parts.consensus.status().is_leader;
    if leads && node_id != parts.node_id {
        return parts.steward.remove(node_id).await.map(Some);
    }
    if leads {
        if parts.consensus.members().voters.len() <= 1 {
            return Err(MembershipError::LastVoter { node_id });
        }
        // A leader that leaves lets its successor take it out: nobody waits for an election.
        parts.steward.transfer(None).await?;
    }
    match ask(parts, MembershipRequest::Remove(node_id)).await? {
        MembershipAnswer::Changed(change) => Ok(Some(change)),
        MembershipAnswer::Transferred { .. } => Ok(None),
        other => Err(unexpected(other)),
    }
}

pub(super) async fn transfer(parts: &ClusterParts, to: Option<u64>) -> Result<u64, MembershipError> {
    in_a_cluster(parts)?;
    require_quorum(parts).await?;
    if parts.consensus.status().is_leader {
        return parts.steward.transfer(to).await;
    }
    let before = parts.consensus.status().leader;
    match ask(parts, MembershipRequest::Transfer(to)).await {
        Ok(MembershipAnswer::Transferred { leader }) => Ok(leader),
        Ok(other) => Err(unexpected(other)),
        // That another node leads may become known before the answer of the one that handed over comes.
        Err(error @ MembershipError::Unavailable { .. }) => match parts.consensus.status().leader {
            Some(leader) if Some(leader) != before && to.is_none_or(|to| to == leader) => Ok(leader),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// A node without a cluster has nobody to change anything with.
fn in_a_cluster(parts: &ClusterParts) -> Result<(), MembershipError> {
    if parts.cluster_id.is_none() { Err(MembershipError::Alone) } else { Ok(()) }
}

async fn ask(parts: &ClusterParts, request: MembershipRequest) -> Result<MembershipAnswer, MembershipError> {
    let unavailable = |reason: String| MembershipError::Unavailable { reason };
    let body = messages::encode(&request).map_err(|error| unavailable(error.to_string()))?;
    match parts.leader_calls.ask(PeerMethod::Membership, body, ASK_TIMEOUT).await {
        Ok(answer) => messages::decode(&answer).map_err(|error| unavailable(error.to_string())),
        Err(AskError::NoLeader { leader }) => Err(MembershipError::NoLeader { leader }),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// Before anything is proposed or sent: somebody leads, and a quorum confirms it. An election is waited for.
async fn require_quorum(parts: &ClusterParts) -> Result<(), MembershipError> {
    let deadline = Instant::now() + LEADER_PATIENCE;
    loop {
        match timeout_at(deadline, confirmed(parts)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ AskError::Refused { refusal: PeerRefusal::Identity { .. }, .. })) => {
                return Err(MembershipError::Unavailable { reason: error.to_string() });
            }
            Ok(Err(_)) if Instant::now() + SUCCESSOR_POLL < deadline => {
                tokio::time::sleep(SUCCESSOR_POLL).await;
            }
            Ok(Err(_)) | Err(_) => return Err(no_quorum(&parts.consensus.members())),
        }
    }
}

/// Whether whoever leads has a quorum.
async fn confirmed(parts: &ClusterParts) -> Result<(), AskError> {
    if parts.consensus.status().is_leader {
        let outcome = parts.consensus.read_index().await;
        return outcome.map(drop).map_err(|_| AskError::NoLeader { leader: None });
    }
    let body = messages::encode(&ReadIndexRequest { readers: 0 });
    let body = body.map_err(|_| AskError::NoLeader { leader: None })?;
    parts.leader_calls.ask(PeerMethod::ReadIndex, body, CONFIRM_TIMEOUT).await.map(drop)
}

fn no_quorum(members: &Members) -> MembershipError {
    let name = |id: &u64| {
        let record = members.records.get(id).and_then(Option::as_ref);
        record.map_or_else(|| id.to_string(), |record| record.identity.name.to_string())
    };
    MembershipError::NoQuorum { voters: members.voters.iter().map(name).collect() }
}

fn unexpected(answer: MembershipAnswer) -> MembershipError {
    match answer {
        MembershipAnswer::Refused(error) => error,
        other => MembershipError::Unavailable { reason: format!("the leader answered {other:?}") },
    }
}

/// The leader's side of [`ask`].
pub(super) async fn answer(
    parts: &ClusterParts,
    request: MembershipRequest,
) -> Result<MembershipAnswer, PeerRefusal> {
    let status = parts.consensus.status();
    if !status.is_leader {
        return Err(PeerRefusal::NotLeader { leader: status.leader });
    }
    let answer = match request {
        MembershipRequest::Add(member) => match check_record(&member) {
            Ok(()) => parts.steward.add(member).await.map(MembershipAnswer::Changed),
            Err(error) => Err(error),
        },
        MembershipRequest::Remove(node_id) if node_id == parts.node_id => {
            // The asking node may be this one's successor in a moment: it asks that one then.
            parts.steward.transfer(None).await.map(|leader| MembershipAnswer::Transferred { leader })
        }
        MembershipRequest::Remove(node_id) => {
            parts.steward.remove(node_id).await.map(MembershipAnswer::Changed)
        }
        MembershipRequest::Transfer(to) => {
            parts.steward.transfer(to).await.map(|leader| MembershipAnswer::Transferred { leader })
        }
    };
    Ok(answer.unwrap_or_else(MembershipAnswer::Refused))
}

pub(super) fn check_record(member: &MemberRecord) -> Result<(), MembershipError> {
    let node_id = member.identity.node_id;
    let refused = |reason: String| MembershipError::Record { node_id, reason };
    if node_id == 0 {
        return Err(refused("0 is the number of no node".to_owned()));
    }
    if member.peer_address.is_empty() {
        return Err(refused("it has no address for its peers".to_owned()));
    }
    if member.peer_address.len().max(member.client_url.len()) > MEMBER_TEXT_BYTES_MAX {
        return Err(refused(format!("an address is longer than {MEMBER_TEXT_BYTES_MAX} bytes")));
    }
    Ok(())
}
