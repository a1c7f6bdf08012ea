//! The profile `deepersensor`: access and refresh tokens under HMAC-SHA256, for services that share a secret with their gateway.
//!
//! The header is `{"alg":"HS256","typ":"JWT","kid":"ID"}`, the claims are `iss sub iat exp jti typ`; `typ` is `access` or `refresh`
//! and checked, so neither passes for the other. The secret may be replaced while tokens under the earlier one stay valid.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

use super::access_token::LEEWAY_SECONDS_MAX;
use super::compact::{Compact, TOKEN_BYTES_MAX, TokenRefusal, Validity};

/// The default life of an access token, in seconds.
pub const ACCESS_SECONDS: u64 = 900;
/// The default life of a refresh token, in seconds: 14 days.
pub const REFRESH_SECONDS: u64 = 1_209_600;
/// The longest life that may be configured, in seconds: 90 days.
pub const SECONDS_MAX: u64 = 7_776_000;
/// The shortest secret, in bytes: RFC 7518 section 3.2 asks for the length of the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// At most so many earlier secrets verify.
pub const EARLIER_KEYS_MAX: usize = 8;

const ALGORITHM: &str = "HS256";
const TYPE: &str = "JWT";

/// What a token of this profile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenUse {
    /// It opens a resource.
    Access,
    /// It gets the next access token.
    Refresh,
}

/// What a token says, its issuer apart. Times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the user.
    pub subject: String,
    /// `jti`: 128 random bits as text.
    pub token_id: String,
    /// `typ`.
    pub token_use: TokenUse,
    /// `iat`.
    pub issued_at_s: u64,
    /// `exp`.
    pub expires_at_s: u64,
}

/// How long tokens live, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Access tokens: [`ACCESS_SECONDS`].
    pub access_s: u64,
    /// Refresh tokens: [`REFRESH_SECONDS`].
    pub refresh_s: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { access_s: ACCESS_SECONDS, refresh_s: REFRESH_SECONDS }
    }
}

/// Why a profile cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A secret is too short.
    #[error("the secret has at least {SECRET_BYTES_MIN} bytes, this one has {bytes}")]
    SecretLength {
        /// Its bytes.
        bytes: usize,
    },
    /// Two secrets with one id.
    #[error("two secrets have the id {id}")]
    RepeatedId {
        /// The id.
        id: u32,
    },
    /// More than [`EARLIER_KEYS_MAX`].
    #[error("more than {EARLIER_KEYS_MAX} earlier secrets")]
    TooMany,
    /// A life of no time, or longer than [`SECONDS_MAX`].
    #[error("tokens live 1 to {SECONDS_MAX} s")]
    Lifetime,
    /// More than 30 seconds.
    #[error("clocks may differ by at most {LEEWAY_SECONDS_MAX} s")]
    Leeway,
}

/// A secret under an id, ready for use.
pub struct SharedKey {
    id: u32,
    mac: Hmac<Sha256>,
    header: Box<str>,
}

impl SharedKey {
    /// The secret's bytes are the key of HMAC as they are, so that other libraries verify with the same text.
    pub fn new(id: u32, secret: &[u8]) -> Result<Self, ProfileError> {
        let short = ProfileError::SecretLength { bytes: secret.len() };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(short);
        }
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).map_err(|_| short)?;
        let header =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"{id}"}}"#));
        Ok(Self { id, mac, header: header.into_boxed_str() })
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({}, ..)", self.id)
    }
}

/// A secret that signs no more.
#[derive(Debug)]
pub struct EarlierKey {
    /// The secret.
    pub key: SharedKey,
    /// Its tokens are refused from then on, ms since 1970: the time of its replacement plus the life of a refresh token keeps all
    /// of them alive.
    pub until_ms: u64,
}

/// Issues and verifies tokens of one issuer.
#[derive(Debug)]
pub struct Profile {
    issuer: Box<str>,
    lifetimes: Lifetimes,
    leeway_s: u64,
    current: SharedKey,
    earlier: Vec<EarlierKey>,
}

#[derive(Serialize, Deserialize)]
struct Json<S> {
    iss: S,
    sub: S,
    iat: u64,
    exp: u64,
    jti: S,
    typ: TokenUse,
}

