//! E-mail addresses: what is one, when two are the same, and the keyed hash by which one is looked for.

use std::fmt;

use zeroize::Zeroizing;

use crate::ids::AddressId;

/// Bytes of an address, at most (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const ADDRESS_BYTES_MAX: usize = 254;

/// The shortest secret that a key is derived from, in bytes.
pub const ADDRESS_SECRET_BYTES_MIN: usize = 32;

const LOCAL_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 63;
const KEY_CONTEXT: &str = "strongroom auth address key v1";

/// An address in its canonical form: the domain lower-cased, the part before the @ as typed, for only the receiving server knows
/// what is the same there (RFC 5321, section 2.4).
///
/// ASCII dot-strings and host names of at least two labels: no quoted strings, no literal addresses, and domains of other scripts
/// in their `xn--` form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailAddress(Box<str>);

/// A text is not an address that this engine takes. It says nothing of the text, which is about a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address")]
pub struct EmailAddressError;

impl EmailAddress {
    /// The canonical form of a text.
    ///
    /// # Errors
    ///
    /// [`EmailAddressError`].
    pub fn parse(text: &str) -> Result<Self, EmailAddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(EmailAddressError)?;
        let is_address = text.len() <= ADDRESS_BYTES_MAX
            && local.len() <= LOCAL_BYTES_MAX
            && is_local(local)
            && is_domain(domain);
        if !is_address {
            return Err(EmailAddressError);
        }
        Ok(Self(format!("{local}@{}", domain.to_ascii_lowercase()).into_boxed_str()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for EmailAddress {
    type Err = EmailAddressError;

    fn from_str(text: &str) -> Result<Self, EmailAddressError> {
        Self::parse(text)
    }
}

/// It is about a person: logs do not get it.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EmailAddress(..)")
    }
}

fn is_local(local: &str) -> bool {
    let is_atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    // A last label of digits would be the end of a numeric address.
    domain.contains('.')
        && domain.split('.').all(is_label)
        && !domain.rsplit('.').next().is_some_and(is_number)
}

/// By what an address is looked for: who reads the store does not learn it, nor can try addresses without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressHash([u8; 32]);

impl AddressHash {
    /// The hash of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The address as logs and clients name it: the first half.
    pub fn id(self) -> AddressId {
        AddressId::from_bytes(self.0.first_chunk().copied().unwrap_or_default())
    }
}

/// The key of the hashes. It stays as long as the store does: with another one no address is found.
pub struct AddressKey(Zeroizing<[u8; 32]>);

/// The secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret of an address key has at least {ADDRESS_SECRET_BYTES_MIN} bytes, this one has {bytes}")]
pub struct AddressKeyError {
    /// Its bytes.
    pub bytes: usize,
}

impl AddressKey {
    /// Derives the key from a secret of the operator.
    ///
    /// # Errors
    ///
    /// [`AddressKeyError`].
    pub fn new(secret: &[u8]) -> Result<Self, AddressKeyError> {
        if secret.len() < ADDRESS_SECRET_BYTES_MIN {
            return Err(AddressKeyError { bytes: secret.len() });
        }
        Ok(Self(Zeroizing::new(blake3::derive_key(KEY_CONTEXT, secret))))
    }

    /// The hash of an address.
    pub fn hash(&self, address: &EmailAddress) -> AddressHash {
        AddressHash(*blake3::keyed_hash(&self.0, address.as_str().as_bytes()).as_bytes())
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AddressKey(..)")
    }
}
