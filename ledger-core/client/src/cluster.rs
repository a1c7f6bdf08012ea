//! The cluster that serves a ledger: its members, and changing them. All need an admin token on `*`.

use std::time::Duration;

use ledger_proto::v1;

use crate::admin::admin;
use crate::client::{LedgerClient, Manner};
use crate::error::ClientError;
use crate::leader_hint::LeaderHint;
use crate::nodes::Destination;
use crate::options::UnlistedNodes;
use crate::retry::Repeatable;
use crate::wire;

/// Time for one try of a change: a new node that catches up is waited for.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A node as its cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterNode {
    /// Snowflake; 0 = not known.
    pub node_id: u64,
    /// A DNS label, which its certificate carries; empty = not known.
    pub name: String,
    /// Minted with its data directory; `None` = not known.
    pub incarnation: Option<[u8; 16]>,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where its clients reach it; empty while unknown.
    pub client_url: String,
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberRole {
    /// It leads, as far as the answering node knows.
    Leader,
    /// It votes.
    Voter,
    /// It receives everything and does not vote.
    Learner,
}

impl MemberRole {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMember {
    /// Who it is.
    pub node: ClusterNode,
    /// What it does.
    pub role: MemberRole,
    /// Index of the last entry that is known to be in its log. Only the leader knows.
    pub matched_index: Option<u64>,
    /// How long ago it answered the leader, milliseconds. Only the leader knows.
    pub last_heard_ms: Option<u64>,
    /// How far its clock is ahead of the leader's, milliseconds. Only the leader knows.
    pub clock_ahead_ms: Option<i64>,
}

/// What a node knows about its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The node that answered.
    pub node_id: u64,
    /// The cluster; `None` = this ledger runs alone.
    pub cluster_id: Option<[u8; 16]>,
    /// Raft term.
    pub term: u64,
    /// Who leads, as far as the node knows.
    pub leader_id: Option<u64>,
    /// By node id.
    pub members: Vec<ClusterMember>,
    /// Whether a change of the voters is under way.
    pub is_changing: bool,
    /// Whether a leader is known and the node has caught up with it.
    pub is_ready: bool,
    /// What the answering node was found to have otherwise than its leader; oldest first.
    pub divergences: Vec<ReplicaDivergence>,
}

/// Something that a node had otherwise than its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaDivergence {
    /// `block`, `idempotency_keys` or `membership`.
    pub kind: &'static str,
    /// `NAMESPACE/VAULT`; empty when it concerns the whole node.
    pub vault: String,
    /// Height of the block, or the log entry after which was compared.
    pub position: u64,
    /// Hash of the node's block, or its digest of the rest.
    pub own_digest: Vec<u8>,
    /// State root after that block; empty where there is none.
    pub own_state_root: Vec<u8>,
    /// The same of the leader.
    pub leader_digest: Vec<u8>,
    /// The same of the leader.
    pub leader_state_root: Vec<u8>,
    /// Who led.
    pub leader_id: u64,
    /// Voters that had what the leader had.
    pub with_leader: Vec<u64>,
    /// Voters that had what the node had.
    pub with_this_node: Vec<u64>,
    /// When it was found, unix milliseconds.
    pub found_at_ms: u64,
    /// `open`, `recovering`, `recovered`, `stays_fenced` or `leader_alone`.
    pub state: &'static str,
    /// Recoveries that were begun for it.
    pub attempts: u32,
    /// For people; may be empty.
    pub reason: String,
}

impl ClusterInfo {
    /// Where the leader serves clients, when that is known.
    pub fn leader_url(&self) -> Option<&str> {
        let leader = self.members.iter().find(|member| Some(member.node.node_id) == self.leader_id)?;
        Some(leader.node.client_url.as_str()).filter(|url| !url.is_empty())
    }
}

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipKind {
    /// It receives everything and does not vote (yet).
    Learner,
    /// It votes.
    Voter,
    /// It is no member any more.
    Removed,
}

impl MembershipKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Voter => "voter",
            Self::Removed => "removed",
        }
    }
}

/// A change of the membership that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipChange {
    /// The node.
    pub node_id: u64,
    /// What became of it.
    pub kind: MembershipKind,
    /// Where the change stands in the log.
    pub log_index: u64,
}

impl LedgerClient {
    /// Members and leader, as the node that answers knows them. The leader knows most, and is asked first.
    pub async fn cluster_info(&self) -> Result<ClusterInfo, ClientError> {
        let send = |channel, request| async move { admin(channel).get_cluster_info(request).await };
        let answer = self.call(Repeatable::Always, v1::GetClusterInfoRequest {}, send).await?;
        let info = info_from(answer)?;
        let hint = info.leader_url().and_then(|url| LeaderHint::new(info.term, url));
        if let Some(hint) = hint {
            self.inner.nodes.learn(&hint);
        }
        Ok(info)
    }

    /// Takes a node in. With a peer address alone, the cluster asks there who the node is. Repeating it is harmless:
    /// a member stays one.
    pub async fn join_cluster(&self, node: &ClusterNode) -> Result<MembershipChange, ClientError> {
        let node = v1::ClusterNode {
            node_id: node.node_id,
            name: node.name.clone(),
            incarnation: node.incarnation.map(|id| id.to_vec()).unwrap_or_default().into(),
            peer_address: node.peer_address.clone(),
            client_url: node.client_url.clone(),
        };
        let request = v1::JoinClusterRequest { node: Some(node) };
        let send = |channel, request| async move { admin(channel).join_cluster(request).await };
        change_from(self.call_as(change(Repeatable::Always), request, send).await?)
    }

