//! Names and identifiers of the hierarchy: ledger, namespace, vault.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest namespace or vault name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// A name was refused at construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// The name exceeds [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} characters, this one has {length}")]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// A character outside `a-z 0-9 . _ -`, or a first character outside `a-z 0-9`.
    #[error(
        "a name has only a-z, 0-9, '.', '_' and '-' and starts with a letter or digit; {character:?} at byte {position} is not allowed"
    )]
    Character {
        /// The offending character.
        character: char,
        /// Its byte offset.
        position: usize,
    },
    /// A vault reference without exactly one `/`.
    #[error("a vault is written NAMESPACE/VAULT; {given:?} is not")]
    Reference {
        /// What was given.
        given: String,
    },
}

fn checked_name(name: &str) -> Result<Box<str>, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { length: name.len() });
    }
    for (position, character) in name.char_indices() {
        let letter_or_digit = character.is_ascii_lowercase() || character.is_ascii_digit();
        let allowed = letter_or_digit || (position > 0 && matches!(character, '.' | '_' | '-'));
        if !allowed {
            return Err(NameError::Character { character, position });
        }
    }
    Ok(name.into())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the length and the alphabet.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked_name(name).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The name of a namespace: one organization.
    NamespaceName
}
name_type! {
    /// The name of a vault inside its namespace.
    VaultName
}

/// `NAMESPACE/VAULT`: how people and the API address a vault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VaultRef {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The vault.
    pub vault: VaultName,
}

impl FromStr for VaultRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, vault)) if !vault.contains('/') => {
                Ok(Self { namespace: NamespaceName::new(namespace)?, vault: VaultName::new(vault)? })
            }
            _ => Err(NameError::Reference { given: text.chars().take(160).collect() }),
        }
    }
}

impl fmt::Display for VaultRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.vault)
    }
}

/// Identity of a ledger, minted when it is first bootstrapped; printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerId(pub [u8; 16]);

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerId({self})")
    }
}

/// Identity of a vault for ever: it stands in every header and is never given to another vault,
/// even when a name is used again. Printed as a hyphenated UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VaultId(pub [u8; 16]);

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

impl fmt::Debug for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultId({self})")
    }
}

/// Number of a vault inside one ledger's storage: a short prefix of row keys, assigned in log order
/// from 1 and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VaultNumber(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_enforce_alphabet_and_length() {
        assert!(NamespaceName::new("acme-1.prod_x").is_ok());
        assert_eq!(NamespaceName::new(""), Err(NameError::Empty));
        assert_eq!(NamespaceName::new("-a"), Err(NameError::Character { character: '-', position: 0 }));
        assert_eq!(VaultName::new("aÄ"), Err(NameError::Character { character: 'Ä', position: 1 }));
        assert!(VaultName::new(&"a".repeat(63)).is_ok());
        assert_eq!(VaultName::new(&"a".repeat(64)), Err(NameError::TooLong { length: 64 }));
        assert!("a/b".parse::<VaultRef>().is_ok());
        assert!("a".parse::<VaultRef>().is_err());
        assert!("a/b/c".parse::<VaultRef>().is_err());
    }
}
