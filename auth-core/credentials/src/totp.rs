//! One-time codes of an authenticator program (RFC 6238): the step that a code belongs to, and whether it may still be used.

use core::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use thiserror::Error;
use totp_rs::{Algorithm, Builder, Secret};
use zeroize::Zeroizing;

/// Seconds of a step. RFC 6238 section 5.2; ASVS 6.5.5 allows no more.
pub const STEP_SECONDS: u64 = 30;
/// Steps before and behind the present one whose codes are accepted. RFC 6238 section 5.2.
pub const WINDOW_STEPS: u64 = 1;
/// Bytes of a secret: 160 bits, what RFC 4226 section 4 recommends.
pub const SECRET_BYTES: usize = 20;
const SECRET_BYTES_MAX: usize = 64;

/// The hash below the code. Many authenticator programs know SHA-1 alone, and for HMAC its collisions do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TotpHash {
    /// HMAC-SHA1.
    #[default]
    Sha1,
    /// HMAC-SHA256.
    Sha256,
    /// HMAC-SHA512.
    Sha512,
}

/// How long a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TotpDigits {
    /// Six digits.
    #[default]
    Six,
    /// Eight digits.
    Eight,
}

/// A shared secret and the kind of its codes. Wiped when dropped, absent from `Debug`.
pub struct TotpSecret {
    bytes: Zeroizing<Vec<u8>>,
    hash: TotpHash,
    digits: TotpDigits,
}

/// Why bytes are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a secret for one-time codes has {SECRET_BYTES} to {SECRET_BYTES_MAX} bytes, not {bytes}")]
pub struct TotpSecretError {
    /// Its bytes.
    pub bytes: usize,
}

/// Why a code is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TotpRefusal {
    /// Not the right number of ASCII digits.
    #[error("not a one-time code")]
    Malformed,
    /// No step of the window has this code.
    #[error("a wrong one-time code")]
    Wrong,
    /// It was right, but this step or a later one was accepted before.
    #[error("a one-time code that was used before")]
    Replayed,
}

/// A step that was accepted: the number of 30 seconds since 1970. It is stored in the commit that lets the person in, under the
/// condition that nobody stored another one meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotpStep(pub u64);

impl TotpSecret {
    /// A new secret of fresh random bytes, in the form that every authenticator program knows: SHA-1, six digits.
    pub fn from_random(random: [u8; SECRET_BYTES]) -> Self {
        Self { bytes: Zeroizing::new(random.to_vec()), hash: TotpHash::Sha1, digits: TotpDigits::Six }
    }

    /// A stored or imported secret.
    pub fn new(bytes: &[u8], hash: TotpHash, digits: TotpDigits) -> Result<Self, TotpSecretError> {
        if !(SECRET_BYTES..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(TotpSecretError { bytes: bytes.len() });
        }
        Ok(Self { bytes: Zeroizing::new(bytes.to_vec()), hash, digits })
    }

    /// The bytes to put into an envelope.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The secret for typing: base 32 of RFC 4648 without padding.
    pub fn to_base32(&self) -> Zeroizing<String> {
        Zeroizing::new(Secret::from(self.bytes.as_slice()).to_base32())
    }

    /// The address that the page shows as a picture for the authenticator program to read.
    pub fn to_uri(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let issuer = utf8_percent_encode(issuer, &UNRESERVED);
        let account = utf8_percent_encode(account, &UNRESERVED);
        let hash = match self.hash {
            TotpHash::Sha1 => "SHA1",
            TotpHash::Sha256 => "SHA256",
            TotpHash::Sha512 => "SHA512",
        };
        let (digits, secret) = (self.code_length(), self.to_base32());
        Zeroizing::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm={hash}&digits={digits}&period={STEP_SECONDS}",
            secret.as_str()
        ))
    }

    /// The code of a step, as the authenticator program shows it. For enrolment's self-check and for tests.
    pub fn code(&self, step: TotpStep) -> Zeroizing<String> {
        let algorithm = match self.hash {
            TotpHash::Sha1 => Algorithm::SHA1,
            TotpHash::Sha256 => Algorithm::SHA256,
            TotpHash::Sha512 => Algorithm::SHA512,
        };
        let totp = Builder::new()
            .with_algorithm(algorithm)
            .with_digits(self.code_length())
            .with_step_duration(1) // a step is given, not a time: nothing can overflow
            .with_secret(self.bytes.as_slice())
            .build_noncompliant();
        Zeroizing::new(totp.generate(step.0).to_string())
    }

    /// Decides on a code that somebody typed at `now_ms` (ms since 1970). `last_accepted` is what the account's row holds. The
    /// step that is returned is greater than it and has to be stored before the person is let in.
    pub fn check(
        &self,
        code: &str,
        now_ms: u64,
        last_accepted: Option<TotpStep>,
    ) -> Result<TotpStep, TotpRefusal> {
        if code.len() != usize::from(self.code_length()) || !code.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TotpRefusal::Malformed);
        }
        let now = now_ms / 1_000 / STEP_SECONDS;
        let first = now.saturating_sub(WINDOW_STEPS);
        // Every step of the window is compared in constant time, whichever it is that matches.
        let (mut accepted, mut matched, mut fresh) =
            (0_u64, subtle::Choice::from(0), subtle::Choice::from(0));
        for step in first..=now.saturating_add(WINDOW_STEPS) {
            let equal = self.code(TotpStep(step)).as_bytes().ct_eq(code.as_bytes());
            let usable =
                equal & subtle::Choice::from(u8::from(last_accepted.is_none_or(|last| step > last.0)));
            // The earliest usable step, should two of them have one code.
            accepted.conditional_assign(&step, usable & !fresh);
            matched |= equal;
            fresh |= usable;
        }
        match (bool::from(fresh), bool::from(matched)) {
            (true, _) => Ok(TotpStep(accepted)),
            (false, true) => Err(TotpRefusal::Replayed),
            (false, false) => Err(TotpRefusal::Wrong),
        }
    }

    fn code_length(&self) -> u8 {
        match self.digits {
            TotpDigits::Six => 6,
            TotpDigits::Eight => 8,
        }
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TotpSecret({:?}, {:?}, ..)", self.hash, self.digits)
    }
}
