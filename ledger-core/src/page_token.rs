//! Page tokens: where a listing goes on, authenticated with the ledger's page key.
//!
//! A token is bound to its query, so it cannot be used with another filter, vault or namespace, and
//! works on every node of the ledger and after a restart, because the key is replicated state.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Longest token that is looked at, in characters.
pub const TOKEN_CHARACTERS_MAX: usize = 4_096;
const FORMAT: u8 = 1;
const TAG_BYTES: usize = 16;

/// A token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageTokenError {
    /// Not a token at all.
    #[error("the page token is malformed: send next_page_token back exactly as it came")]
    Malformed,
    /// Made by another ledger, for another query, or changed.
    #[error(
        "the page token does not belong to this query: repeat the query with the fields it came from, or start without a token"
    )]
    WrongQuery,
}

/// Makes the token that goes on after the row `after` of the query `scope`.
pub fn encode(page_key: &[u8; 32], scope: &[u8], after: &[u8]) -> String {
    let mut token = Vec::with_capacity(1 + TAG_BYTES + after.len());
    token.push(FORMAT);
    token.extend(tag(page_key, scope, after));
    token.extend_from_slice(after);
    URL_SAFE_NO_PAD.encode(token)
}

/// Checks a token against its query and returns the row it goes on after.
pub fn decode(page_key: &[u8; 32], scope: &[u8], token: &str) -> Result<Vec<u8>, PageTokenError> {
    if token.len() > TOKEN_CHARACTERS_MAX {
        return Err(PageTokenError::Malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenError::Malformed)?;
    let Some((&FORMAT, rest)) = bytes.split_first() else {
        return Err(PageTokenError::Malformed);
    };
    let Some((given, after)) = rest.split_at_checked(TAG_BYTES) else {
        return Err(PageTokenError::Malformed);
    };
    // The comparison leaks nothing useful: a token authorises no read that its bearer may not ask for anyway.
    if tag(page_key, scope, after).as_slice() == given {
        Ok(after.to_vec())
    } else {
        Err(PageTokenError::WrongQuery)
    }
}

fn tag(page_key: &[u8; 32], scope: &[u8], after: &[u8]) -> Vec<u8> {
    // HMAC pads a short key with zeros to the block of its hash (RFC 2104): the same key, without a fallible call.
    let mut block = [0_u8; 64];
    block.iter_mut().zip(page_key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(b"strongroom page token 1");
    mac.update(&(scope.len() as u64).to_be_bytes());
    mac.update(scope);
    mac.update(after);
    mac.finalize().into_bytes().into_iter().take(TAG_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_only_with_its_own_query_and_key() {
        let token = encode(&[1; 32], b"vault a, prefix x", b"row");
        assert_eq!(decode(&[1; 32], b"vault a, prefix x", &token), Ok(b"row".to_vec()));
        assert_eq!(decode(&[1; 32], b"vault a, prefix y", &token), Err(PageTokenError::WrongQuery));
        assert_eq!(decode(&[2; 32], b"vault a, prefix x", &token), Err(PageTokenError::WrongQuery));
        assert_eq!(decode(&[1; 32], b"vault a, prefix x", ""), Err(PageTokenError::Malformed));
        assert_eq!(decode(&[1; 32], b"vault a, prefix x", "%%%"), Err(PageTokenError::Malformed));
        for index in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            if let Some(byte) = changed.get_mut(index) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            let changed = String::from_utf8(changed).unwrap_or_default();
            if changed != token {
                assert!(decode(&[1; 32], b"vault a, prefix x", &changed).is_err(), "changed at {index}");
            }
        }
    }
}
