//! What a node knows about its cluster, as a plain value.

use std::time::Duration;

use super::{ClusterParts, Divergence};
use crate::peers::{ClusterId, MemberRecord};

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

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its number.
    pub node_id: u64,
    /// Name and addresses; `None` when it was written by a ledger that ran alone.
    pub record: Option<MemberRecord>,
    /// What it does.
    pub role: MemberRole,
    /// The last entry that is known to be in its log. Only the leader knows.
    pub matched_index: Option<u64>,
    /// How long ago it last answered the leader, in milliseconds. Only the leader knows; 0 for itself.
    pub last_heard_ms: Option<u64>,
    /// How far its clock is ahead of the leader's, in milliseconds. Only the leader knows.
    pub clock_ahead_ms: Option<i64>,
}

/// What the answering node knows about its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The answering node.
    pub node_id: u64,
    /// The cluster; `None` = this ledger runs alone.
    pub cluster_id: Option<ClusterId>,
    /// Raft term.
    pub term: u64,
    /// Who leads, as far as the answering node knows.
    pub leader: Option<u64>,
    /// Everyone, by number.
    pub members: Vec<MemberStatus>,
    /// Where the membership stands in the log.
    pub membership_index: Option<u64>,
    /// Whether a change of the voters is under way.
    pub is_changing: bool,
    /// Whether a leader is known and this node has caught up with it.
    pub is_ready: bool,
    /// Whether the answering node was taken out of the cluster, as the leader told it: it is not ready then, and does not
    /// come back by itself.
    pub is_removed: bool,
    /// What the answering node was found to have otherwise than its leader, and what became of it; oldest first.
    pub divergences: Vec<Divergence>,
}

pub(super) fn of(parts: &ClusterParts) -> ClusterStatus {
    let status = parts.consensus.status();
    let members = parts.consensus.members();
    let progress = parts.consensus.progress();
    let clocks = parts.consensus.clocks();
    let member = |(node_id, record): (u64, Option<MemberRecord>)| {
        let role = match () {
            () if status.leader == Some(node_id) => MemberRole::Leader,
            () if members.voters.contains(&node_id) => MemberRole::Voter,
            () => MemberRole::Learner,
        };
        let is_this = status.is_leader && node_id == parts.node_id;
        let known = progress.get(&node_id).copied().unwrap_or_default();
        let heard_ms =
            known.silent.map(|silent: Duration| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
        MemberStatus {
            node_id,
            record,
            role,
            matched_index: if is_this { status.last_log_index } else { known.matched },
            last_heard_ms: if is_this { Some(0) } else { heard_ms },
            clock_ahead_ms: if status.is_leader { clocks.ahead_ms(node_id) } else { None },
        }
    };
    ClusterStatus {
        node_id: parts.node_id,
        cluster_id: parts.cluster_id,
        term: status.term,
        leader: status.leader,
        members: members.records.clone().into_iter().map(member).collect(),
        membership_index: members.log_index,
        is_changing: members.is_joint || !members.is_committed,
        is_ready: *parts.ready.borrow(),
        is_removed: parts.removal.is_known(),
        divergences: parts.register.list(),
    }
}
