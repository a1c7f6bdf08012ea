//! The engine's messages on their way to peers: encoded, sent with a timeout of their kind, errors named.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::EngineVote;
use super::state_machine::DurablePosition;
use super::{LedgerRaft, Member, NodeId, Snapshot, wire};
use crate::cluster::PeerClocks;
use crate::peers::messages::{self, AppendAnswer, MessageError, TransferAnswer, VoteAnswer};
use crate::peers::{MemberRecord, PeerCalls, PeerError, PeerMethod};

/// How long an answer to entries may take: the peer's disk may stall for half a second, and the entries of one
/// request take their time on the network. After it they are sent again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// What an encoded record needs beside its payload, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A message to a peer was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("this ledger runs alone: it has no way to peers")]
    Alone,
    #[error("member {0} has no address: it was written by an older program")]
    NoAddress(NodeId),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("an entry of the log cannot be sent: {0}")]
    Record(#[from] super::record::RecordError),
    #[error("this release does not send snapshots to peers")]
    NoSnapshots,
}

/// Makes a client for each member.
#[derive(Debug, Clone)]
pub(crate) struct PeerNetwork {
    /// `None` = this ledger runs alone.
    pub calls: Option<PeerCalls>,
    pub clocks: Arc<PeerClocks>,
}

impl RaftNetworkFactory<LedgerRaft> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> PeerClient {
        PeerClient { network: self.clone(), target, member: node.record.clone() }
    }
}

/// Sends to one member.
#[derive(Debug)]
pub(crate) struct PeerClient {
    network: PeerNetwork,
    target: NodeId,
    member: Option<MemberRecord>,
}

impl PeerClient {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: PeerMethod,
        request: &Q,
        (room, timeout): (usize, Duration),
    ) -> Result<A, NetworkError> {
        let body = messages::encode_with_room(request, room)?;
        let answer = self.send(method, body, timeout).await?;
        Ok(messages::decode(&answer)?)
    }

    async fn send(&self, method: PeerMethod, body: Bytes, timeout: Duration) -> Result<Bytes, NetworkError> {
        let calls = self.network.calls.as_ref().ok_or(NetworkError::Alone)?;
        let member = self.member.as_ref().ok_or(NetworkError::NoAddress(self.target))?;
        Ok(calls.call(member, method, body, timeout).await?)
    }

    async fn append(
        &self,
        request: &AppendEntriesRequest<LedgerRaft>,
    ) -> Result<AppendEntriesResponse<LedgerRaft>, NetworkError> {
        let message = wire::append_request(request)?;
        let bytes = message.records.iter().map(|record| record.payload.len() + RECORD_OVERHEAD_BYTES).sum();
        let answer: AppendAnswer = self.call(PeerMethod::Append, &message, (bytes, APPEND_TIMEOUT)).await?;
        self.network.clocks.observe(self.target, answer.clock_ms);
        Ok(wire::engine_append_answer(answer.outcome))
    }

    async fn ask_vote(
        &self,
        method: PeerMethod,
        request: &VoteRequest<LedgerRaft>,
        option: &RPCOption,
    ) -> Result<VoteResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        let message = wire::vote_request(request);
        let answer: Result<VoteAnswer, NetworkError> =
            self.call(method, &message, (0, option.soft_ttl())).await;
        answer.map(|answer| wire::engine_vote_answer(&answer)).map_err(unreachable)
    }
}

/// Whatever went wrong, the engine waits a little and tries again.
fn unreachable(error: NetworkError) -> RPCError<LedgerRaft> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkV2<LedgerRaft> for PeerClient {
    type SnapshotData = DurablePosition;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<LedgerRaft>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        self.append(&request).await.map_err(unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<LedgerRaft>,
        option: RPCOption,
    ) -> Result<VoteResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        self.ask_vote(PeerMethod::Vote, &request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<LedgerRaft>,
        option: RPCOption,
    ) -> Result<VoteResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        self.ask_vote(PeerMethod::PreVote, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        _vote: EngineVote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<LedgerRaft>, StreamingError<LedgerRaft>> {
        Err(StreamingError::Unreachable(Unreachable::new(&NetworkError::NoSnapshots)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<LedgerRaft>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        let message = wire::transfer_request(&request);
        let answer: Result<TransferAnswer, NetworkError> =
            self.call(PeerMethod::TransferLeader, &message, (0, option.soft_ttl())).await;
        answer.map(|answer| wire::engine_transfer_answer(&request, answer)).map_err(unreachable)
    }
}
