//! Keys as bytes.

use std::fmt;

use super::extractor::KeyError;

/// Longest key. Headers of some servers may be longer: such a request is refused, not cut to somebody else's key.
pub const KEY_BYTES_MAX: usize = 4_096;

/// What a part of a key is. Parts of different kinds are never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum PartKind {
    /// Nothing: everybody shares it.
    Everyone = 0,
    /// An address or a network.
    Address = 1,
    /// A header's value.
    Header = 2,
    /// A verified credential.
    Credential = 3,
    /// A user.
    User = 4,
    /// A route.
    Route = 5,
    /// A method.
    Method = 6,
    /// Which of several extractors has found the part behind it.
    Choice = 7,
    /// Of an extractor that is not from here.
    Custom = 255,
}

/// The key of a request: compared, hashed and stored, never shown. It may hold a credential.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestKey(Vec<u8>);

impl RequestKey {
    /// Its bytes: per part the kind (one byte), the length (four, big-endian) and the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RequestKey({} bytes)", self.0.len())
    }
}

/// Where extractors write the parts of a key.
#[derive(Default)]
pub struct KeyWriter(Vec<u8>);

impl KeyWriter {
    /// Appends a part.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] when the key would be longer than [`KEY_BYTES_MAX`].
    pub fn part(&mut self, kind: PartKind, value: &[u8]) -> Result<(), KeyError> {
        let length = u32::try_from(value.len()).map_err(|_| KeyError::TooLong)?;
        if self.0.len() + 5 + value.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        self.0.push(kind as u8);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// Forgets what was written after `mark`.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.0.truncate(mark.0);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.len())
    }

    pub(super) fn into_key(self) -> RequestKey {
        RequestKey(self.0)
    }
}

/// How much was written at a time.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

impl fmt::Debug for KeyWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyWriter({} bytes)", self.0.len())
    }
}
