//! Answers to the engine's messages from peers.

use bytes::Bytes;
use openraft::errors::{Fatal, RaftError};
use serde::Serialize;

use super::consensus::Consensus;
use super::{LedgerRaft, wire};
use crate::peers::messages::{
    self, AppendAnswer, AppendRequest, MessageError, TransferRequest, VoteRequest, WireVote,
};
use crate::peers::{PeerMethod, PeerRefusal};

impl Consensus {
    /// Answers a vote, a pre-vote, entries or a transfer. Who sent it was checked before.
    pub async fn answer(&self, method: PeerMethod, body: &[u8]) -> Result<Bytes, PeerRefusal> {
        match method {
            PeerMethod::Vote => {
                let request: VoteRequest = decode(body)?;
                let answer = self.raft.vote(wire::engine_vote_request(&request)).await.map_err(stopped)?;
                encode(&wire::vote_answer(&answer))
            }
            PeerMethod::PreVote => {
                let request: VoteRequest = decode(body)?;
                let answer =
                    self.raft.pre_vote(wire::engine_vote_request(&request)).await.map_err(stopped)?;
                encode(&wire::vote_answer(&answer))
            }
            PeerMethod::Append => {
                let request: AppendRequest = decode(body)?;
                let request = wire::engine_append_request(request).map_err(|error| malformed(&error))?;
                let answer = self.raft.append_entries(request).await.map_err(stopped)?;
                let outcome = wire::append_outcome(&answer);
                encode(&AppendAnswer { outcome, clock_ms: self.clock.now_ms() })
            }
            PeerMethod::TransferLeader => {
                let request: TransferRequest = decode(body)?;
                let request = wire::engine_transfer_request(&request);
                let answer = self.raft.handle_transfer_leader(request).await.map_err(fatal)?;
                encode(&wire::transfer_answer(&answer))
            }
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} is no message of consensus") }),
        }
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
