//! What peers say to each other, byte for byte: one format byte, then postcard of the plain structs here.
//!
//! No type of the consensus engine is among them. The layouts are frozen in `docs/formats.md`.

mod consensus;
mod service;
mod snapshot;

pub(crate) use consensus::{
    AppendAnswer, AppendOutcome, AppendRequest, TransferAnswer, TransferRequest, VoteAnswer, VoteRequest,
    WireLogId, WireRecord, WireVote,
};
pub(crate) use service::{
    CheckpointAnswer, CheckpointRequest, CompareAnswer, CompareRequest, DigestAnswer, DigestPoint,
    ForwardedFailure, ForwardedWrite, JoinAnswer, JoinRequest, LeaderBlock, LedgerKeyAnswer,
    LedgerKeyRequest, MembershipAnswer, MembershipRequest, ProposeAnswer, ProposeRequest, ReadIndexAnswer,
    ReadIndexRequest, RepairAnswer, RepairRequest, TipsAnswer, TipsRequest, VaultTip, WriteStateAnswer,
    WriteStateRequest,
};
pub(crate) use snapshot::{
    SnapshotChunk, SnapshotChunkAnswer, SnapshotInstall, SnapshotInstallAnswer, SnapshotOffer,
    SnapshotOfferAnswer,
};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format byte of every message.
const FORMAT: u8 = 1;
/// What a message is expected to need at least, so that small ones are written without growing.
const CAPACITY: usize = 256;

/// Bytes that are no message of the kind that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(
        "a message has format {found:?}; this program speaks format {FORMAT}: bring both nodes to one release"
    )]
    Format { found: Option<u8> },
    #[error("a message does not decode: {0}")]
    Malformed(postcard::Error),
}

/// Format byte, then postcard.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, MessageError> {
    encode_with_room(message, CAPACITY)
}

/// As [`encode`], for a message of about so many bytes.
pub(crate) fn encode_with_room<T: Serialize>(message: &T, bytes: usize) -> Result<Bytes, MessageError> {
    let mut buffer = Vec::with_capacity(bytes.max(CAPACITY));
    buffer.push(FORMAT);
    postcard::to_extend(message, buffer).map(Bytes::from).map_err(MessageError::Malformed)
}

/// The reverse of [`encode`]; trailing bytes are refused.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let Some((&FORMAT, body)) = bytes.split_first() else {
        return Err(MessageError::Format { found: bytes.first().copied() });
    };
    let (message, rest) = postcard::take_from_bytes(body).map_err(MessageError::Malformed)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(MessageError::Malformed(postcard::Error::DeserializeBadEncoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_format_or_with_trailing_bytes_is_refused() {
        let bytes = encode(&ReadIndexAnswer { index: 7 }).unwrap();
        assert_eq!(decode::<ReadIndexAnswer>(&bytes).unwrap().index, 7);
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert_eq!(decode::<ReadIndexAnswer>(&newer).unwrap_err(), MessageError::Format { found: Some(2) });
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(decode::<ReadIndexAnswer>(&longer), Err(MessageError::Malformed(_))));
        assert_eq!(decode::<ReadIndexAnswer>(&[]).unwrap_err(), MessageError::Format { found: None });
    }
}
