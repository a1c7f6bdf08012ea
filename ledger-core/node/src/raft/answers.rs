//! Answers to the engine's messages from peers, after what no sound peer sends was refused: the engine and the store take it
//! for granted.

use bytes::Bytes;
use openraft::errors::{Fatal, RaftError};
use serde::Serialize;
use tokio::time::Instant;

use super::consensus::Consensus;
use super::{LedgerRaft, wire};
use crate::peers::messages::{
    self, AppendAnswer, AppendRequest, MessageError, TransferRequest, VoteRequest, WireVote,
};
use crate::peers::{PeerMethod, PeerRefusal};

impl Consensus {
    /// Answers a vote, a pre-vote, entries or a transfer from a member. Who it is was checked before.
    pub async fn answer(&self, method: PeerMethod, from: u64, body: &[u8]) -> Result<Bytes, PeerRefusal> {
        match method {
            PeerMethod::Vote => {
                let request: VoteRequest = decode(body)?;
                check_asked_vote(&request.vote, from)?;
                self.check_may_vote(&request)?;
                let answer = self.raft.vote(wire::engine_vote_request(&request)).await.map_err(stopped)?;
                encode(&wire::vote_answer(&answer))
            }
            PeerMethod::PreVote => {
                let request: VoteRequest = decode(body)?;
                check_asked_vote(&request.vote, from)?;
                self.check_may_vote(&request)?;
                let answer =
                    self.raft.pre_vote(wire::engine_vote_request(&request)).await.map_err(stopped)?;
                encode(&wire::vote_answer(&answer))
            }
            PeerMethod::Append => {
                let request: AppendRequest = decode(body)?;
                check_leaders_vote(&request.vote, from)?;
                check_records(&request).map_err(|reason| PeerRefusal::Malformed { reason })?;
                let request = wire::engine_append_request(request).map_err(|error| malformed(&error))?;
                let answer = self.raft.append_entries(request).await.map_err(stopped)?;
                let outcome = wire::append_outcome(&answer);
                encode(&AppendAnswer { outcome, clock_ms: self.clock.now_ms() })
            }
            PeerMethod::TransferLeader => {
                let request: TransferRequest = decode(body)?;
                check_leaders_vote(&request.from, from)?;
                let request = wire::engine_transfer_request(&request);
                let answer = self.raft.handle_transfer_leader(request).await.map_err(fatal)?;
                encode(&wire::transfer_answer(&answer))
            }
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} is no message of consensus") }),
        }
    }

    /// A leader may read by its lease, counting on what this node answered just before it was started anew and does not
    /// remember. One that hands over has ended its lease.
    fn check_may_vote(&self, request: &VoteRequest) -> Result<(), PeerRefusal> {
        if request.by_transfer || Instant::now() >= self.votes_from {
            return Ok(());
        }
        let reason = "it was started just now, and a leader may count on what it said before".to_owned();
        Err(PeerRefusal::NotReady { reason })
    }

    /// The vote in a message of consensus: whose it is tells who sent it.
    pub fn vote_in(method: PeerMethod, body: &[u8]) -> Result<(WireVote, Option<u64>), PeerRefusal> {
        match method {
            PeerMethod::Vote | PeerMethod::PreVote => {
                let request: VoteRequest = decode(body)?;
                Ok((request.vote, request.last_log.map(|id| id.index)))
            }
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} asks for no vote") }),
        }
    }
}

/// A candidate asks for itself, and nobody has granted it yet.
fn check_asked_vote(vote: &WireVote, from: u64) -> Result<(), PeerRefusal> {
    check_voted_for(vote, from)?;
    if vote.committed {
        let reason = "it asks for a vote that a quorum has granted already".to_owned();
        return Err(PeerRefusal::Malformed { reason });
    }
    Ok(())
}

/// Whoever leads does so by votes for itself.
pub(crate) fn check_leaders_vote(vote: &WireVote, from: u64) -> Result<(), PeerRefusal> {
    check_voted_for(vote, from)?;
    if !vote.committed {
        let reason = "it leads by a vote that no quorum has granted".to_owned();
        return Err(PeerRefusal::Malformed { reason });
    }
    Ok(())
}

