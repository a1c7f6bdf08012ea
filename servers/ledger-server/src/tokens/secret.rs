//! Token texts.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ledger_core::access_token::TokenId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const ID_BYTES: usize = 8;
const ID_TEXT_BYTES: usize = 2 * ID_BYTES;
const SECRET_BYTES: usize = 32;
const PREFIX: &str = "sr_";
/// Bytes of a token's text: `sr_`, 16 hex digits, `_`, 43 characters of base64url.
const TEXT_BYTES: usize = PREFIX.len() + ID_TEXT_BYTES + 1 + 43;

/// The text of a token, `sr_<id>_<256 bit>`: the credential itself. It is shown once and never stored by the
/// server; `Debug` hides it and its memory is overwritten when it is dropped.
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    /// A new token from the operating system's randomness.
    pub(super) fn mint() -> Result<(TokenId, Self), getrandom::Error> {
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut *secret)?;
        let id = TokenId(id);
        // Filled in place: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(PREFIX);
        text.push_str(&id.to_string());
        text.push('_');
        URL_SAFE_NO_PAD.encode_string(secret.as_slice(), &mut text);
        Ok((id, Self(text)))
    }

    /// The text. It must not reach a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// The id in a token's text; `None` when the text cannot be a token.
pub(super) fn id_of(text: &str) -> Option<TokenId> {
    if text.len() != TEXT_BYTES {
        return None;
    }
    let (id, _secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    id.parse().ok()
}

/// SHA-256 of a token's text: what the server keeps. Tokens have 256 bits of randomness, so a plain hash
/// cannot be searched.
pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_has_the_documented_form_and_carries_its_id() {
        let (id, text) = TokenText::mint().unwrap();
        assert_eq!(text.expose().len(), TEXT_BYTES);
        assert_eq!(id_of(text.expose()), Some(id));
        assert_eq!(text.expose(), format!("sr_{id}_{}", &text.expose()[20..]));
        assert_eq!(format!("{text:?}"), "TokenText(redacted)");
        let (other_id, other) = TokenText::mint().unwrap();
        assert!(other_id != id && other.expose() != text.expose());
    }

    #[test]
    fn what_is_no_token_has_no_id() {
        let (_, text) = TokenText::mint().unwrap();
        let text = text.expose();
        for bad in [
            String::new(),
            text[..text.len() - 1].to_owned(),
            format!("{text}x"),
            text.replacen("sr_", "st_", 1),
            format!("sr_{}_{}", "A".repeat(16), "x".repeat(43)),
            format!("sr_{}", "é".repeat(30)),
        ] {
            assert_eq!(id_of(&bad), None, "{bad}");
        }
    }
}
