//! How values become bytes: a version, then fields of fixed size in their order, integers big-endian.

use crate::ids::ID_BYTES;
use crate::millis::Millis;
use auth_credentials::opaque_token::{TokenHash, TokenPurpose};

/// The bytes of a record are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They end early.
    #[error("the record ends early")]
    Short,
    /// Something is behind the last field.
    #[error("{bytes} bytes are behind the record's end")]
    Long {
        /// How many.
        bytes: usize,
    },
    /// A layout that this release does not know.
    #[error("the record has layout {found}, this release reads {known}: use a newer release")]
    Version {
        /// What the record says.
        found: u8,
        /// What is known.
        known: u8,
    },
    /// A field has a value that means nothing.
    #[error("the record's field {field} has no meaning")]
    Field {
        /// Which.
        field: &'static str,
    },
}

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(version: u8) -> Self {
        let mut bytes = Vec::with_capacity(192);
        bytes.push(version);
        Self(bytes)
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn millis(self, value: Millis) -> Self {
        self.u64(value.0)
    }

    /// The id of a key and the hash under it.
    pub(super) fn hash<P: TokenPurpose>(self, value: &TokenHash<P>) -> Self {
        self.bytes(&value.to_bytes())
    }

    /// A 0, or a 1 and the id.
    pub(super) fn optional_id(self, value: Option<[u8; ID_BYTES]>) -> Self {
        match value {
            None => self.u8(0),
            Some(id) => self.u8(1).bytes(&id),
        }
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    /// The length, `u16`, and the bytes. What is longer is cut: values are bounded before they are written.
    pub(super) fn sized(self, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let value = value.get(..usize::from(length)).unwrap_or(value);
        self.u16(length).bytes(value)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8], known: u8) -> Result<Self, RecordError> {
        let mut reader = Self(bytes);
        let found = reader.u8()?;
        if found == known { Ok(reader) } else { Err(RecordError::Version { found, known }) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn millis(&mut self) -> Result<Millis, RecordError> {
        self.u64().map(Millis)
    }

    pub(super) fn hash<P: TokenPurpose>(&mut self) -> Result<TokenHash<P>, RecordError> {
        self.array().map(TokenHash::from_bytes)
    }

    pub(super) fn optional_id(&mut self, field: &'static str) -> Result<Option<[u8; ID_BYTES]>, RecordError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.array().map(Some),
            _ => Err(RecordError::Field { field }),
        }
    }

    pub(super) fn sized(&mut self, max: usize, field: &'static str) -> Result<&'b [u8], RecordError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(RecordError::Field { field });
        }
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn finish(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Long { bytes: self.0.len() }) }
    }
}

/// An enum that is stored as a number, which is never given to another meaning.
macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident: $number:ty, $field:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $value,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number under which it is stored.
            pub const fn number(self) -> $number {
                self as $number
            }

            pub(crate) fn from_number(number: $number) -> Result<Self, $crate::records::RecordError> {
                match number {
                    $($value => Ok(Self::$variant),)+
                    _ => Err($crate::records::RecordError::Field { field: $field }),
                }
            }
        }
    };
}
pub(crate) use stored_enum;
