//! Messages of the consensus engine, in terms of the Raft paper.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Term and index of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireLogId {
    pub term: u64,
    pub index: u64,
}

/// A vote: for whom in which term, and whether a quorum granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

/// A record of the log, as the log itself has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRecord {
    pub term: u64,
    pub index: u64,
    /// Number of a [`LogKind`](ledger_core::ports::LogKind).
    pub kind: u8,
    pub payload: Bytes,
}

/// A vote or pre-vote is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRequest {
    pub vote: WireVote,
    pub last_log: Option<WireLogId>,
    /// The leader has asked the candidate to take over: its lease does not stand in the way.
    pub by_transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub vote: WireVote,
    pub granted: bool,
    pub last_log: Option<WireLogId>,
}

/// Entries, or a heartbeat when there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendRequest {
    pub vote: WireVote,
    pub previous: Option<WireLogId>,
    pub committed: Option<WireLogId>,
    pub records: Vec<WireRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendAnswer {
    pub outcome: AppendOutcome,
    /// The answering node's clock, unix milliseconds.
    pub clock_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendOutcome {
    /// All of it is durable.
    Appended,
    /// The log does not have the entry before the first one.
    Conflict,
    /// The answering node follows someone else.
    HigherVote(WireVote),
}

/// The leader hands over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferRequest {
    pub from: WireVote,
    pub to: u64,
    pub last_log: Option<WireLogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TransferAnswer {
    Accepted,
    /// The answering node has voted for someone else meanwhile.
    VoteChanged(WireVote),
    /// It does not have the leader's whole log.
    Behind(Option<WireLogId>),
}
