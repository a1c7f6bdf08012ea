//! Who belongs to the cluster, who votes, and changes of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::Instant;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::sync::watch;

use super::consensus::{Consensus, ConsensusError};
use super::{Member, NodeId};
use crate::ordered_watch;
use crate::peers::MemberRecord;

/// The membership as a node knows it, committed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// Everyone, by number; `None` = written by a ledger that ran alone.
    pub records: BTreeMap<NodeId, Option<MemberRecord>>,
    /// Who votes, in any of the sets of a joint membership.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of voters is half done.
    pub is_joint: bool,
    /// Where it stands in the log.
    pub log_index: Option<u64>,
    /// Whether it is known to be committed.
    pub is_committed: bool,
}

/// What a leader knows about the progress of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemberProgress {
    /// The last entry that is known to be in its log.
    pub matched: Option<u64>,
    /// How long ago it last answered.
    pub silent: Option<Duration>,
}

impl Consensus {
    /// The newest membership.
    pub fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        Members {
            records: stored.nodes().map(|(id, member)| (*id, member.record.clone())).collect(),
            voters: stored.voter_ids().collect(),
            is_joint: stored.get_joint_config().len() > 1,
            log_index: stored.log_id().map(|id| id.index),
            is_committed: metrics.committed_membership_config.log_id() == stored.log_id(),
        }
    }

    /// Whether this node belongs to the newest membership.
    pub fn is_member(&self) -> bool {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().membership_config.get_node(&self.node_id).is_some()
    }

    /// What this node knows about the others while it leads; empty otherwise.
    pub fn progress(&self) -> BTreeMap<NodeId, MemberProgress> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut progress: BTreeMap<NodeId, MemberProgress> = BTreeMap::new();
        for (id, matched) in metrics.replication.iter().flatten() {
            progress.entry(*id).or_default().matched = matched.as_ref().map(|id| id.index);
        }
        for (id, heard) in metrics.heartbeat.iter().flatten() {
            let silent = heard.as_ref().map(|heard| heard.elapsed());
            progress.entry(*id).or_default().silent = silent;
        }
        progress
    }

    /// Tells at every change who leads as far as this node knows, for ever.
    pub async fn follow_leader(
        self,
        leader: ordered_watch::Sender<Option<NodeId>>,
        shown: watch::Sender<Option<NodeId>>,
    ) {
        let mut metrics = self.raft.metrics();
        let mut told = None;
        loop {
            let (now, term) = {
                let metrics = metrics.borrow_watched();
                (metrics.current_leader, metrics.current_term)
            };
            if std::mem::replace(&mut told, now) != now {
                match now {
                    Some(leader) => tracing::info!(leader, term, "the ledger has a leader"),
                    None => tracing::warn!(term, "nobody leads the ledger"),
                }
            }
            leader.modify_if(|known| std::mem::replace(known, now) != now);
            shown.send_if_modified(|known| std::mem::replace(known, now) != now);
            if metrics.changed().await.is_err() {
                // The engine has stopped: whoever watches it ends the node.
                return std::future::pending().await;
            }
        }
    }

    /// Takes nodes in that do not vote, or replaces their records.
    pub async fn set_learners(&self, records: Vec<MemberRecord>) -> Result<u64, ConsensusError> {
        let nodes: BTreeMap<NodeId, Member> = records
            .into_iter()
            .map(|record| (record.identity.node_id, Member { record: Some(record) }))
            .collect();
        self.change(ChangeMembers::SetNodes(nodes), Outgoing::Leaves).await
    }

    /// Lets exactly these members vote, through a joint membership.
    pub async fn set_voters(
        &self,
        voters: BTreeSet<NodeId>,
        outgoing: Outgoing,
    ) -> Result<u64, ConsensusError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters), outgoing).await
    }

    /// Takes out nodes that do not vote.
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<u64, ConsensusError> {
        self.change(ChangeMembers::RemoveNodes(nodes), Outgoing::Leaves).await
    }

    /// Finishes a change of voters that an earlier leader left half done. Whether the one that goes was to leave is not
    /// known any more: it stays as a learner, and whoever wanted it out repeats the call.
    pub async fn leave_joint(&self) -> Result<u64, ConsensusError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), Outgoing::Learns).await
    }

    async fn change(
        &self,
        change: ChangeMembers<NodeId, Member>,
        outgoing: Outgoing,
    ) -> Result<u64, ConsensusError> {
        let refused =
            |error: &dyn std::error::Error| ConsensusError::Membership { reason: error.to_string() };
        match self.raft.change_membership(change, outgoing == Outgoing::Learns).await {
            Ok(response) => Ok(response.log_id.index),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ConsensusError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(forward))) => {
                Err(ConsensusError::OutcomeUnknown { leader: forward.leader_id })
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                error @ (ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_)),
            ))) => Err(ConsensusError::MembershipBusy { reason: error.to_string() }),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => Err(refused(&error)),
            Err(RaftError::APIError(error)) => Err(refused(&error)),
            Err(RaftError::Fatal(_)) => Err(ConsensusError::Stopped),
        }
    }

    /// Hands the lead over; whether it worked shows in who leads.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), ConsensusError> {
        self.raft.trigger().transfer_leader(to).await.map_err(|_| ConsensusError::Stopped)
    }

    /// Whether heartbeats are sent while this node leads: a leader that cannot work lets others lead.
    pub fn set_heartbeats(&self, sending: Heartbeats) {
        self.raft.runtime_config().heartbeat(sending == Heartbeats::On);
        self.raft.runtime_config().elect(sending == Heartbeats::On);
    }
}

/// What becomes of a voter that loses its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// It is no member any more.
    Leaves,
    /// It stays, receives everything, and may be given a vote again.
    Learns,
}

/// Whether this node claims the lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeats {
    On,
    Off,
}
