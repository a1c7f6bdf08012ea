//! Between the engine's messages and those that travel.

use ledger_core::ports::{LogId, LogKind, LogRecord};
use openraft::Vote;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse,
};
use openraft::raft::{VoteRequest as EngineVoteRequest, VoteResponse};

use super::record::{self, EngineVote, RecordError};
use super::{Clid, EngineLogId, Entry, LedgerRaft};
use crate::peers::messages::{
    AppendOutcome, AppendRequest, TransferAnswer, TransferRequest, VoteAnswer, VoteRequest, WireLogId,
    WireRecord, WireVote,
};

pub(super) fn wire_log_id(id: &EngineLogId) -> WireLogId {
    WireLogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn engine_log_id(id: &WireLogId) -> EngineLogId {
    EngineLogId::new(Clid::new(id.term), id.index)
}

pub(super) fn wire_vote(vote: &EngineVote) -> WireVote {
    WireVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub(super) fn engine_vote(vote: &WireVote) -> EngineVote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

pub(super) fn vote_request(request: &EngineVoteRequest<LedgerRaft>) -> VoteRequest {
    VoteRequest {
        vote: wire_vote(&request.vote),
        last_log: request.last_log_id.as_ref().map(wire_log_id),
        by_transfer: request.leadership_transfer,
    }
}

pub(super) fn engine_vote_request(request: &VoteRequest) -> EngineVoteRequest<LedgerRaft> {
    EngineVoteRequest {
        vote: engine_vote(&request.vote),
        last_log_id: request.last_log.as_ref().map(engine_log_id),
        leadership_transfer: request.by_transfer,
    }
}

pub(super) fn vote_answer(answer: &VoteResponse<LedgerRaft>) -> VoteAnswer {
    VoteAnswer {
        vote: wire_vote(&answer.vote),
        granted: answer.vote_granted,
        last_log: answer.last_log_id.as_ref().map(wire_log_id),
    }
}

pub(super) fn engine_vote_answer(answer: &VoteAnswer) -> VoteResponse<LedgerRaft> {
    let last_log = answer.last_log.as_ref().map(engine_log_id);
    VoteResponse::new(engine_vote(&answer.vote), last_log, answer.granted)
}

pub(super) fn append_request(
    request: &AppendEntriesRequest<LedgerRaft>,
) -> Result<AppendRequest, RecordError> {
    let record = |entry: &Entry| {
        record::log_record(entry).map(|record| WireRecord {
            term: record.id.term,
            index: record.id.index,
            kind: record.kind as u8,
            payload: record.payload,
        })
    };
    Ok(AppendRequest {
        vote: wire_vote(&request.vote),
        previous: request.prev_log_id.as_ref().map(wire_log_id),
        committed: request.leader_commit.as_ref().map(wire_log_id),
        records: request.entries.iter().map(record).collect::<Result<_, _>>()?,
    })
}

pub(super) fn engine_append_request(
    request: AppendRequest,
) -> Result<AppendEntriesRequest<LedgerRaft>, RecordError> {
    let entry = |record: WireRecord| {
        let id = LogId { term: record.term, node: 0, index: record.index };
        let kind = match record.kind {
            0 => LogKind::Blank,
            1 => LogKind::Proposal,
            2 => LogKind::Membership,
            found => return Err(RecordError::Kind { index: record.index, found }),
        };
        record::entry(LogRecord { id, kind, payload: record.payload })
    };
    Ok(AppendEntriesRequest {
        vote: engine_vote(&request.vote),
        prev_log_id: request.previous.as_ref().map(engine_log_id),
        leader_commit: request.committed.as_ref().map(engine_log_id),
        entries: request.records.into_iter().map(entry).collect::<Result<_, _>>()?,
    })
}

pub(super) fn append_outcome(answer: &AppendEntriesResponse<LedgerRaft>) -> AppendOutcome {
    match answer {
        // A follower of this program takes all of a request or none of it.
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => AppendOutcome::Appended,
        AppendEntriesResponse::Conflict => AppendOutcome::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendOutcome::HigherVote(wire_vote(vote)),
    }
}

pub(super) fn engine_append_answer(outcome: AppendOutcome) -> AppendEntriesResponse<LedgerRaft> {
    match outcome {
        AppendOutcome::Appended => AppendEntriesResponse::Success,
        AppendOutcome::Conflict => AppendEntriesResponse::Conflict,
        AppendOutcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(engine_vote(&vote)),
    }
}

pub(super) fn transfer_request(request: &TransferLeaderRequest<LedgerRaft>) -> TransferRequest {
    TransferRequest {
        from: wire_vote(request.from_leader()),
        to: *request.to_node_id(),
        last_log: request.last_log_id().map(wire_log_id),
    }
}

pub(super) fn engine_transfer_request(request: &TransferRequest) -> TransferLeaderRequest<LedgerRaft> {
    let last_log = request.last_log.as_ref().map(engine_log_id);
    TransferLeaderRequest::new(engine_vote(&request.from), request.to, last_log)
}

pub(super) fn transfer_answer(answer: &TransferLeaderResponse<LedgerRaft>) -> TransferAnswer {
    match answer {
        Ok(()) => TransferAnswer::Accepted,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            TransferAnswer::VoteChanged(wire_vote(actual))
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            TransferAnswer::Behind(actual.as_ref().map(wire_log_id))
        }
    }
}

pub(super) fn engine_transfer_answer(
    request: &TransferLeaderRequest<LedgerRaft>,
    answer: TransferAnswer,
) -> TransferLeaderResponse<LedgerRaft> {
    match answer {
        TransferAnswer::Accepted => Ok(()),
        TransferAnswer::VoteChanged(vote) => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: engine_vote(&vote),
        }),
        TransferAnswer::Behind(last) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: last.as_ref().map(engine_log_id),
        }),
    }
}
