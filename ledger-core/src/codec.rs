//! The encoding of what is replicated: one format byte, then postcard.
//!
//! Values are decoded through the same constructors that clients' input goes through, so a decoded
//! proposal keeps every limit of the data model.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::Proposal;

/// Format of encoded proposals and of the rows encoded here.
pub const FORMAT: u8 = 1;

/// Bytes that are not an encoding of what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The first byte names another format.
    #[error("{what} has format {found:?}; this program reads format {FORMAT}")]
    Format {
        /// What was decoded.
        what: &'static str,
        /// The format found; `None` = no byte at all.
        found: Option<u8>,
    },
    /// The bytes do not decode, or break a limit of the data model.
    #[error("{what} does not decode: {source}")]
    Malformed {
        /// What was decoded.
        what: &'static str,
        /// Why.
        #[source]
        source: postcard::Error,
    },
}

/// Encodes a proposal for the log.
pub fn encode_proposal(proposal: &Proposal) -> Result<Bytes, CodecError> {
    encode("a proposal", proposal)
}

/// Decodes a proposal from the log.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, CodecError> {
    decode("a proposal", bytes)
}

/// Format byte, then postcard.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Bytes, CodecError> {
    postcard::to_extend(value, vec![FORMAT])
        .map(Bytes::from)
        .map_err(|source| CodecError::Malformed { what, source })
}

/// The reverse of [`encode`]; trailing bytes are refused.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let Some((&FORMAT, body)) = bytes.split_first() else {
        return Err(CodecError::Format { what, found: bytes.first().copied() });
    };
    let malformed = |source| CodecError::Malformed { what, source };
    let (value, rest) = postcard::take_from_bytes(body).map_err(malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(malformed(postcard::Error::DeserializeBadEncoding)) }
}
