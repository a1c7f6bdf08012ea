//! Bearer tokens: 256 random bits with a prefix that names the kind, stored only as a keyed hash that the kind is part of.
//!
//! Text: three characters of prefix, then 48 of base64url for the 32 random bytes and 4 of CRC-32C over prefix and bytes. The prefix
//! and the check let scanners find leaked tokens without false alarms, and let a typing error be refused without a look into the
//! store. Stored: the id of a key and BLAKE3 keyed with it, over version, purpose, key id and token: `docs/formats.md`.

use core::fmt;
use core::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// The length of every token's text, in bytes.
pub const TOKEN_TEXT_BYTES: usize = 51;
/// The length of a stored hash, in bytes: the key's id and 32 bytes of hash.
pub const TOKEN_HASH_BYTES: usize = 36;
/// The shortest secret that a key is derived from, in bytes.
pub const TOKEN_SECRET_BYTES_MIN: usize = 32;
/// At most so many keys are known at a time.
pub const TOKEN_KEYS_MAX: usize = 16;

const RANDOM_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
const HASH_VERSION: u8 = 1;
const KEY_CONTEXT: &str = "strongroom auth token hash key v1";

mod sealed {
    pub trait Sealed {}
}

/// What a token is for. A token or hash of one purpose has no type that fits another, and hashes differ besides.
pub trait TokenPurpose: sealed::Sealed + 'static {
    /// The first three characters of the text.
    const PREFIX: &'static str;
    /// The byte that goes into the hash. Never used again for something else.
    const NUMBER: u8;
    /// For logs.
    const NAME: &'static str;
}

macro_rules! purposes {
    ($($(#[$doc:meta])* $purpose:ident = $number:literal, $prefix:literal, $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $purpose {}
        impl sealed::Sealed for $purpose {}
        impl TokenPurpose for $purpose {
            const PREFIX: &'static str = $prefix;
            const NUMBER: u8 = $number;
            const NAME: &'static str = $name;
        }
    )*};
}

purposes! {
    /// A session's token.
    Session = 1, "as_", "session";
    /// A refresh token.
    Refresh = 2, "ar_", "refresh";
    /// The link that verifies an e-mail address.
    VerifyEmail = 3, "av_", "verify_email";
    /// The link that resets a password.
    ResetPassword = 4, "ap_", "reset_password";
    /// An OAuth authorization code.
    AuthorizationCode = 5, "ac_", "authorization_code";
    /// The code of a sign-in from the command line.
    CliCode = 6, "al_", "cli_code";
    /// A recovery code: see [`crate::recovery_codes`], which has a text form of its own.
    Recovery = 7, "rc_", "recovery";
    /// The secret half of an API key.
    ApiKey = 8, "ak_", "api_key";
}

/// The text is no token of this purpose. Nothing more is said: whoever guesses learns nothing from the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a token of this kind")]
pub struct TokenRefused;

/// 256 random bits for one purpose. Wiped when dropped, absent from `Debug`.
pub struct OpaqueToken<P> {
    bytes: Zeroizing<[u8; RANDOM_BYTES]>,
    purpose: PhantomData<fn() -> P>,
}

impl<P: TokenPurpose> OpaqueToken<P> {
    /// A new token. `random` comes from the system's generator and is used for nothing else.
    pub fn from_random(random: [u8; RANDOM_BYTES]) -> Self {
        Self { bytes: Zeroizing::new(random), purpose: PhantomData }
    }

    /// The text that is handed out, once.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut raw = Zeroizing::new([0; RANDOM_BYTES + CHECK_BYTES]);
        let (bytes, check) = raw.split_at_mut(RANDOM_BYTES);
        bytes.copy_from_slice(self.bytes.as_slice());
        check.copy_from_slice(&self.check());
        // All of it at once: a text that grows would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_TEXT_BYTES));
        text.push_str(P::PREFIX);
        URL_SAFE_NO_PAD.encode_string(raw.as_slice(), &mut text);
        text
    }

    /// Reads a text that somebody presents. How long that takes says nothing about any stored token: none is looked at.
    pub fn parse(text: &str) -> Result<Self, TokenRefused> {
        if text.len() != TOKEN_TEXT_BYTES {
            return Err(TokenRefused);
        }
        let encoded = text.strip_prefix(P::PREFIX).ok_or(TokenRefused)?;
        let mut raw = Zeroizing::new([0; RANDOM_BYTES + CHECK_BYTES]);
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, raw.as_mut_slice()).map_err(|_| TokenRefused)?;
        let (bytes, check) = raw.split_first_chunk::<RANDOM_BYTES>().ok_or(TokenRefused)?;
        let token = Self::from_random(*bytes);
        if length != raw.len() || !bool::from(check.ct_eq(&token.check())) {
            return Err(TokenRefused);
        }
        Ok(token)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        crc32c::crc32c_append(crc32c::crc32c(P::PREFIX.as_bytes()), self.bytes.as_slice()).to_be_bytes()
    }

    pub(crate) fn as_bytes(&self) -> &[u8; RANDOM_BYTES] {
        &self.bytes
    }
}

impl<P: TokenPurpose> fmt::Debug for OpaqueToken<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueToken<{}>(..)", P::NAME)
    }
}

/// What is stored of a token, and what it is looked up by.
pub struct TokenHash<P> {
    key_id: u32,
    hash: [u8; 32],
    purpose: PhantomData<fn() -> P>,
}

