//! Entities: keys with values, a version and an optional expiry.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest entity key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest entity value, in bytes (1 MiB).
pub const VALUE_BYTES_MAX: usize = 1_048_576;

/// An entity key was refused at construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntityKeyError {
    /// The key has no characters.
    #[error("an entity key must not be empty")]
    Empty,
    /// The key exceeds [`KEY_BYTES_MAX`].
    #[error("an entity key has at most {KEY_BYTES_MAX} bytes, this one has {length}")]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// Control characters would make listings and logs ambiguous.
    #[error("an entity key has no control characters; found one at byte {position}")]
    ControlCharacter {
        /// Byte offset of the character.
        position: usize,
    },
}

/// The key of an entity: 1 to 1,024 bytes of UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntityKey(Box<str>);

impl EntityKey {
    /// Checks length and characters.
    pub fn new(key: &str) -> Result<Self, EntityKeyError> {
        Self::try_from(key.to_owned())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EntityKey {
    type Error = EntityKeyError;
    fn try_from(key: String) -> Result<Self, EntityKeyError> {
        if key.is_empty() {
            return Err(EntityKeyError::Empty);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(EntityKeyError::TooLong { length: key.len() });
        }
        if let Some((position, _)) = key.char_indices().find(|(_, c)| c.is_control()) {
            return Err(EntityKeyError::ControlCharacter { position });
        }
        Ok(Self(key.into()))
    }
}

impl From<EntityKey> for String {
    fn from(key: EntityKey) -> String {
        key.0.into()
    }
}

/// An entity value exceeded [`VALUE_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entity value has at most {VALUE_BYTES_MAX} bytes (1 MiB), this one has {length}")]
pub struct EntityValueError {
    /// Bytes given.
    pub length: usize,
}

/// The value of an entity: 0 to 1 MiB of any bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct EntityValue(Bytes);

impl EntityValue {
    /// Checks the size.
    pub fn new(value: impl Into<Bytes>) -> Result<Self, EntityValueError> {
        Self::try_from(value.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl TryFrom<Bytes> for EntityValue {
    type Error = EntityValueError;
    fn try_from(value: Bytes) -> Result<Self, EntityValueError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(EntityValueError { length: value.len() });
        }
        Ok(Self(value))
    }
}

impl From<EntityValue> for Bytes {
    fn from(value: EntityValue) -> Bytes {
        value.0
    }
}

/// A stored entity as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The value.
    pub value: Bytes,
    /// Sequence number of the transaction that wrote it: unique per transaction in the vault.
    pub version: u64,
    /// Height of the block that holds that transaction.
    pub modified_height: u64,
    /// Unix time in milliseconds after which the entity is hidden; 0 = never.
    pub expires_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_enforced_at_construction() {
        assert_eq!(EntityKey::new(""), Err(EntityKeyError::Empty));
        assert!(EntityKey::new(&"k".repeat(1_024)).is_ok());
        assert_eq!(EntityKey::new(&"k".repeat(1_025)), Err(EntityKeyError::TooLong { length: 1_025 }));
        assert_eq!(EntityKey::new("a\nb"), Err(EntityKeyError::ControlCharacter { position: 1 }));
        assert!(EntityValue::new(vec![0; 1_048_576]).is_ok());
        assert_eq!(EntityValue::new(vec![0; 1_048_577]), Err(EntityValueError { length: 1_048_577 }));
    }
}
