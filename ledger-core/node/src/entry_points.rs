//! Decoders as functions of bytes alone: for fuzzing, not for use.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::directory::cluster_file_kept;
use crate::peers::messages::{
    self, AppendAnswer, AppendRequest, CheckpointAnswer, CheckpointRequest, CompareAnswer, CompareRequest,
    JoinAnswer, JoinRequest, LedgerKeyAnswer, LedgerKeyRequest, MembershipAnswer, MembershipRequest,
    ProposeAnswer, ProposeRequest, ReadIndexAnswer, ReadIndexRequest, RepairAnswer, RepairRequest,
    SnapshotChunk, SnapshotChunkAnswer, SnapshotInstall, SnapshotInstallAnswer, SnapshotOffer,
    SnapshotOfferAnswer, TipsAnswer, TipsRequest, TransferAnswer, TransferRequest, VoteAnswer, VoteRequest,
    WriteStateAnswer, WriteStateRequest,
};
use crate::peers::{
    NodeInfo, NodeInfoRequest, PeerMethod, PromiseAnswer, PromiseRequest, SettleAnswer, SettleRequest,
};

/// What became of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// They are none of the kind.
    Refused,
    /// They were decoded, written again, and decoded to the same.
    Kept,
    /// Written again, they are something else.
    Changed,
}

/// A body as the request of a method.
pub fn peer_request(method: PeerMethod, body: &[u8]) -> Decoded {
    match method {
        PeerMethod::NodeInfo => message::<NodeInfoRequest>(body),
        PeerMethod::Promise => message::<PromiseRequest>(body),
        PeerMethod::Settle => message::<SettleRequest>(body),
        PeerMethod::Join => message::<JoinRequest>(body),
        PeerMethod::Vote | PeerMethod::PreVote => message::<VoteRequest>(body),
        PeerMethod::Append => message::<AppendRequest>(body),
        PeerMethod::TransferLeader => message::<TransferRequest>(body),
        PeerMethod::SnapshotOffer => message::<SnapshotOffer>(body),
        PeerMethod::SnapshotChunk => message::<SnapshotChunk>(body),
        PeerMethod::SnapshotInstall => message::<SnapshotInstall>(body),
        PeerMethod::ReadIndex => message::<ReadIndexRequest>(body),
        PeerMethod::Propose => message::<ProposeRequest>(body),
        PeerMethod::Checkpoint => message::<CheckpointRequest>(body),
        PeerMethod::Tips => message::<TipsRequest>(body),
        PeerMethod::Membership => message::<MembershipRequest>(body),
        PeerMethod::WriteState => message::<WriteStateRequest>(body),
        PeerMethod::Compare => message::<CompareRequest>(body),
        PeerMethod::Repair => message::<RepairRequest>(body),
        PeerMethod::LedgerKey => message::<LedgerKeyRequest>(body),
    }
}

/// A body as the answer of a method.
pub fn peer_answer(method: PeerMethod, body: &[u8]) -> Decoded {
    match method {
        PeerMethod::NodeInfo => message::<NodeInfo>(body),
        PeerMethod::Promise => message::<PromiseAnswer>(body),
        PeerMethod::Settle => message::<SettleAnswer>(body),
        PeerMethod::Join => message::<JoinAnswer>(body),
        PeerMethod::Vote | PeerMethod::PreVote => message::<VoteAnswer>(body),
        PeerMethod::Append => message::<AppendAnswer>(body),
        PeerMethod::TransferLeader => message::<TransferAnswer>(body),
        PeerMethod::SnapshotOffer => message::<SnapshotOfferAnswer>(body),
        PeerMethod::SnapshotChunk => message::<SnapshotChunkAnswer>(body),
        PeerMethod::SnapshotInstall => message::<SnapshotInstallAnswer>(body),
        PeerMethod::ReadIndex => message::<ReadIndexAnswer>(body),
        PeerMethod::Propose => message::<ProposeAnswer>(body),
        PeerMethod::Checkpoint => message::<CheckpointAnswer>(body),
        PeerMethod::Tips => message::<TipsAnswer>(body),
        PeerMethod::Membership => message::<MembershipAnswer>(body),
        PeerMethod::WriteState => message::<WriteStateAnswer>(body),
        PeerMethod::Compare => message::<CompareAnswer>(body),
        PeerMethod::Repair => message::<RepairAnswer>(body),
        PeerMethod::LedgerKey => message::<LedgerKeyAnswer>(body),
    }
}

/// A text as the file `cluster` of a data directory.
pub fn cluster_file(text: &str) -> Decoded {
    kept(cluster_file_kept(text))
}

fn message<T: DeserializeOwned + Serialize + PartialEq>(body: &[u8]) -> Decoded {
    let decoded = messages::decode::<T>(body).ok();
    kept(decoded.map(|decoded| {
        let again = messages::encode(&decoded).and_then(|bytes| messages::decode::<T>(&bytes));
        again.is_ok_and(|again| again == decoded)
    }))
}

fn kept(kept: Option<bool>) -> Decoded {
    match kept {
        None => Decoded::Refused,
        Some(true) => Decoded::Kept,
        Some(false) => Decoded::Changed,
    }
}
