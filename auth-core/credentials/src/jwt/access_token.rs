//! Access tokens of people (RFC 9068) under Ed25519: issued with parsed keys and ready-made headers, verified against an injected time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::compact::{Compact, TOKEN_BYTES_MAX, TokenRefusal, Validity};
use super::keys::{PublicKey, SigningKey};

/// The shortest life of an access token, in seconds.
pub const ACCESS_TOKEN_SECONDS_MIN: u64 = 30;
/// The longest life of an access token, in seconds: whoever asks for more gets none, and one that claims more is refused.
pub const ACCESS_TOKEN_SECONDS_MAX: u64 = 900;
/// The most that clocks may differ, in seconds.
pub const LEEWAY_SECONDS_MAX: u64 = 30;
/// At most so many keys verify at a time.
pub const VERIFIER_KEYS_MAX: usize = 16;

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "at+jwt";

/// What an access token says, its issuer apart. Times in seconds since 1970, as RFC 7519 has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `sub`: the user.
    pub subject: String,
    /// `aud`: the resource that it is for.
    pub audience: String,
    /// `client_id`: the program that it was given to.
    pub client_id: String,
    /// `jti`: 128 random bits as text.
    pub token_id: String,
    /// `sid`: the session that it belongs to; its public id, not its token.
    pub session_id: String,
    /// `uep`: the user's epoch when it was issued. The caller refuses one below the user's present epoch.
    pub user_epoch: u64,
    /// `auth_time`: when the person last signed in.
    pub authenticated_at_s: u64,
    /// `acr`: the assurance level.
    pub assurance: String,
    /// `amr`: the methods of the sign-in (RFC 8176).
    pub methods: Vec<String>,
    /// `scope`: words between spaces.
    pub scope: String,
    /// `iat`.
    pub issued_at_s: u64,
    /// `exp`.
    pub expires_at_s: u64,
}

#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    sid: &'a str,
    uep: u64,
    auth_time: u64,
    acr: &'a str,
    amr: &'a [String],
    scope: &'a str,
}

/// The same for reading. A claim that is there twice is refused by the derived code; numbers are numbers (CVE-2026-25537 took text).
/// Claims that are not listed are ignored (RFC 7519 section 4), so that older servers take tokens of newer ones.
#[derive(Deserialize)]
struct Read {
    iss: String,
    sub: String,
    aud: Audience,
    client_id: String,
    iat: u64,
    exp: u64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    jti: String,
    sid: String,
    uep: u64,
    auth_time: u64,
    acr: String,
    amr: Vec<String>,
    scope: String,
    /// A token bound to a key is no bearer token.
    cnf: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// `null` is no time.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

/// Why no token was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The life is outside of [`ACCESS_TOKEN_SECONDS_MIN`] to [`ACCESS_TOKEN_SECONDS_MAX`].
    #[error("an access token lives {ACCESS_TOKEN_SECONDS_MIN} to {ACCESS_TOKEN_SECONDS_MAX} s")]
    Lifetime,
    /// The claims are too long: the token would be refused.
    #[error("an access token has at most {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The library that signs failed.
    #[error("signing failed")]
    Signing,
}

/// Issues under one key.
#[derive(Debug)]
pub struct AccessTokenIssuer {
    issuer: Box<str>,
    key: SigningKey,
    /// The header of every token under this key, encoded, with the dot behind it.
    header: Box<str>,
}

impl AccessTokenIssuer {
    /// `issuer` is the `iss` of every token, `key` the active one of the keyset.
    pub fn new(issuer: &str, key: SigningKey) -> Self {
        let mut header = encoded_header(key.public());
        header.push('.');
        Self { issuer: Box::from(issuer), key, header: header.into_boxed_str() }
    }

