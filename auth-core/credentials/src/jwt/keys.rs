//! Ed25519 keys: made from a seed, checked when they come from outside, named by their thumbprint.

use core::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the canonical encoding of a point of the curve.
    #[error("not an Ed25519 key")]
    Malformed,
    /// A point of small order: signatures that hold for it can be made without any private key.
    #[error("a weak Ed25519 key")]
    Weak,
}

/// A public key, parsed once. Its name is its thumbprint.
#[derive(Clone)]
pub struct PublicKey {
    bytes: [u8; 32],
    parsed: ParsedPublicKey,
    kid: Box<str>,
}

impl PublicKey {
    /// Checks the 32 bytes of RFC 8032: on the curve, in canonical encoding, not of small order.
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let point = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Malformed)?;
        if point.is_weak() {
            return Err(KeyError::Weak);
        }
        // The decoder takes a coordinate beyond the field's prime for the smaller one it equals.
        if point.to_edwards().compress().to_bytes() != bytes {
            return Err(KeyError::Malformed);
        }
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| KeyError::Malformed)?;
        // RFC 7638 section 3: the required members, in the order of their names, without white space.
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(bytes));
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes())).into_boxed_str();
        Ok(Self { bytes, parsed, kid })
    }

    /// Its 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.bytes
    }

    /// RFC 7638 thumbprint with SHA-256, base64url: 43 characters.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as a member of a JWKS (RFC 8037 section 2).
    pub fn to_jwk(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.bytes);
        format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"{}","x":"{x}"}}"#, self.kid)
    }

    /// Whether `signature` (64 bytes) is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kid)
    }
}

/// A private key, parsed once. The library wipes it when it is dropped.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a seed: 32 fresh random bytes, or what an envelope held.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Malformed)?;
        let bytes = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self { pair, public: PublicKey::new(bytes)? })
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature over `message`, 64 bytes. `None`: the library failed, which it documents for lack of memory alone.
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        self.pair.try_sign(message).ok()?.as_ref().try_into().ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, ..)", self.public.kid)
    }
}
