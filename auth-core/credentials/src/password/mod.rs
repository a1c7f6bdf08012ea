//! Passwords: what is accepted when one is chosen, and how it is stored and verified.
//!
//! Sources: NIST SP 800-63B-4 section 3.1.1 (length, no composition rules, a list of refused passwords, a keyed hash on top);
//! OWASP ASVS 5.0 chapter 6.2; RFC 9106 (Argon2); the PHC string format.

mod breached;
mod common_passwords;
mod hasher;
mod memory;
mod pepper;
mod phc;
mod policy;

pub use breached::{
    BREACHED_KEYS_MAX, BreachedFilter, FilterBuildError, FilterRefused, build_breached_filter,
};
pub use common_passwords::{COMMON_PASSWORDS, is_common};
pub use hasher::{HashError, PasswordHasher, Verdict};
pub use memory::HashMemory;
pub use pepper::{PEPPER_BYTES_MIN, PEPPERS_MAX, Pepper, PepperError, Peppers};
pub use phc::{Argon2Cost, CostError, PasswordHash, PhcError, StoredAlgorithm, limits};
pub use policy::{
    ContextWords, Factors, PASSWORD_FLOOR_CODE_POINTS, PasswordPolicy, PasswordRefusal, PolicyError,
};

use core::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// The longest password that is hashed, in bytes of UTF-8. More is refused before any work is done with it.
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// A password exactly as it was received: nothing is trimmed, cut, folded or normalised.
pub struct Password(Zeroizing<Box<str>>);

/// Why a text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Longer than [`PASSWORD_BYTES_MAX`].
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its bytes in UTF-8.
        bytes: usize,
    },
}

impl Password {
    /// Takes a copy of `text`, which is wiped when the password is dropped; the caller's copy is the caller's to wipe.
    pub fn new(text: &str) -> Result<Self, PasswordError> {
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong { bytes: text.len() });
        }
        Ok(Self(Zeroizing::new(Box::from(text))))
    }

    /// Its length as people count it: Unicode code points.
    pub fn code_points(&self) -> usize {
        self.0.chars().count()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
