//! The two bearer tokens of a session, and what is stored of them: keyed hashes. `docs/formats.md` has every byte.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::fresh::FreshBytes;
use crate::ids::{FamilyId, SessionId};
use crate::key::Tenant;

/// Random bytes of a token.
pub const TOKEN_SECRET_BYTES: usize = 32;

/// Bytes of a sealed successor: a nonce, the secret, a tag.
pub const SEALED_SUCCESSOR_BYTES: usize = NONCE_BYTES + TOKEN_SECRET_BYTES + 16;

const SESSION_PREFIX: &str = "as_";
const REFRESH_PREFIX: &str = "ar_";
const NONCE_BYTES: usize = 24;
/// Id, secret, check.
const SESSION_BYTES: usize = 16 + TOKEN_SECRET_BYTES + CHECK_BYTES;
/// Key, family, generation, secret, tag, check.
const REFRESH_BYTES: usize = 4 + 16 + 8 + TOKEN_SECRET_BYTES + TAG_BYTES + CHECK_BYTES;
const TAG_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;
/// The longest text that is looked at.
const TEXT_BYTES_MAX: usize = 128;

/// By what a key for hashes is known. Its number is stored, and is never given to another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKeyId(pub u32);

/// The keys under which tokens are hashed. New tokens take the current one; those of an older key live until they end or
/// the key is left out.
#[derive(Clone)]
pub struct TokenKeys {
    current: TokenKeyId,
    current_key: Zeroizing<[u8; 32]>,
    older: BTreeMap<TokenKeyId, Zeroizing<[u8; 32]>>,
}

impl TokenKeys {
    /// This key for new tokens.
    pub fn new(current: TokenKeyId, key: [u8; 32]) -> Self {
        Self { current, current_key: Zeroizing::new(key), older: BTreeMap::new() }
    }

    /// An older key as well, for tokens that were made under it.
    #[must_use]
    pub fn with_older(mut self, id: TokenKeyId, key: [u8; 32]) -> Self {
        self.older.insert(id, Zeroizing::new(key));
        self
    }

    fn key(&self, id: TokenKeyId) -> Option<&[u8; 32]> {
        if id == self.current { Some(&self.current_key) } else { self.older.get(&id).map(|key| &**key) }
    }

    fn keyed(&self, id: TokenKeyId, domain: &str, parts: &[&[u8]]) -> Option<Zeroizing<[u8; 32]>> {
        let mut hasher = blake3::Hasher::new_keyed(self.key(id)?);
        hasher.update(domain.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        Some(Zeroizing::new(*hasher.finalize().as_bytes()))
    }
}

/// No key is in it.
impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "token keys, current {}, {} older", self.current.0, self.older.len())
    }
}

/// What is stored of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash {
    /// Under which key.
    pub key: TokenKeyId,
    /// BLAKE3 of the token under it.
    pub hash: [u8; 32],
}

impl TokenHash {
    /// Whether both are of one token. Takes as long when they differ early as when they differ late.
    pub fn matches(&self, other: &Self) -> bool {
        bool::from(self.hash.ct_eq(&other.hash)) && self.key == other.key
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hash under key {}", self.key.0)
    }
}

/// A token as it is shown to its holder, once. It is wiped when dropped and absent from `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TokenText(String);

impl TokenText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenText(..)")
    }
}

/// The token of a session: its id and 256 random bits.
pub struct SessionToken {
    session: SessionId,
    secret: Zeroizing<[u8; TOKEN_SECRET_BYTES]>,
}

impl SessionToken {
    /// A new one.
    pub fn mint(session: SessionId, fresh: &dyn FreshBytes) -> Self {
        Self { session, secret: Zeroizing::new(fresh.array()) }
    }

    /// The token of a text, when it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode::<SESSION_BYTES>(SESSION_PREFIX, text)?;
        let (session, rest) = bytes.split_first_chunk()?;
        let (secret, _) = rest.split_first_chunk()?;
        Some(Self { session: SessionId::from_bytes(*session), secret: Zeroizing::new(*secret) })
    }

    /// Of which session it says it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// As its holder sees it.
    pub fn text(&self) -> TokenText {
        encode(SESSION_PREFIX, &[&self.session.to_bytes(), &*self.secret])
    }

    /// What is stored of a new one.
    pub fn hash(&self, keys: &TokenKeys) -> Option<TokenHash> {
        self.hash_under(keys, keys.current)
    }

    /// Its hash under one of the keys, when that is known.
    pub fn hash_under(&self, keys: &TokenKeys, key: TokenKeyId) -> Option<TokenHash> {
        let parts: [&[u8]; 2] = [&self.session.to_bytes(), &*self.secret];
        let hash = keys.keyed(key, "strongroom session token v1\0", &parts)?;
        Some(TokenHash { key, hash: *hash })
    }
}

/// A refresh token: key, family, generation, 256 random bits, and a tag by which it is known to be ours even when nothing
/// of it is stored any more. Without the tag anybody who has seen an id could end the family with a made-up token.
pub struct RefreshToken {
    key: TokenKeyId,
    family: FamilyId,
    generation: u64,
    secret: Zeroizing<[u8; TOKEN_SECRET_BYTES]>,
}

impl RefreshToken {
    /// A new one, under the current key.
    pub fn mint(keys: &TokenKeys, family: FamilyId, generation: u64, fresh: &dyn FreshBytes) -> Self {
        Self { key: keys.current, family, generation, secret: Zeroizing::new(fresh.array()) }
    }

