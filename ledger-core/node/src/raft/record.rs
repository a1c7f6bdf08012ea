//! Between the engine's types and the records of the ports: no type of the engine reaches a disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ledger_core::codec::CodecError;
use ledger_core::ports::{LogId, LogKind, LogRecord, StoredVote};
use openraft::impls::leader_id_std;
use openraft::{EntryPayload, Membership, StoredMembership, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::proposal_data::ProposalData;
use super::{Clid, EngineLogId, Entry, Member, NodeId, StoredMembershipOf};

/// Format byte of encoded memberships.
const MEMBERSHIP_FORMAT: u8 = 2;
/// As written for a ledger that runs alone, whose one member has no record.
const MEMBERSHIP_FORMAT_ALONE: u8 = 1;

/// A record of the log or of the state that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("log record {index} does not decode: {source}")]
    Proposal { index: u64, source: CodecError },
    #[error("log record {index} is of kind {found}, which this program does not know: use a newer one")]
    Kind { index: u64, found: u8 },
    #[error("a membership record has format {found:?}; this program reads formats up to {MEMBERSHIP_FORMAT}")]
    MembershipFormat { found: Option<u8> },
    #[error("a membership record does not decode: {0}")]
    Membership(#[source] postcard::Error),
    #[error("a membership record names a voter that is no member: {0}")]
    MembershipContent(String),
}

pub(crate) type EngineVote = Vote<leader_id_std::LeaderId<u64, NodeId>>;

/// With standard Raft leader ids a log id is (term, index): the leader's node is not part of it, so the
/// port's field stays 0 on every replica alike.
pub(crate) fn port_log_id(id: &EngineLogId) -> LogId {
    LogId { term: id.leader_id.term, node: 0, index: id.index }
}

pub(crate) fn engine_log_id(id: LogId) -> EngineLogId {
    EngineLogId::new(Clid::new(id.term), id.index)
}

pub(crate) fn port_vote(vote: &EngineVote) -> StoredVote {
    StoredVote { term: vote.leader_id.term, node: Some(vote.leader_id.voted_for), committed: vote.committed }
}

/// `None` when the stored vote names nobody: then there is no vote for the engine.
pub(crate) fn engine_vote(vote: StoredVote) -> Option<EngineVote> {
    let node = vote.node?;
    Some(if vote.committed { Vote::new_committed(vote.term, node) } else { Vote::new(vote.term, node) })
}

/// The record that stores an entry.
pub(crate) fn log_record(entry: &Entry) -> Result<LogRecord, RecordError> {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (LogKind::Blank, Bytes::new()),
        EntryPayload::Normal(data) => (LogKind::Proposal, data.encoded().clone()),
        EntryPayload::Membership(membership) => (LogKind::Membership, encode_membership(None, membership)?),
    };
    Ok(LogRecord { id: port_log_id(&entry.log_id), kind, payload })
}

/// The entry that a record stores.
pub(crate) fn entry(record: LogRecord) -> Result<Entry, RecordError> {
    let index = record.id.index;
    let payload = match record.kind {
        LogKind::Blank => EntryPayload::Blank,
        LogKind::Proposal => EntryPayload::Normal(
            ProposalData::decode(record.payload).map_err(|source| RecordError::Proposal { index, source })?,
        ),
        LogKind::Membership => {
            EntryPayload::Membership(decode_membership(&record.payload)?.membership().clone())
        }
    };
    Ok(Entry { log_id: engine_log_id(record.id), payload })
}

/// What a membership record holds: where it stood in the log, voters, and everyone's record.
#[derive(Serialize, Deserialize)]
struct MembershipRecord<M> {
    at: Option<(u64, u64)>,
    voters: Vec<Vec<NodeId>>,
    members: Vec<(NodeId, M)>,
}

/// A member in format 1: the address was always empty.
#[derive(Serialize, Deserialize)]
struct LoneMember {
    address: String,
}

pub(crate) fn encode_membership(
    at: Option<&EngineLogId>,
    membership: &Membership<NodeId, Member>,
) -> Result<Bytes, RecordError> {
    if membership.nodes().all(|(_, member)| member.record.is_none()) {
        let alone = |_: &Member| LoneMember { address: String::new() };
        return encode_members(MEMBERSHIP_FORMAT_ALONE, at, membership, alone);
    }
    encode_members(MEMBERSHIP_FORMAT, at, membership, |member| member.record.clone())
}

fn encode_members<M: Serialize>(
    format: u8,
    at: Option<&EngineLogId>,
    membership: &Membership<NodeId, Member>,
    member: impl Fn(&Member) -> M,
) -> Result<Bytes, RecordError> {
    let record = MembershipRecord {
        at: at.map(|id| (id.leader_id.term, id.index)),
        voters: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        members: membership.nodes().map(|(id, node)| (*id, member(node))).collect(),
    };
    postcard::to_extend(&record, vec![format]).map(Bytes::from).map_err(RecordError::Membership)
}

/// The membership of a ledger that goes on with one node alone, where the stored one stood in the log.
pub(crate) fn sole_voter(stored: &[u8], node: NodeId) -> Result<Bytes, RecordError> {
    let at = *decode_membership(stored)?.log_id();
    let voters = vec![BTreeSet::from([node])];
    let membership = Membership::new(voters, BTreeMap::from([(node, Member::default())]))
        .map_err(|error| RecordError::MembershipContent(error.to_string()))?;
    encode_membership(at.as_ref(), &membership)
}

/// Empty bytes are the membership of a ledger that has none yet.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<StoredMembershipOf, RecordError> {
    let Some((format, body)) = bytes.split_first() else {
        return Ok(StoredMembership::default());
    };
    match *format {
        MEMBERSHIP_FORMAT_ALONE => decode_members(body, |_: LoneMember| Member::default()),
        MEMBERSHIP_FORMAT => decode_members(body, |record| Member { record }),
        found => Err(RecordError::MembershipFormat { found: Some(found) }),
    }
}

fn decode_members<M: DeserializeOwned>(
    body: &[u8],
    member: impl Fn(M) -> Member,
) -> Result<StoredMembershipOf, RecordError> {
    let record: MembershipRecord<M> = postcard::from_bytes(body).map_err(RecordError::Membership)?;
    let voters: Vec<BTreeSet<NodeId>> =
        record.voters.into_iter().map(|set| set.into_iter().collect()).collect();
    let members: BTreeMap<NodeId, Member> =
        record.members.into_iter().map(|(id, encoded)| (id, member(encoded))).collect();
    let membership = Membership::new(voters, members)
        .map_err(|error| RecordError::MembershipContent(error.to_string()))?;
    let at = record.at.map(|(term, index)| EngineLogId::new(Clid::new(term), index));
    Ok(StoredMembership::new(at, membership))
}
