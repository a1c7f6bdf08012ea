//! Envelopes: secrets at rest, encrypted under a key that is not in the store, and bound to the row that they belong to.
//!
//! XChaCha20-Poly1305 with 24 random bytes as nonce: at random they never repeat under one key. The associated data are the header
//! and the row's tenant, kind and id, each behind its length, so an envelope opens nowhere else. Three kinds of key, which the header
//! names: the operator's key-encryption keys, a data key of one user (wrapped by those, and deleted with the account: what was
//! sealed under it is then lost for good), and a key that a bearer token carries. The bytes are in `docs/formats.md`.

use core::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::opaque_token::{OpaqueToken, TokenPurpose};

/// The longest content of an envelope, in bytes.
pub const CONTENT_BYTES_MAX: usize = 65_536;
/// What an envelope adds to its content, in bytes: header 6, nonce 24, tag 16.
pub const ENVELOPE_OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
/// The shortest secret of a key-encryption key, in bytes.
pub const KEY_ENCRYPTION_SECRET_BYTES_MIN: usize = 32;
/// At most so many key-encryption keys are known at a time.
pub const KEY_ENCRYPTION_KEYS_MAX: usize = 64;
/// The longest tenant, kind or id, in bytes.
pub const ROW_FIELD_BYTES_MAX: usize = 1_024;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 6;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const ASSOCIATED_DATA_TAG: &[u8] = b"SRAE";
const KEY_ENCRYPTION_CONTEXT: &str = "strongroom auth key encryption key v1";
const TOKEN_SEALING_CONTEXT: &str = "strongroom auth token sealing key v1";

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Scheme {
    KeyEncryption = 1,
    DataKey = 2,
    Token = 3,
}

/// The row that an envelope belongs to. At another place, even of the same store, it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The tenant.
    pub tenant: &'a [u8],
    /// The kind of row and field: `totp_secret`, `signing_key`.
    pub kind: &'a str,
    /// The row's id.
    pub id: &'a [u8],
}

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// More than [`CONTENT_BYTES_MAX`].
    #[error("the content of an envelope has at most {CONTENT_BYTES_MAX} bytes, this has {bytes}")]
    ContentTooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// A field of the row is longer than [`ROW_FIELD_BYTES_MAX`].
    #[error("a field of the row of an envelope has at most {ROW_FIELD_BYTES_MAX} bytes")]
    RowTooLong,
}

/// Why an envelope does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not an envelope, or one of a version or under a kind of key that was not asked for.
    #[error("not an envelope of this kind")]
    Malformed,
    /// Under a key that is not known: it was retired too early, or the data belong to another installation.
    #[error("the key-encryption key {key_id} is not known")]
    UnknownKey {
        /// Its id.
        key_id: u32,
    },
    /// Changed, under another key of the same id, or taken from another row.
    #[error("an envelope that was changed or belongs elsewhere")]
    Refused,
}

/// Why keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyEncryptionKeyError {
    /// The secret is too short.
    #[error(
        "a key-encryption secret has at least {KEY_ENCRYPTION_SECRET_BYTES_MIN} bytes, this one has {bytes}"
    )]
    SecretLength {
        /// Its bytes.
        bytes: usize,
    },
    /// Two keys with one id.
    #[error("two key-encryption keys have the id {id}")]
    RepeatedId {
        /// The id.
        id: u32,
    },
    /// More than [`KEY_ENCRYPTION_KEYS_MAX`].
    #[error("more than {KEY_ENCRYPTION_KEYS_MAX} key-encryption keys")]
    TooMany,
}

/// A key derived from the operator's key-encryption secret.
pub struct KeyEncryptionKey {
    id: u32,
    key: Zeroizing<[u8; 32]>,
}

