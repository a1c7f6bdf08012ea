//! The engine's messages on their way to peers: encoded, sent with a timeout of their kind, errors named.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::planted_bugs::{PlantedBug, is_planted};
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
use super::retention::LogRetention;
use super::state_machine::SnapshotContent;
use super::{LedgerRaft, Member, NodeId, Snapshot, wire};
use crate::blocking_work::BlockingWork;
use crate::cluster::PeerClocks;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{self, AppendAnswer, MessageError, TransferAnswer, VoteAnswer};
use crate::peers::{MemberRecord, PeerCalls, PeerError, PeerMethod};
use crate::snapshots::{self, SendError, SnapshotDesk, SnapshotFailure, SnapshotPeer};

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
    #[error("member {0} is too far behind for the log: it gets a snapshot")]
    CutOff(NodeId),
    #[error("no snapshot can be made for a peer: {0}")]
    Snapshot(#[from] SnapshotFailure),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the engine asks to send a snapshot that came from a peer and is not installed")]
    NotInstalled,
}

/// Makes a client for each member.
#[derive(Clone)]
pub(crate) struct PeerNetwork {
    /// `None` = this ledger runs alone.
    pub calls: Option<PeerCalls>,
    pub clocks: Arc<PeerClocks>,
    pub addresses: MemberAddresses,
    pub retention: Arc<LogRetention>,
    pub desk: SnapshotDesk,
    pub counters: Arc<CounterCells>,
    pub blocking: BlockingWork,
}

/// Where members are by the newest applied membership: the engine keeps the address that it began to send to.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemberAddresses(Arc<RwLock<BTreeMap<NodeId, MemberRecord>>>);

impl MemberAddresses {
    pub fn replace(&self, membership: &openraft::Membership<NodeId, Member>) {
        let records = membership.nodes().filter_map(|(id, node)| Some((*id, node.record.clone()?)));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = records.collect();
    }

    fn of(&self, node: NodeId) -> Option<MemberRecord> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }
}

impl RaftNetworkFactory<LedgerRaft> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> PeerClient {
        PeerClient { network: self.clone(), target, member: node.record.clone() }
    }
}

/// Sends to one member.
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
        let applied = self.network.addresses.of(self.target);
        let member = applied.as_ref().or(self.member.as_ref()).ok_or(NetworkError::NoAddress(self.target))?;
        Ok(calls.call(member, method, body, timeout).await?)
    }

    async fn append(
        &self,
        request: &AppendEntriesRequest<LedgerRaft>,
    ) -> Result<AppendEntriesResponse<LedgerRaft>, NetworkError> {
        // An error ends the engine's claim on these entries, and it decides anew what this member needs.
        if request.entries.first().is_some_and(|first| self.network.retention.is_cut_off(first.log_id.index))
        {
            add(&self.network.counters.followers_cut_off, 1);
            return Err(NetworkError::CutOff(self.target));
        }
        let message = wire::append_request(request)?;
        let bytes = message.records.iter().map(|record| record.payload.len() + RECORD_OVERHEAD_BYTES).sum();
        if is_planted(PlantedBug::AnswerBeforeCommit) {
            let answer: Result<AppendAnswer, NetworkError> =
                self.call(PeerMethod::Append, &message, (bytes, Duration::from_millis(20))).await;
            return Ok(answer.map_or(AppendEntriesResponse::Success, |answer| {
                self.network.clocks.observe(self.target, answer.clock_ms);
                wire::engine_append_answer(answer.outcome)
            }));
        }
        let answer: AppendAnswer = self.call(PeerMethod::Append, &message, (bytes, APPEND_TIMEOUT)).await?;
        self.network.clocks.observe(self.target, answer.clock_ms);
        Ok(wire::engine_append_answer(answer.outcome))
    }

    async fn send_snapshot(&self, vote: &EngineVote, snapshot: Snapshot) -> Result<EngineVote, NetworkError> {
        let last = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        self.network.retention.hold(self.target, last);
        let file = match snapshot.snapshot {
            SnapshotContent::File(file) => file,
            SnapshotContent::Position => self.network.desk.make(last).await?,
            SnapshotContent::Prepared(_) => return Err(NetworkError::NotInstalled),
        };
        self.network.retention.hold(self.target, file.last.index);
        let with = (self.network.counters.as_ref(), self.network.blocking);
        let sent = snapshots::send(self, wire::wire_vote(vote), &file, with).await;
        if let Err(SendError::Refused { .. }) = &sent {
            self.network.desk.refuse(&file);
        }
        add(&self.network.counters.snapshots_sent, u64::from(sent.is_ok()));
        Ok(wire::engine_vote(&sent?))
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
        answer.map(|answer| wire::engine_vote_answer(&answer)).map_err(|error| unreachable(&error))
    }
}

impl SnapshotPeer for PeerClient {
    async fn call(&self, method: PeerMethod, body: Bytes, timeout: Duration) -> Result<Bytes, PeerError> {
        let unreachable = |error: NetworkError| PeerError::Unreachable {
            address: String::new(),
            reason: error.to_string(),
        };
        match self.send(method, body, timeout).await {
            Err(NetworkError::Peer(error)) => Err(error),
            other => other.map_err(unreachable),
        }
    }
}

/// Whatever went wrong, the engine waits a little and tries again.
fn unreachable(error: &NetworkError) -> RPCError<LedgerRaft> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<LedgerRaft> for PeerClient {
    type SnapshotData = SnapshotContent;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<LedgerRaft>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        self.append(&request).await.map_err(|error| unreachable(&error))
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
        vote: EngineVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<LedgerRaft>, StreamingError<LedgerRaft>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(&vote, snapshot) => match sent {
                Ok(answer) => Ok(SnapshotResponse::new(answer)),
                Err(error) => {
                    tracing::warn!(member = self.target, %error, "a snapshot was not sent");
                    Err(StreamingError::Unreachable(Unreachable::new(&error)))
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<LedgerRaft>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        let message = wire::transfer_request(&request);
        let answer: Result<TransferAnswer, NetworkError> =
            self.call(PeerMethod::TransferLeader, &message, (0, option.soft_ttl())).await;
        answer
            .map(|answer| wire::engine_transfer_answer(&request, answer))
            .map_err(|error| unreachable(&error))
    }
}
