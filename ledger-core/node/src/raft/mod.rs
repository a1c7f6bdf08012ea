//! The consensus engine, and the only module that knows its name.
//!
//! Nothing of the engine is in the crate's public API, on a disk or on a wire: [`record`] translates
//! between its types and the records of the ports.

mod answers;
mod consensus;
mod log;
mod log_index;
#[cfg(test)]
mod log_reads;
mod members;
mod network;
mod proposal_data;
mod record;
mod retention;
mod runtime;
mod snapshots;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod wire;

pub(crate) use answers::check_leaders_vote;
pub(crate) use consensus::{Consensus, ConsensusError, ConsensusParts};
pub(crate) use members::{Heartbeats, Members, Outgoing};
pub(crate) use record::{RecordError, decode_membership, sole_voter};
pub(crate) use retention::{LogRetention, RetentionBounds};
pub(crate) use runtime::{NodeRuntime, with_randomness};

use ledger_core::command::Outcome;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use crate::peers::MemberRecord;
use proposal_data::ProposalData;

/// Identity of a node, never given to another one.
pub(crate) type NodeId = u64;

/// What the members of a cluster know about one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Member {
    /// `None` in a ledger that runs alone.
    pub record: Option<MemberRecord>,
}

openraft::declare_raft_types!(
    /// The engine's types for a ledger. Standard leader ids: at most one leader a term, so that term and
    /// index in a block header mean what they mean in the Raft paper.
    pub(crate) LedgerRaft:
        D = ProposalData,
        R = Option<Outcome>,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = NodeRuntime,
);

type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
/// What a log id keeps of its leader: the term.
type Clid = <LeaderId as RaftLeaderId>::Committed;
type EngineLogId = openraft::LogId<Clid>;
type Entry = openraft::Entry<Clid, openraft::EntryPayload<ProposalData, NodeId, Member>>;
type StoredMembershipOf = openraft::StoredMembership<Clid, NodeId, Member>;
type SnapshotMeta = openraft::SnapshotMeta<Clid, NodeId, Member>;
type Snapshot = openraft::Snapshot<Clid, NodeId, Member, state_machine::SnapshotContent>;
