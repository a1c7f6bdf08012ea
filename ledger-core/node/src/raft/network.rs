//! The network of a ledger with a single voter: there is nobody to talk to.

use std::future::Future;

use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};

use super::record::EngineVote;
use super::state_machine::DurablePosition;
use super::{LedgerRaft, Member, NodeId, Snapshot};

/// A message to a peer was refused.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this ledger has a single voter: it neither sends to peers nor takes snapshots from them")]
pub(crate) struct SingleVoter;

/// Refuses every call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoPeers;

impl RaftNetworkFactory<LedgerRaft> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _target: NodeId, _node: &Member) -> Self {
        Self
    }
}

impl RaftNetworkV2<LedgerRaft> for NoPeers {
    type SnapshotData = DurablePosition;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<LedgerRaft>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        Err(RPCError::Unreachable(Unreachable::new(&SingleVoter)))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<LedgerRaft>,
        _option: RPCOption,
    ) -> Result<VoteResponse<LedgerRaft>, RPCError<LedgerRaft>> {
        Err(RPCError::Unreachable(Unreachable::new(&SingleVoter)))
    }

    async fn full_snapshot(
        &mut self,
        _vote: EngineVote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<LedgerRaft>, StreamingError<LedgerRaft>> {
        Err(StreamingError::Unreachable(Unreachable::new(&SingleVoter)))
    }
}