impl Profile {
    /// `current` signs; `earlier` verify until their time.
    pub fn new(
        issuer: &str,
        lifetimes: Lifetimes,
        leeway_s: u64,
        current: SharedKey,
        earlier: Vec<EarlierKey>,
    ) -> Result<Self, ProfileError> {
        if leeway_s > LEEWAY_SECONDS_MAX {
            return Err(ProfileError::Leeway);
        }
        let allowed = 1..=SECONDS_MAX;
        if !allowed.contains(&lifetimes.access_s) || !allowed.contains(&lifetimes.refresh_s) {
            return Err(ProfileError::Lifetime);
        }
        if earlier.len() > EARLIER_KEYS_MAX {
            return Err(ProfileError::TooMany);
        }
        let mut ids: Vec<u32> = earlier.iter().map(|earlier| earlier.key.id).chain([current.id]).collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if let [a, b] = *pair
                && a == b
            {
                return Err(ProfileError::RepeatedId { id: a });
            }
        }
        Ok(Self { issuer: Box::from(issuer), lifetimes, leeway_s, current, earlier })
    }

    /// A token for `subject`. `None`: the subject or the id is so long that the token would be refused.
    pub fn issue(&self, subject: &str, token_id: &str, token_use: TokenUse, now_ms: u64) -> Option<String> {
        let iat = now_ms / 1_000;
        let exp = iat.saturating_add(self.lifetime(token_use));
        let (iss, sub, jti) = (&*self.issuer, subject, token_id);
        let json = serde_json::to_vec(&Json { iss, sub, iat, exp, jti, typ: token_use }).ok()?;
        let mut token = String::with_capacity(self.current.header.len() + json.len() * 4 / 3 + 48);
        token.push_str(&self.current.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        let tag = self.current.mac.clone().chain_update(token.as_bytes()).finalize().into_bytes();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(tag, &mut token);
        (token.len() <= TOKEN_BYTES_MAX).then_some(token)
    }

    /// The claims of a token that is of this issuer and this use, and valid at `now_ms` (ms since 1970).
    pub fn verify(&self, token: &str, token_use: TokenUse, now_ms: u64) -> Result<Claims, TokenRefusal> {
        let compact = Compact::split(token)?;
        let key = self.key_for(&compact, now_ms)?;
        let tag = compact.read_signature::<32>()?;
        let mac = key.mac.clone().chain_update(compact.signing_input.as_bytes());
        // In constant time.
        mac.verify_slice(&tag).map_err(|_| TokenRefusal::WrongSignature)?;
        let read: Json<String> = compact.read_claims()?;
        if read.typ != token_use {
            return Err(TokenRefusal::WrongType);
        }
        if *read.iss != *self.issuer {
            return Err(TokenRefusal::WrongIssuer);
        }
        // The largest that may be configured, not the configured one: shortening it must not end tokens that exist.
        Validity { issued_at: read.iat, not_before: None, expires_at: read.exp, lifetime_max: SECONDS_MAX }
            .check(now_ms, self.leeway_s)?;
        Ok(Claims {
            subject: read.sub,
            token_id: read.jti,
            token_use,
            issued_at_s: read.iat,
            expires_at_s: read.exp,
        })
    }

    fn lifetime(&self, token_use: TokenUse) -> u64 {
        match token_use {
            TokenUse::Access => self.lifetimes.access_s,
            TokenUse::Refresh => self.lifetimes.refresh_s,
        }
    }

    fn key_for(&self, compact: &Compact<'_>, now_ms: u64) -> Result<&SharedKey, TokenRefusal> {
        let earlier =
            self.earlier.iter().filter(|earlier| now_ms < earlier.until_ms).map(|earlier| &earlier.key);
        let mut keys = core::iter::once(&self.current).chain(earlier);
        if *self.current.header == *compact.header {
            return Ok(&self.current);
        }
        let header = compact.read_header()?;
        if header.typ != TYPE {
            return Err(TokenRefusal::WrongType);
        }
        let key = keys.find(|key| key.id.to_string() == header.kid).ok_or(TokenRefusal::UnknownKey)?;
        if header.alg != ALGORITHM {
            return Err(TokenRefusal::WrongAlgorithm);
        }
        Ok(key)
    }
}