    /// The token's text.
    pub fn issue(&self, claims: &AccessClaims) -> Result<String, IssueError> {
        let lifetime = claims.expires_at_s.checked_sub(claims.issued_at_s).ok_or(IssueError::Lifetime)?;
        if !(ACCESS_TOKEN_SECONDS_MIN..=ACCESS_TOKEN_SECONDS_MAX).contains(&lifetime) {
            return Err(IssueError::Lifetime);
        }
        let json = serde_json::to_vec(&Written {
            iss: &self.issuer,
            sub: &claims.subject,
            aud: &claims.audience,
            client_id: &claims.client_id,
            iat: claims.issued_at_s,
            exp: claims.expires_at_s,
            jti: &claims.token_id,
            sid: &claims.session_id,
            uep: claims.user_epoch,
            auth_time: claims.authenticated_at_s,
            acr: &claims.assurance,
            amr: &claims.methods,
            scope: &claims.scope,
        })
        .map_err(|_| IssueError::TooLong)?;
        if json.len() > TOKEN_BYTES_MAX {
            return Err(IssueError::TooLong);
        }
        let mut token = String::with_capacity(self.header.len() + json.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        let signature = self.key.sign(token.as_bytes()).ok_or(IssueError::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > TOKEN_BYTES_MAX { Err(IssueError::TooLong) } else { Ok(token) }
    }
}

/// Why a verifier cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// More than [`LEEWAY_SECONDS_MAX`].
    #[error("clocks may differ by at most {LEEWAY_SECONDS_MAX} s")]
    Leeway,
    /// No key, or more than [`VERIFIER_KEYS_MAX`].
    #[error("from 1 to {VERIFIER_KEYS_MAX} keys verify")]
    Keys,
}

/// Verifies tokens of one issuer for one audience. Made anew when the keyset changes; all that it holds is ready for use.
#[derive(Debug)]
pub struct AccessTokenVerifier {
    issuer: Box<str>,
    audience: Box<str>,
    leeway_s: u64,
    /// Each key beside the header that this crate writes for it: such a token's header need not be parsed.
    keys: Vec<(Box<str>, PublicKey)>,
}

impl AccessTokenVerifier {
    /// `keys` are those of the keyset that are published.
    pub fn new(
        issuer: &str,
        audience: &str,
        leeway_s: u64,
        keys: impl IntoIterator<Item = PublicKey>,
    ) -> Result<Self, VerifierError> {
        if leeway_s > LEEWAY_SECONDS_MAX {
            return Err(VerifierError::Leeway);
        }
        let keys: Vec<_> = keys
            .into_iter()
            .take(VERIFIER_KEYS_MAX + 1)
            .map(|key| (encoded_header(&key).into_boxed_str(), key))
            .collect();
        if keys.is_empty() || keys.len() > VERIFIER_KEYS_MAX {
            return Err(VerifierError::Keys);
        }
        Ok(Self { issuer: Box::from(issuer), audience: Box::from(audience), leeway_s, keys })
    }

    /// The claims of a token that is signed, of the right type, for this audience and valid at `now_ms` (ms since 1970). Whether the
    /// session lives and the epoch is the user's, the caller asks its store.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<AccessClaims, TokenRefusal> {
        let compact = Compact::split(token)?;
        let key = self.key_for(&compact)?;
        let signature = compact.read_signature::<64>()?;
        if !key.verifies(compact.signing_input.as_bytes(), &signature) {
            return Err(TokenRefusal::WrongSignature);
        }
        let read: Read = compact.read_claims()?;
        if read.cnf.is_some() {
            return Err(TokenRefusal::WrongType);
        }
        if *read.iss != *self.issuer {
            return Err(TokenRefusal::WrongIssuer);
        }
        let named = match &read.aud {
            Audience::One(one) => **one == *self.audience,
            Audience::Several(several) => several.iter().any(|one| **one == *self.audience),
        };
        if !named {
            return Err(TokenRefusal::WrongAudience);
        }
        Validity {
            issued_at: read.iat,
            not_before: read.nbf,
            expires_at: read.exp,
            lifetime_max: ACCESS_TOKEN_SECONDS_MAX,
        }
        .check(now_ms, self.leeway_s)?;
        Ok(AccessClaims {
            subject: read.sub,
            audience: self.audience.to_string(),
            client_id: read.client_id,
            token_id: read.jti,
            session_id: read.sid,
            user_epoch: read.uep,
            authenticated_at_s: read.auth_time,
            assurance: read.acr,
            methods: read.amr,
            scope: read.scope,
            issued_at_s: read.iat,
            expires_at_s: read.exp,
        })
    }

    fn key_for(&self, compact: &Compact<'_>) -> Result<&PublicKey, TokenRefusal> {
        if let Some((_, key)) = self.keys.iter().find(|(header, _)| **header == *compact.header) {
            return Ok(key);
        }
        let header = compact.read_header()?;
        if header.typ != TYPE {
            return Err(TokenRefusal::WrongType);
        }
        let (_, key) =
            self.keys.iter().find(|(_, key)| key.kid() == header.kid).ok_or(TokenRefusal::UnknownKey)?;
        if header.alg != ALGORITHM {
            return Err(TokenRefusal::WrongAlgorithm);
        }
        Ok(key)
    }
}

fn encoded_header(key: &PublicKey) -> String {
    // A thumbprint is base64url: nothing in it needs escaping.
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"{}"}}"#, key.kid()))
}