fn check_voted_for(vote: &WireVote, from: u64) -> Result<(), PeerRefusal> {
    if vote.node == from {
        return Ok(());
    }
    Err(PeerRefusal::Identity { reason: format!("it is node {from}, its vote is for node {}", vote.node) })
}

/// Records follow what is before them without holes, in terms that never go down and never beyond the leader's own.
fn check_records(request: &AppendRequest) -> Result<(), String> {
    let AppendRequest { vote, previous, committed, records } = request;
    if let Some(later) = previous.iter().chain(committed).find(|id| id.term > vote.term) {
        return Err(format!("entry {} has term {}, its leader's is {}", later.index, later.term, vote.term));
    }
    let mut term = previous.map_or(0, |id| id.term);
    let mut next = previous.map_or(Some(0), |id| id.index.checked_add(1));
    for record in records {
        if next != Some(record.index) {
            return Err(format!("record {} does not follow what is before it", record.index));
        }
        if record.term < term || record.term > vote.term {
            return Err(format!(
                "record {} has term {}, after term {term} and by a leader of term {}",
                record.index, record.term, vote.term
            ));
        }
        term = record.term;
        next = record.index.checked_add(1);
    }
    Ok(())
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, PeerRefusal> {
    messages::decode(body).map_err(|error| malformed(&error))
}

fn encode<T: Serialize>(answer: &T) -> Result<Bytes, PeerRefusal> {
    messages::encode(answer).map_err(|error: MessageError| PeerRefusal::Refused { reason: error.to_string() })
}

fn malformed(error: &dyn std::error::Error) -> PeerRefusal {
    PeerRefusal::Malformed { reason: error.to_string() }
}

fn stopped(_: RaftError<LedgerRaft>) -> PeerRefusal {
    PeerRefusal::NotReady { reason: "it stops".to_owned() }
}

fn fatal(_: Fatal<LedgerRaft>) -> PeerRefusal {
    PeerRefusal::NotReady { reason: "it stops".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::messages::{WireLogId, WireRecord};

    fn append(previous: Option<(u64, u64)>, records: &[(u64, u64)]) -> AppendRequest {
        let id = |(term, index)| WireLogId { term, index };
        let record = |(term, index)| WireRecord { term, index, kind: 0, payload: Bytes::new() };
        AppendRequest {
            vote: WireVote { term: 5, node: 1, committed: true },
            previous: previous.map(id),
            committed: None,
            records: records.iter().copied().map(record).collect(),
        }
    }

    #[test]
    fn records_that_follow_each_other_in_terms_up_to_the_leaders_are_taken() {
        for sound in [
            append(None, &[]),
            append(None, &[(0, 0), (1, 1)]),
            append(Some((3, 7)), &[]),
            append(Some((3, 7)), &[(3, 8), (4, 9), (5, 10), (5, 11)]),
        ] {
            assert_eq!(check_records(&sound), Ok(()), "{sound:?}");
        }
    }

    #[test]
    fn records_with_holes_or_impossible_terms_are_refused() {
        for unsound in [
            append(None, &[(1, 1)]),
            append(Some((3, 7)), &[(3, 7)]),
            append(Some((3, 7)), &[(3, 9)]),
            append(Some((3, 7)), &[(3, 8), (3, 10)]),
            append(Some((3, 7)), &[(3, 8), (3, 8)]),
            append(Some((3, 7)), &[(2, 8)]),
            append(Some((3, 7)), &[(4, 8), (3, 9)]),
            append(Some((3, 7)), &[(6, 8)]),
            append(Some((6, 7)), &[]),
            append(Some((3, u64::MAX)), &[(3, 0)]),
            append(Some((3, u64::MAX - 1)), &[(3, u64::MAX), (3, 0)]),
            AppendRequest { committed: Some(WireLogId { term: 6, index: 1 }), ..append(None, &[]) },
        ] {
            assert!(check_records(&unsound).is_err(), "{unsound:?}");
        }
    }
}