impl KeyEncryptionKey {
    /// Derives the key. Another secret needs another id.
    pub fn new(id: u32, secret: &[u8]) -> Result<Self, KeyEncryptionKeyError> {
        if secret.len() < KEY_ENCRYPTION_SECRET_BYTES_MIN {
            return Err(KeyEncryptionKeyError::SecretLength { bytes: secret.len() });
        }
        Ok(Self { id, key: Zeroizing::new(blake3::derive_key(KEY_ENCRYPTION_CONTEXT, secret)) })
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncryptionKey({}, ..)", self.id)
    }
}

/// The key that new envelopes get, and the earlier ones that stored envelopes still need.
#[derive(Debug)]
pub struct KeyEncryptionKeys {
    current: KeyEncryptionKey,
    earlier: Vec<KeyEncryptionKey>,
}

impl KeyEncryptionKeys {
    /// `current` seals; all open.
    pub fn new(
        current: KeyEncryptionKey,
        earlier: Vec<KeyEncryptionKey>,
    ) -> Result<Self, KeyEncryptionKeyError> {
        if earlier.len() >= KEY_ENCRYPTION_KEYS_MAX {
            return Err(KeyEncryptionKeyError::TooMany);
        }
        let mut ids: Vec<u32> = earlier.iter().map(|key| key.id).chain([current.id]).collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if let [a, b] = *pair
                && a == b
            {
                return Err(KeyEncryptionKeyError::RepeatedId { id: a });
            }
        }
        Ok(Self { current, earlier })
    }

    /// The id of the key that seals.
    pub fn current_key_id(&self) -> u32 {
        self.current.id
    }

    /// Seals `content` for `row`. `nonce` is fresh random bytes.
    pub fn seal(
        &self,
        row: &Row<'_>,
        content: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, SealError> {
        seal(Scheme::KeyEncryption, self.current.id, &self.current.key, row, content, nonce)
    }

    /// Opens what was sealed for `row` under any of the keys.
    pub fn open(&self, row: &Row<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let parsed = Parsed::read(envelope, Scheme::KeyEncryption)?;
        let key = core::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|key| key.id == parsed.key_id)
            .ok_or(OpenError::UnknownKey { key_id: parsed.key_id })?;
        parsed.open(&key.key, row)
    }

    /// Seals again what is under an earlier key: a step of a rotation. `None` when it is under the current one already.
    pub fn rewrap(
        &self,
        row: &Row<'_>,
        envelope: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Option<Vec<u8>>, OpenError> {
        if Parsed::read(envelope, Scheme::KeyEncryption)?.key_id == self.current.id {
            return Ok(None);
        }
        let content = self.open(row, envelope)?;
        // What opened was sealed for this row, so neither limit can be met here.
        self.seal(row, &content, nonce).map(Some).map_err(|_| OpenError::Malformed)
    }
}

/// The id of the key-encryption key that an envelope is under: what a rotation looks for.
pub fn key_encryption_key_id(envelope: &[u8]) -> Result<u32, OpenError> {
    Parsed::read(envelope, Scheme::KeyEncryption).map(|parsed| parsed.key_id)
}

/// The key of one user's personal fields. Its row is deleted with the account; then nobody reads them again, backups included.
pub struct DataKey {
    scheme: Scheme,
    key: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// A new key of 32 fresh random bytes.
    pub fn from_random(random: [u8; 32]) -> Self {
        Self { scheme: Scheme::DataKey, key: Zeroizing::new(random) }
    }

    /// The key that a bearer token carries: what is sealed under it, only the token's holder makes readable again. The successor of
    /// a refresh token is kept so for the grace period.
    pub fn of_token<P: TokenPurpose>(token: &OpaqueToken<P>) -> Self {
        let mut material = Zeroizing::new([P::NUMBER; 33]);
        if let Some((_, bytes)) = material.split_first_mut() {
            bytes.copy_from_slice(token.as_bytes());
        }
        let key = Zeroizing::new(blake3::derive_key(TOKEN_SEALING_CONTEXT, material.as_slice()));
        Self { scheme: Scheme::Token, key }
    }

