//! The bytes of a request and of its answer: one byte of version, then the message in postcard.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::transport::{PEER_BODY_BYTES_MAX, PeerRefusal};

/// Version of the messages between peers.
pub const PEER_MESSAGES_VERSION: u8 = 1;

/// Encodes a message.
///
/// # Errors
/// When it is larger than a request may be.
pub fn encode_body(message: &impl Serialize) -> Result<Bytes, PeerRefusal> {
    let malformed = |reason: String| PeerRefusal::Malformed { reason };
    let encoded = postcard::to_extend(message, vec![PEER_MESSAGES_VERSION]);
    let encoded = encoded.map_err(|error| malformed(error.to_string()))?;
    if encoded.len() > PEER_BODY_BYTES_MAX {
        return Err(malformed(format!("it has {} bytes, at most {PEER_BODY_BYTES_MAX} work", encoded.len())));
    }
    Ok(Bytes::from(encoded))
}

/// Decodes a message; bytes that are left over are refused.
///
/// # Errors
/// [`PeerRefusal::Malformed`], also for a version that this program does not know.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, PeerRefusal> {
    let malformed = |reason: String| PeerRefusal::Malformed { reason };
    match body.split_first() {
        Some((&PEER_MESSAGES_VERSION, message)) => match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => Err(malformed(format!("{} bytes are left over", rest.len()))),
            Err(error) => Err(malformed(error.to_string())),
        },
        Some((version, _)) => Err(malformed(format!(
            "its messages have version {version}, this program's have version {PEER_MESSAGES_VERSION}"
        ))),
        None => Err(malformed("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_version_and_the_message_and_nothing_else_is_read() {
        let body = encode_body(&(7_u64, "seven")).expect("small");
        assert_eq!(&body[..], b"\x01\x07\x05seven");
        assert_eq!(decode_body::<(u64, String)>(&body), Ok((7, "seven".to_owned())));
        for wrong in [&b""[..], b"\x02\x07\x05seven", b"\x01\x07\x05seve", b"\x01\x07\x05seven!"] {
            assert!(
                matches!(decode_body::<(u64, String)>(wrong), Err(PeerRefusal::Malformed { .. })),
                "{wrong:?}"
            );
        }
    }
}