    /// Takes the node that this client is for out of its cluster. Refused by a client that knows several nodes, of which
    /// any may answer: name one URL and set [`UnlistedNodes::Ignore`](crate::UnlistedNodes::Ignore).
    pub async fn leave_cluster(&self) -> Result<MembershipChange, ClientError> {
        if self.inner.nodes.count() > 1 || self.inner.options.unlisted_nodes == UnlistedNodes::Use {
            let what = "the node that leaves must be the only one that this client knows".to_owned();
            return Err(ClientError::Options { what });
        }
        let send = |channel, request| async move { admin(channel).leave_cluster(request).await };
        change_from(self.call_as(change(Repeatable::Never), v1::LeaveClusterRequest {}, send).await?)
    }

    /// Takes a node out of the cluster.
    pub async fn remove_node(&self, node_id: u64) -> Result<MembershipChange, ClientError> {
        let request = v1::RemoveNodeRequest { node_id };
        let send = |channel, request| async move { admin(channel).remove_node(request).await };
        change_from(self.call_as(change(Repeatable::Never), request, send).await?)
    }

    /// Hands the lead to a voter, or to the one that has most of the log; answers who leads then.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<u64, ClientError> {
        let request = v1::TransferLeadershipRequest { node_id: to.unwrap_or(0) };
        let send = |channel, request| async move { admin(channel).transfer_leadership(request).await };
        Ok(self.call_as(change(Repeatable::Never), request, send).await?.leader_id)
    }
}

fn change(repeatable: Repeatable) -> Manner {
    Manner { timeout: CHANGE_TIMEOUT, repeatable, destination: Destination::Leader }
}

fn info_from(answer: v1::ClusterInfo) -> Result<ClusterInfo, ClientError> {
    Ok(ClusterInfo {
        node_id: answer.node_id,
        cluster_id: some_id(&answer.cluster_id, "the cluster's id")?,
        term: answer.term,
        leader_id: Some(answer.leader_id).filter(|id| *id != 0),
        members: answer.members.into_iter().map(member_from).collect::<Result<_, _>>()?,
        is_changing: answer.is_changing,
        is_ready: answer.is_ready,
        divergences: answer.divergences.into_iter().map(divergence_from).collect(),
    })
}

fn divergence_from(found: v1::Divergence) -> ReplicaDivergence {
    use v1::divergence::{Kind, State};
    ReplicaDivergence {
        kind: match Kind::try_from(found.kind) {
            Ok(Kind::Block) => "block",
            Ok(Kind::IdempotencyKeys) => "idempotency_keys",
            Ok(Kind::Membership) => "membership",
            Ok(Kind::Unspecified) | Err(_) => "unknown",
        },
        vault: found.vault,
        position: found.position,
        own_digest: found.own_digest.to_vec(),
        own_state_root: found.own_state_root.to_vec(),
        leader_digest: found.leader_digest.to_vec(),
        leader_state_root: found.leader_state_root.to_vec(),
        leader_id: found.leader_id,
        with_leader: found.with_leader,
        with_this_node: found.with_this_node,
        found_at_ms: found.found_at_ms,
        state: match State::try_from(found.state) {
            Ok(State::Open) => "open",
            Ok(State::Recovering) => "recovering",
            Ok(State::Recovered) => "recovered",
            Ok(State::StaysFenced) => "stays_fenced",
            Ok(State::LeaderAlone) => "leader_alone",
            Ok(State::Unspecified) | Err(_) => "unknown",
        },
        attempts: found.attempts,
        reason: found.reason,
    }
}

fn member_from(member: v1::ClusterMember) -> Result<ClusterMember, ClientError> {
    use v1::cluster_member::Role;
    let role = match Role::try_from(member.role) {
        Ok(Role::Leader) => MemberRole::Leader,
        Ok(Role::Voter) => MemberRole::Voter,
        Ok(Role::Learner) => MemberRole::Learner,
        Ok(Role::Unspecified) | Err(_) => return Err(ClientError::Answer { what: "a member's role" }),
    };
    let node = member.node.ok_or(ClientError::Answer { what: "a member without its node" })?;
    Ok(ClusterMember {
        node: ClusterNode {
            node_id: node.node_id,
            name: node.name,
            incarnation: some_id(&node.incarnation, "a member's incarnation")?,
            peer_address: node.peer_address,
            client_url: node.client_url,
        },
        role,
        matched_index: member.matched_index,
        last_heard_ms: member.last_heard_ms,
        clock_ahead_ms: member.clock_ahead_ms,
    })
}

fn change_from(change: v1::MembershipChange) -> Result<MembershipChange, ClientError> {
    use v1::membership_change::Kind;
    let kind = match Kind::try_from(change.kind) {
        Ok(Kind::Learner) => MembershipKind::Learner,
        Ok(Kind::Voter) => MembershipKind::Voter,
        Ok(Kind::Removed) => MembershipKind::Removed,
        Ok(Kind::Unspecified) | Err(_) => return Err(ClientError::Answer { what: "a change of membership" }),
    };
    Ok(MembershipChange { node_id: change.node_id, kind, log_index: change.log_index })
}

fn some_id(bytes: &[u8], what: &'static str) -> Result<Option<[u8; 16]>, ClientError> {
    if bytes.is_empty() { Ok(None) } else { wire::id_from(bytes, what).map(Some) }
}