    /// The key's own row: its bytes, sealed under the operator's key.
    pub fn wrap(
        &self,
        keys: &KeyEncryptionKeys,
        row: &Row<'_>,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, SealError> {
        keys.seal(row, self.key.as_slice(), nonce)
    }

    /// Reads the key's row.
    pub fn unwrap(keys: &KeyEncryptionKeys, row: &Row<'_>, envelope: &[u8]) -> Result<Self, OpenError> {
        let content = keys.open(row, envelope)?;
        let key: [u8; 32] = content.as_slice().try_into().map_err(|_| OpenError::Malformed)?;
        Ok(Self::from_random(key))
    }

    /// Seals a field for `row`. `nonce` is fresh random bytes.
    pub fn seal(
        &self,
        row: &Row<'_>,
        content: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, SealError> {
        seal(self.scheme, 0, &self.key, row, content, nonce)
    }

    /// Opens a field.
    pub fn open(&self, row: &Row<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let parsed = Parsed::read(envelope, self.scheme)?;
        // Data keys have no ids: there is one for each user.
        if parsed.key_id == 0 { parsed.open(&self.key, row) } else { Err(OpenError::Malformed) }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

fn seal(
    scheme: Scheme,
    key_id: u32,
    key: &[u8; 32],
    row: &Row<'_>,
    content: &[u8],
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>, SealError> {
    let too_long = SealError::ContentTooLong { bytes: content.len() };
    if content.len() > CONTENT_BYTES_MAX {
        return Err(too_long);
    }
    let [a, b, c, d] = key_id.to_be_bytes();
    let header = [VERSION, scheme as u8, a, b, c, d];
    let aad = associated_data(&header, row).ok_or(SealError::RowTooLong)?;
    let payload = Payload { msg: content, aad: &aad };
    let sealed =
        XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload).map_err(|_| too_long)?;
    let mut envelope = Vec::with_capacity(ENVELOPE_OVERHEAD_BYTES + content.len());
    envelope.extend_from_slice(&header);
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&sealed);
    Ok(envelope)
}

struct Parsed<'a> {
    header: &'a [u8; HEADER_BYTES],
    key_id: u32,
    nonce: &'a [u8; NONCE_BYTES],
    sealed: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn read(envelope: &'a [u8], scheme: Scheme) -> Result<Self, OpenError> {
        let (header, rest) = envelope.split_first_chunk::<HEADER_BYTES>().ok_or(OpenError::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        let [version, kind, a, b, c, d] = *header;
        let fits = (TAG_BYTES..=CONTENT_BYTES_MAX + TAG_BYTES).contains(&sealed.len());
        if version != VERSION || kind != scheme as u8 || !fits {
            return Err(OpenError::Malformed);
        }
        Ok(Self { header, key_id: u32::from_be_bytes([a, b, c, d]), nonce, sealed })
    }

    fn open(&self, key: &[u8; 32], row: &Row<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let aad = associated_data(self.header, row).ok_or(OpenError::Refused)?;
        let payload = Payload { msg: self.sealed, aad: &aad };
        XChaCha20Poly1305::new(key.into())
            .decrypt(&XNonce::from(*self.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Refused)
    }
}

/// `None`: a field of the row is too long.
fn associated_data(header: &[u8; HEADER_BYTES], row: &Row<'_>) -> Option<Vec<u8>> {
    let fields = [row.tenant, row.kind.as_bytes(), row.id];
    let length: usize = fields.iter().map(|field| 4 + field.len()).sum();
    let mut data = Vec::with_capacity(ASSOCIATED_DATA_TAG.len() + HEADER_BYTES + length);
    data.extend_from_slice(ASSOCIATED_DATA_TAG);
    data.extend_from_slice(header);
    for field in fields {
        if field.len() > ROW_FIELD_BYTES_MAX {
            return None;
        }
        data.extend_from_slice(&u32::try_from(field.len()).ok()?.to_be_bytes());
        data.extend_from_slice(field);
    }
    Some(data)
}