impl<P: TokenPurpose> TokenHash<P> {
    /// The stored form: the key's id, big-endian, then the hash.
    pub fn to_bytes(&self) -> [u8; TOKEN_HASH_BYTES] {
        let mut bytes = [0; TOKEN_HASH_BYTES];
        let (id, hash) = bytes.split_at_mut(4);
        id.copy_from_slice(&self.key_id.to_be_bytes());
        hash.copy_from_slice(&self.hash);
        bytes
    }

    /// Takes the stored form. Which purpose it was stored for is the caller's knowledge: a wrong one matches no token.
    pub fn from_bytes(bytes: [u8; TOKEN_HASH_BYTES]) -> Self {
        let [a, b, c, d, hash @ ..] = bytes;
        Self { key_id: u32::from_be_bytes([a, b, c, d]), hash, purpose: PhantomData }
    }

    /// The key that it was made with: rows whose key is no longer the current one are made anew when their token comes by.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }
}

impl<P> Clone for TokenHash<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for TokenHash<P> {}

impl<P> PartialEq for TokenHash<P> {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.hash.ct_eq(&other.hash) & self.key_id.ct_eq(&other.key_id))
    }
}

impl<P> Eq for TokenHash<P> {}

impl<P> core::hash::Hash for TokenHash<P> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
        self.key_id.hash(state);
    }
}

impl<P: TokenPurpose> fmt::Debug for TokenHash<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash<{}>(key {}, ..)", P::NAME, self.key_id)
    }
}

/// Why keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenKeyError {
    /// The secret is too short.
    #[error("the secret of a token key has at least {TOKEN_SECRET_BYTES_MIN} bytes, this one has {bytes}")]
    SecretLength {
        /// Its bytes.
        bytes: usize,
    },
    /// Two keys with one id.
    #[error("two token keys have the id {id}")]
    RepeatedId {
        /// The id.
        id: u32,
    },
    /// More than [`TOKEN_KEYS_MAX`].
    #[error("more than {TOKEN_KEYS_MAX} token keys")]
    TooMany,
}

/// A key of stored hashes, derived from a secret of the operator.
pub struct TokenKey {
    id: u32,
    key: Zeroizing<[u8; 32]>,
}

impl TokenKey {
    /// Derives a key. Another secret needs another id.
    pub fn new(id: u32, secret: &[u8]) -> Result<Self, TokenKeyError> {
        if secret.len() < TOKEN_SECRET_BYTES_MIN {
            return Err(TokenKeyError::SecretLength { bytes: secret.len() });
        }
        Ok(Self { id, key: Zeroizing::new(blake3::derive_key(KEY_CONTEXT, secret)) })
    }

    fn hash<P: TokenPurpose>(&self, secret: &[u8]) -> TokenHash<P> {
        // Version, purpose and key id before at most 32 bytes of secret: one block of BLAKE3, one compression.
        let mut preimage = Zeroizing::new([0; 6 + RANDOM_BYTES]);
        let length = preimage.len().min(6 + secret.len());
        let [a, b, c, d] = self.id.to_be_bytes();
        for (to, from) in preimage.iter_mut().zip([HASH_VERSION, P::NUMBER, a, b, c, d].iter().chain(secret))
        {
            *to = *from;
        }
        let hash = blake3::keyed_hash(&self.key, preimage.get(..length).unwrap_or_default());
        TokenHash { key_id: self.id, hash: *hash.as_bytes(), purpose: PhantomData }
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, ..)", self.id)
    }
}

/// Hashes tokens under the current key, and knows those that stored hashes were made with before.
#[derive(Debug)]
pub struct TokenHasher {
    /// The current one first; never empty.
    current: TokenKey,
    earlier: Vec<TokenKey>,
}

impl TokenHasher {
    /// `current` for new hashes; stored ones may be under any of `earlier` too.
    pub fn new(current: TokenKey, earlier: Vec<TokenKey>) -> Result<Self, TokenKeyError> {
        if earlier.len() >= TOKEN_KEYS_MAX {
            return Err(TokenKeyError::TooMany);
        }
        let mut ids: Vec<u32> = earlier.iter().map(|key| key.id).chain([current.id]).collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if let [a, b] = *pair
                && a == b
            {
                return Err(TokenKeyError::RepeatedId { id: a });
            }
        }
        Ok(Self { current, earlier })
    }

    /// What to store of a new token, and what to look for first.
    pub fn hash<P: TokenPurpose>(&self, token: &OpaqueToken<P>) -> TokenHash<P> {
        self.current.hash(token.as_bytes())
    }

    /// Under every key, the current one first: what to look for while a key is being replaced.
    pub fn hashes<P: TokenPurpose>(&self, token: &OpaqueToken<P>) -> impl Iterator<Item = TokenHash<P>> {
        core::iter::once(&self.current).chain(&self.earlier).map(|key| key.hash(token.as_bytes()))
    }

    /// Whether a stored hash is the token's, in constant time. One under an unknown key is not.
    pub fn matches<P: TokenPurpose>(&self, token: &OpaqueToken<P>, stored: &TokenHash<P>) -> bool {
        self.matches_bytes(token.as_bytes(), stored)
    }

    /// The id of the key that new hashes are made with.
    pub fn current_key_id(&self) -> u32 {
        self.current.id
    }

    pub(crate) fn hash_bytes<P: TokenPurpose>(&self, secret: &[u8; 16]) -> TokenHash<P> {
        self.current.hash(secret)
    }

    pub(crate) fn matches_bytes<P: TokenPurpose>(&self, secret: &[u8], stored: &TokenHash<P>) -> bool {
        core::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|key| key.id == stored.key_id)
            .is_some_and(|key| key.hash::<P>(secret) == *stored)
    }
}
