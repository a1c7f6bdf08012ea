//! Signed tokens: access tokens under Ed25519 whose keys rotate, and the profile `deepersensor` under HMAC-SHA256.
//!
//! Sources: RFC 7515 (JWS), RFC 7519 (claims), RFC 8037 (Ed25519), RFC 7638 (thumbprints), RFC 9068 (access tokens), RFC 8725 (what
//! others got wrong). Times are checked against the `now` of the caller. The algorithm is a property of the key; a header only may
//! agree with it. A header with any parameter but `alg`, `typ` and `kid` is refused, `jku`, `x5u`, `jwk` and `crit` among them.

mod access_token;
mod compact;
pub mod deepersensor;
mod keys;
mod keyset;

pub use access_token::{
    ACCESS_TOKEN_SECONDS_MAX, ACCESS_TOKEN_SECONDS_MIN, AccessClaims, AccessTokenIssuer, AccessTokenVerifier,
    IssueError, LEEWAY_SECONDS_MAX, VERIFIER_KEYS_MAX, VerifierError,
};
pub use compact::{TOKEN_BYTES_MAX, TokenRefusal};
pub use keys::{KeyError, PublicKey, SigningKey};
pub use keyset::{
    KEYSET_BYTES_MAX, KEYSET_ENTRIES_MAX, KeyState, Keyset, KeysetDecodeError, KeysetEntry, KeysetError,
    RotationPolicy, RotationPolicyError, RotationStep, SEALED_SEED_BYTES_MAX,
};
