use std::fmt;

use auth_credentials::password::{PasswordHash, limits};

use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// A user's password, hashed.
#[derive(Clone)]
pub struct StoredPassword {
    /// The how manieth password of the user: 1, 2, 3 … Hashing the same one anew leaves it.
    pub number: u64,
    /// When it was set.
    pub set_at: Millis,
    /// What is stored of it.
    pub hash: PasswordHash,
}

impl StoredPassword {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, user: UserId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(user.to_bytes())
    }
}

impl PartialEq for StoredPassword {
    /// Of two records, not of a password and a guess: those are compared by whoever hashes.
    fn eq(&self, other: &Self) -> bool {
        (self.number, self.set_at, self.hash.as_str()) == (other.number, other.set_at, other.hash.as_str())
    }
}

impl Eq for StoredPassword {}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "password {} of {:?}, {:?}", self.number, self.set_at, self.hash.algorithm())
    }
}

impl Stored for StoredPassword {
    const TABLE: Table = tables::STORED_PASSWORD;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).u64(self.number).millis(self.set_at);
        writer.sized(self.hash.as_str().as_bytes()).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const FIELD: &str = "password";
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let (number, set_at) = (reader.u64()?, reader.millis()?);
        let text = reader.sized(limits::TEXT_BYTES_MAX, FIELD)?;
        reader.finish()?;
        let text = std::str::from_utf8(text).map_err(|_| RecordError::Field { field: FIELD })?;
        let hash = PasswordHash::parse(text).map_err(|_| RecordError::Field { field: FIELD })?;
        Ok(Self { number, set_at, hash })
    }
}