    /// The token of a text, when it is one of ours.
    pub fn parse(keys: &TokenKeys, text: &str) -> Option<Self> {
        let bytes = decode::<REFRESH_BYTES>(REFRESH_PREFIX, text)?;
        let (key, rest) = bytes.split_first_chunk()?;
        let (family, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let (tag, _) = rest.split_first_chunk::<TAG_BYTES>()?;
        let token = Self {
            key: TokenKeyId(u32::from_be_bytes(*key)),
            family: FamilyId::from_bytes(*family),
            generation: u64::from_be_bytes(*generation),
            secret: Zeroizing::new(*secret),
        };
        bool::from(token.tag(keys)?.ct_eq(tag)).then_some(token)
    }

    /// Of which family.
    pub fn family(&self) -> FamilyId {
        self.family
    }

    /// The how manieth of its family: 1, 2, 3 …
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// As its holder sees it; `None` when its key is not known any more.
    pub fn text(&self, keys: &TokenKeys) -> Option<TokenText> {
        let tag = self.tag(keys)?;
        let (key, generation) = (self.key.0.to_be_bytes(), self.generation.to_be_bytes());
        Some(encode(REFRESH_PREFIX, &[&key, &self.family.to_bytes(), &generation, &*self.secret, &tag]))
    }

    /// What is stored of it.
    pub fn hash(&self, keys: &TokenKeys) -> Option<TokenHash> {
        let hash = self.keyed(keys, "strongroom refresh token v1\0")?;
        Some(TokenHash { key: self.key, hash: *hash })
    }

    /// The successor's secret, so that only whoever has this token and the keys reads it.
    pub fn seal(
        &self,
        keys: &TokenKeys,
        tenant: Tenant,
        successor: &Self,
        fresh: &dyn FreshBytes,
    ) -> Option<[u8; SEALED_SUCCESSOR_BYTES]> {
        let nonce: [u8; NONCE_BYTES] = fresh.array();
        let aad = seal_context(tenant, successor.family, successor.generation);
        let payload = Payload { msg: &*successor.secret, aad: &aad };
        let sealed = self.cipher(keys)?.encrypt(&XNonce::from(nonce), payload).ok()?;
        let mut bytes = [0; SEALED_SUCCESSOR_BYTES];
        let (head, body) = bytes.split_first_chunk_mut::<NONCE_BYTES>()?;
        *head = nonce;
        (body.len() == sealed.len()).then(|| body.copy_from_slice(&sealed))?;
        Some(bytes)
    }

    /// The successor that was sealed under this token.
    pub fn open(
        &self,
        keys: &TokenKeys,
        tenant: Tenant,
        sealed: &[u8; SEALED_SUCCESSOR_BYTES],
        successor_key: TokenKeyId,
    ) -> Option<Self> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let generation = self.generation.checked_add(1)?;
        let aad = seal_context(tenant, self.family, generation);
        let payload = Payload { msg: body, aad: &aad };
        let secret = Zeroizing::new(self.cipher(keys)?.decrypt(&XNonce::from(*nonce), payload).ok()?);
        let secret = Zeroizing::new(<[u8; TOKEN_SECRET_BYTES]>::try_from(secret.as_slice()).ok()?);
        Some(Self { key: successor_key, family: self.family, generation, secret })
    }

    fn cipher(&self, keys: &TokenKeys) -> Option<XChaCha20Poly1305> {
        let key = self.keyed(keys, "strongroom refresh successor v1\0")?;
        XChaCha20Poly1305::new_from_slice(&*key).ok()
    }

    fn tag(&self, keys: &TokenKeys) -> Option<[u8; TAG_BYTES]> {
        self.keyed(keys, "strongroom refresh tag v1\0")?.first_chunk().copied()
    }

    fn keyed(&self, keys: &TokenKeys, domain: &str) -> Option<Zeroizing<[u8; 32]>> {
        let (family, generation) = (self.family.to_bytes(), self.generation.to_be_bytes());
        keys.keyed(self.key, domain, &[&self.key.0.to_be_bytes(), &family, &generation, &*self.secret])
    }
}

fn seal_context(tenant: Tenant, family: FamilyId, generation: u64) -> Vec<u8> {
    let mut aad = b"strongroom refresh successor v1\0".to_vec();
    aad.extend_from_slice(&tenant.0.to_be_bytes());
    aad.extend_from_slice(&family.to_bytes());
    aad.extend_from_slice(&generation.to_be_bytes());
    aad
}

/// The check is for those who search logs and repositories for secrets that leaked, and need no key for it.
fn encode(prefix: &str, parts: &[&[u8]]) -> TokenText {
    let mut bytes = Zeroizing::new(Vec::with_capacity(REFRESH_BYTES));
    for part in parts {
        bytes.extend_from_slice(part);
    }
    let check = check(prefix, &bytes);
    bytes.extend_from_slice(&check);
    let mut text = String::with_capacity(TEXT_BYTES_MAX);
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
    TokenText(text)
}

fn decode<const N: usize>(prefix: &str, text: &str) -> Option<Zeroizing<[u8; N]>> {
    let text = text.strip_prefix(prefix).filter(|text| text.len() <= TEXT_BYTES_MAX)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
    let (body, found) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    if *found != check(prefix, body) {
        return None;
    }
    <[u8; N]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

fn check(prefix: &str, body: &[u8]) -> [u8; CHECK_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(prefix.as_bytes()), body).to_be_bytes()
}
