//! The compact serialization of JWS (RFC 7515 section 7.1), read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Longer tokens are not looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// Why a token is not accepted. A server answers all of them alike; the reason is for its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// Not three parts of canonical base64url, too long, or a header that is not the JSON it should be.
    #[error("not a signed token")]
    Malformed,
    /// The type is not that of an access token: an ID token, say, or one of another profile.
    #[error("a token of another type")]
    WrongType,
    /// The header's algorithm is not the key's. `none` is here.
    #[error("the algorithm is not the key's")]
    WrongAlgorithm,
    /// No key of that name.
    #[error("an unknown key")]
    UnknownKey,
    /// Changed, or signed by something else.
    #[error("a wrong signature")]
    WrongSignature,
    /// The signature is right and the claims are not what such a token has: one is missing, twice there, or of another JSON type.
    #[error("malformed claims")]
    MalformedClaims,
    /// Another issuer.
    #[error("another issuer")]
    WrongIssuer,
    /// For somebody else.
    #[error("another audience")]
    WrongAudience,
    /// Past its end.
    #[error("expired")]
    Expired,
    /// Of the future.
    #[error("not yet valid")]
    NotYetValid,
    /// Valid for longer than such a token may be.
    #[error("valid for too long")]
    LifetimeTooLong,
}

/// The header: these three parameters, each once, and no other. Whatever else one may say (`jku`, `x5u`, `jwk`, `crit`, `b64`) would
/// let the token choose how it is verified.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

pub(super) struct Compact<'a> {
    pub(super) header: &'a str,
    payload: &'a str,
    signature: &'a str,
    pub(super) signing_input: &'a str,
}

impl<'a> Compact<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, TokenRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Malformed);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(TokenRefusal::Malformed)?;
        // A dot too many is in the payload, whose alphabet has none.
        Ok(Self { header, payload, signature, signing_input })
    }

    pub(super) fn read_header(&self) -> Result<Header, TokenRefusal> {
        let json = URL_SAFE_NO_PAD.decode(self.header).map_err(|_| TokenRefusal::Malformed)?;
        object(&json).ok_or(TokenRefusal::Malformed)
    }

    pub(super) fn read_signature<const N: usize>(&self) -> Result<[u8; N], TokenRefusal> {
        let mut bytes = [0; N];
        match URL_SAFE_NO_PAD.decode_slice(self.signature, &mut bytes) {
            Ok(length) if length == N => Ok(bytes),
            _ => Err(TokenRefusal::WrongSignature),
        }
    }

    /// For a token whose signature was verified.
    pub(super) fn read_claims<T: DeserializeOwned>(&self) -> Result<T, TokenRefusal> {
        let json = URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| TokenRefusal::Malformed)?;
        object(&json).ok_or(TokenRefusal::MalformedClaims)
    }
}

/// Derived code would take an array of the members' values too.
fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten()
}

/// The times of a token, in seconds since 1970.
pub(super) struct Validity {
    pub(super) issued_at: u64,
    pub(super) not_before: Option<u64>,
    pub(super) expires_at: u64,
    pub(super) lifetime_max: u64,
}

impl Validity {
    pub(super) fn check(&self, now_ms: u64, leeway: u64) -> Result<(), TokenRefusal> {
        let now = now_ms / 1_000;
        if self.expires_at.checked_sub(self.issued_at).is_none_or(|lifetime| lifetime > self.lifetime_max) {
            return Err(TokenRefusal::LifetimeTooLong);
        }
        if now >= self.expires_at.saturating_add(leeway) {
            return Err(TokenRefusal::Expired);
        }
        let begins = self.issued_at.max(self.not_before.unwrap_or_default());
        if begins > now.saturating_add(leeway) {
            return Err(TokenRefusal::NotYetValid);
        }
        Ok(())
    }
}
