//! Peppers: a keyed hash below the password hash, whose key is not in the store.

use super::Password;
use core::fmt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// The shortest key of a pepper, in bytes. SP 800-63B-4 asks for 112 bits; a random key of 32 bytes costs nothing more.
pub const PEPPER_BYTES_MIN: usize = 32;
/// At most so many peppers are known at a time: the current one and those that stored hashes still name.
pub const PEPPERS_MAX: usize = 64;
const PEPPER_BYTES_MAX: usize = 1_024;

/// A key with the id that hashes made under it carry.
pub struct Pepper {
    id: u32,
    key: Zeroizing<Vec<u8>>,
}

/// Why peppers cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PepperError {
    /// The key's length.
    #[error("the key of a pepper has {PEPPER_BYTES_MIN} to {PEPPER_BYTES_MAX} bytes, not {bytes}")]
    KeyLength {
        /// Its bytes.
        bytes: usize,
    },
    /// Two peppers under one id.
    #[error("two peppers have the id {id}")]
    RepeatedId {
        /// The id.
        id: u32,
    },
    /// More than [`PEPPERS_MAX`].
    #[error("more than {PEPPERS_MAX} peppers")]
    TooMany,
}

impl Pepper {
    /// A pepper. The id is the operator's; a new key needs a new id.
    pub fn new(id: u32, key: &[u8]) -> Result<Self, PepperError> {
        if !(PEPPER_BYTES_MIN..=PEPPER_BYTES_MAX).contains(&key.len()) {
            return Err(PepperError::KeyLength { bytes: key.len() });
        }
        Ok(Self { id, key: Zeroizing::new(key.to_vec()) })
    }

    /// HMAC-SHA256(key, password): what the password hash gets in place of the password.
    fn season(&self, password: &Password) -> Option<Zeroizing<[u8; 32]>> {
        // HMAC takes a key of any length, so this is never `None`.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key).ok()?;
        mac.update(password.as_bytes());
        Some(Zeroizing::new(mac.finalize().into_bytes().into()))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({}, ..)", self.id)
    }
}

/// The pepper that new hashes get, and the earlier ones that stored hashes may name.
#[derive(Debug, Default)]
pub struct Peppers {
    current: Option<u32>,
    known: Vec<Pepper>,
}

/// What the password hash is computed over.
pub(super) enum Seasoned<'a> {
    Plain(&'a [u8]),
    Keyed(Zeroizing<[u8; 32]>),
}

impl Seasoned<'_> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Keyed(bytes) => bytes.as_slice(),
        }
    }
}

impl Peppers {
    /// No pepper: hashes that every implementation of Argon2 can verify.
    pub fn none() -> Self {
        Self::default()
    }

    /// `current` for new hashes, `earlier` for those that exist.
    pub fn new(current: Pepper, earlier: Vec<Pepper>) -> Result<Self, PepperError> {
        Self::build(Some(current.id), core::iter::once(current).chain(earlier).collect())
    }

    /// New hashes get none, hashes made under `earlier` are still verified: the way back.
    pub fn retired(earlier: Vec<Pepper>) -> Result<Self, PepperError> {
        Self::build(None, earlier)
    }

    fn build(current: Option<u32>, mut known: Vec<Pepper>) -> Result<Self, PepperError> {
        if known.len() > PEPPERS_MAX {
            return Err(PepperError::TooMany);
        }
        known.sort_by_key(|pepper| pepper.id);
        for pair in known.windows(2) {
            if let [a, b] = pair
                && a.id == b.id
            {
                return Err(PepperError::RepeatedId { id: a.id });
            }
        }
        Ok(Self { current, known })
    }

    pub(super) fn current(&self) -> Option<u32> {
        self.current
    }

    /// `None`: no pepper of that id is known.
    pub(super) fn season<'a>(&self, id: Option<u32>, password: &'a Password) -> Option<Seasoned<'a>> {
        match id {
            None => Some(Seasoned::Plain(password.as_bytes())),
            Some(id) => {
                let pepper = self.known.iter().find(|pepper| pepper.id == id)?;
                pepper.season(password).map(Seasoned::Keyed)
            }
        }
    }
}
