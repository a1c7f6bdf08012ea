//! Recovery codes: ten codes of 128 bits that open an account once each when its second factor is lost.
//!
//! Text: 28 digits of Crockford's base 32 in seven groups, the 128 bits and 12 bits of CRC-32C that catch typing errors before they
//! count as attempts. Reading ignores case, hyphens and spaces, and takes O for 0, I and L for 1. 128 bits are beyond guessing, so
//! a keyed hash is stored ([`crate::opaque_token::Recovery`]), not a password hash (ASVS 6.5.2).

use core::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::crockford::{decode, encode};
use crate::opaque_token::{Recovery, TokenHash, TokenHasher};

/// Codes of one set.
pub const RECOVERY_CODES: usize = 10;
/// Texts longer than this are not read, in bytes: a code with a separator behind every digit.
const TEXT_BYTES_MAX: usize = 64;
const DIGITS: usize = 28;
const GROUP: usize = 4;

/// The text is no recovery code: a digit is wrong, missing or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a recovery code")]
pub struct RecoveryCodeRefused;

/// One code. Wiped when dropped, absent from `Debug`.
pub struct RecoveryCode(Zeroizing<[u8; 16]>);

impl RecoveryCode {
    /// A code of 16 fresh random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// A whole set, of random bytes for each.
    pub fn set(random: [[u8; 16]; RECOVERY_CODES]) -> [Self; RECOVERY_CODES] {
        random.map(Self::from_random)
    }

    /// The text that is shown, once.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = encode(self.with_check().as_slice());
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + DIGITS / GROUP));
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && index % GROUP == 0 {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }

    /// Reads what somebody typed.
    pub fn parse(text: &str) -> Result<Self, RecoveryCodeRefused> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(RecoveryCodeRefused);
        }
        let digits = text.chars().filter(|c| !matches!(c, '-' | ' '));
        let mut read = Zeroizing::new([0; 18]);
        decode(digits, read.as_mut_slice()).ok_or(RecoveryCodeRefused)?;
        let (code, _) = read.split_first_chunk::<16>().ok_or(RecoveryCodeRefused)?;
        let code = Self::from_random(*code);
        // The check is over the typed code alone, so this comparison has no secret to give away.
        if *code.with_check() != *read { Err(RecoveryCodeRefused) } else { Ok(code) }
    }

    /// What to store.
    pub fn hash(&self, hasher: &TokenHasher) -> TokenHash<Recovery> {
        hasher.hash_bytes(&self.0)
    }

    /// Which of the stored hashes is this code's. All are compared, so the time does not tell which one it was.
    pub fn find(&self, hasher: &TokenHasher, stored: &[TokenHash<Recovery>]) -> Option<usize> {
        let mut found = None;
        for (index, hash) in stored.iter().enumerate() {
            if hasher.matches_bytes(self.0.as_slice(), hash) {
                found = Some(index);
            }
        }
        found
    }

    /// The bytes, then the first 12 bits of their CRC-32C, then 4 zero bits.
    fn with_check(&self) -> Zeroizing<[u8; 18]> {
        let mut bytes = Zeroizing::new([0; 18]);
        let [a, b, ..] = (crc32c::crc32c(self.0.as_slice()) & 0xfff0_0000).to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(self.0.iter().chain(&[a, b])) {
            *to = *from;
        }
        bytes
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}
