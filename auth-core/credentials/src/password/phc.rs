//! Stored password hashes: text that is read strictly, and whose parameters are bounded before anything is computed.
//!
//! Written: `$argon2id$v=19$m=19456,t=2,p=1$SALT$TAG`, with `,keyid=ID` behind `p` when a pepper is below. Read: Argon2 in its three
//! variants and both versions, bcrypt (`$2a$`, `$2b$`, `$2y$`), scrypt (`$scrypt$ln=,r=,p=`) and PBKDF2 (`$pbkdf2-sha256$i=,l=`,
//! `$pbkdf2-sha512$…`). Salt and tag are base64 without padding; bcrypt has an alphabet of its own.

use argon2::{Algorithm, Params, Version};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use core::fmt;
use thiserror::Error;

/// The bounds of what a stored hash may ask. Whoever can write to the store must not thereby stop the servers that read it.
pub mod limits {
    /// The longest stored text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 512;
    /// Argon2's memory, in KiB: 256 MiB.
    pub const ARGON2_KIB_MAX: u32 = 262_144;
    /// Argon2's passes.
    pub const ARGON2_PASSES_MAX: u32 = 64;
    /// Memory in KiB times passes: about half a second on one core.
    pub const ARGON2_KIB_PASSES_MAX: u64 = 1_048_576;
    /// Argon2's lanes. They are computed one after the other.
    pub const ARGON2_LANES_MAX: u32 = 16;
    /// bcrypt's cost, the logarithm of its rounds: about a second on one core.
    pub const BCRYPT_COST_MAX: u32 = 14;
    /// scrypt's memory in bytes, `128 · N · r`.
    pub const SCRYPT_BYTES_MAX: u64 = 268_435_456;
    /// scrypt's memory times its parallelism, which is computed one after the other.
    pub const SCRYPT_BYTES_WORK_MAX: u64 = 1_073_741_824;
    /// PBKDF2's iterations.
    pub const PBKDF2_ITERATIONS_MAX: u32 = 2_000_000;
    /// The shortest salt, in bytes: what Argon2 itself asks for.
    pub const SALT_BYTES_MIN: usize = 8;
    /// The longest salt, in bytes.
    pub const SALT_BYTES_MAX: usize = 64;
    /// The shortest tag, in bytes: a shorter one would be guessed.
    pub const TAG_BYTES_MIN: usize = 16;
    /// The longest tag, in bytes.
    pub const TAG_BYTES_MAX: usize = 64;
}

/// Why a stored text is no password hash that would be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhcError {
    /// Longer than [`limits::TEXT_BYTES_MAX`].
    #[error("longer than {} bytes", limits::TEXT_BYTES_MAX)]
    TooLong,
    /// No form that is listed in the module's documentation.
    #[error("no known form of a password hash")]
    Malformed,
    /// An algorithm or a version that is not verified here.
    #[error("an algorithm or a version that is not supported")]
    Unsupported,
    /// The parameter asks for more work or memory than is done for a stored hash, or for less than the algorithm needs.
    #[error("the parameter {parameter} is out of bounds")]
    OutOfBounds {
        /// Its name in the text.
        parameter: &'static str,
    },
}

/// Why a cost cannot be used for new hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an Argon2 cost of {memory_kib} KiB, {passes} passes and {lanes} lanes is out of bounds")]
pub struct CostError {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// What an Argon2 hash costs: memory in KiB, passes over it, lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl Argon2Cost {
    /// 19,456 KiB, 2 passes, 1 lane: the OWASP floor, about 11 ms on one core.
    pub const STANDARD: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
    /// 65,536 KiB, 3 passes, 4 lanes: the second recommendation of RFC 9106, about 90 ms.
    pub const HARDENED: Self = Self { memory_kib: 65_536, passes: 3, lanes: 4 };

    /// A cost within what Argon2 and [`limits`] allow. Nothing here stops one below the floor: tests use them.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        let cost = Self { memory_kib, passes, lanes };
        match cost.out_of_bounds() {
            None => Ok(cost),
            Some(_) => Err(CostError { memory_kib, passes, lanes }),
        }
    }

    /// Whether it is at least as strong as one of the floors of the OWASP list: more memory for fewer passes.
    pub fn is_at_least_the_floor(self) -> bool {
        let needed = match self.passes {
            0 => return false,
            1 => 47_104,
            2 => 19_456,
            3 => 12_288,
            4 => 9_216,
            _ => 7_168,
        };
        self.memory_kib >= needed
    }

    fn out_of_bounds(self) -> Option<&'static str> {
        if !(1..=limits::ARGON2_LANES_MAX).contains(&self.lanes) {
            return Some("p");
        }
        if !(1..=limits::ARGON2_PASSES_MAX).contains(&self.passes) {
            return Some("t");
        }
        let work = u64::from(self.memory_kib) * u64::from(self.passes);
        let memory = (8 * self.lanes)..=limits::ARGON2_KIB_MAX;
        (!memory.contains(&self.memory_kib) || work > limits::ARGON2_KIB_PASSES_MAX).then_some("m")
    }

    /// Blocks of 1 KiB that a hash works in: Argon2 rounds down to whole segments.
    pub(super) fn block_count(self) -> usize {
        let segment = 4 * self.lanes.max(1);
        (self.memory_kib / segment * segment) as usize
    }

    pub(super) fn params(self, tag_bytes: usize) -> Option<Params> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(tag_bytes)).ok()
    }
}

/// Salt, tag or both: at most 64 bytes, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Short {
    bytes: [u8; 64],
    length: usize,
}

impl Short {
    pub(super) fn new(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; 64];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { bytes, length: from.len() })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn decode(
        engine: &GeneralPurpose,
        text: &str,
        allowed: core::ops::RangeInclusive<usize>,
    ) -> Result<Self, PhcError> {
        let mut bytes = [0; 64];
        let length = engine.decode_slice(text, &mut bytes).map_err(|_| PhcError::Malformed)?;
        if !allowed.contains(&length) {
            return Err(PhcError::Malformed);
        }
        Ok(Self { bytes, length })
    }
}

/// Which algorithm made a stored hash: for statistics of a migration, and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredAlgorithm {
    /// Argon2id.
    Argon2id,
    /// Argon2i.
    Argon2i,
    /// Argon2d.
    Argon2d,
    /// bcrypt.
    Bcrypt,
    /// scrypt.
    Scrypt,
    /// PBKDF2 with HMAC-SHA256 or HMAC-SHA512.
    Pbkdf2,
}

#[derive(Clone, Copy)]
pub(super) enum Scheme {
    Argon2 { algorithm: Algorithm, version: Version, cost: Argon2Cost, pepper: Option<u32> },
    Bcrypt { cost: u32 },
    Scrypt { log_n: u8, r: u32, p: u32 },
    Pbkdf2 { sha512: bool, iterations: u32 },
}

/// A stored password hash that was read, or just made. Its text is not a secret like the password, but it is what an attacker
/// needs for guessing in peace: `Debug` shows only the algorithm.
#[derive(Clone)]
pub struct PasswordHash {
    text: Box<str>,
    pub(super) scheme: Scheme,
    pub(super) salt: Short,
    pub(super) tag: Short,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?}, ..)", self.algorithm())
    }
}

impl core::str::FromStr for PasswordHash {
    type Err = PhcError;

    fn from_str(text: &str) -> Result<Self, PhcError> {
        Self::parse(text)
    }
}

const STRICT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::RequireNone);
pub(super) const PHC_BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, STRICT);
// 16 bytes take 22 characters and leave 4 bits, 23 bytes take 31 and leave 2. Every implementation of bcrypt ignores those bits, and
// some write them.
const BCRYPT_BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::BCRYPT, STRICT.with_decode_allow_trailing_bits(true));

impl PasswordHash {
    /// Reads a stored text. Allocates a copy of it (at most [`limits::TEXT_BYTES_MAX`] bytes) and nothing else: what it asks for
    /// is bounded here, before it is computed.
    pub fn parse(text: &str) -> Result<Self, PhcError> {
        if text.len() > limits::TEXT_BYTES_MAX {
            return Err(PhcError::TooLong);
        }
        let inner = text.strip_prefix('$').ok_or(PhcError::Malformed)?;
        let (name, rest) = inner.split_once('$').ok_or(PhcError::Malformed)?;
        let (scheme, salt, tag) = match name {
            "argon2id" => argon2(Algorithm::Argon2id, rest)?,
            "argon2i" => argon2(Algorithm::Argon2i, rest)?,
            "argon2d" => argon2(Algorithm::Argon2d, rest)?,
            "2a" | "2b" | "2y" => bcrypt(rest)?,
            "scrypt" => scrypt(rest)?,
            "pbkdf2-sha256" => pbkdf2(false, rest)?,
            "pbkdf2-sha512" => pbkdf2(true, rest)?,
            _ => return Err(PhcError::Unsupported),
        };
        Ok(Self { text: Box::from(text), scheme, salt, tag })
    }

    pub(super) fn argon2id(cost: Argon2Cost, pepper: Option<u32>, salt: Short, tag: Short) -> Self {
        let Argon2Cost { memory_kib, passes, lanes } = cost;
        let mut text = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}");
        if let Some(id) = pepper {
            text.push_str(",keyid=");
            PHC_BASE64.encode_string(id.to_be_bytes(), &mut text);
        }
        for part in [salt, tag] {
            text.push('$');
            PHC_BASE64.encode_string(part.as_slice(), &mut text);
        }
        let scheme = Scheme::Argon2 { algorithm: Algorithm::Argon2id, version: Version::V0x13, cost, pepper };
        Self { text: text.into_boxed_str(), scheme, salt, tag }
    }

    /// The text to store.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What made it.
    pub fn algorithm(&self) -> StoredAlgorithm {
        match self.scheme {
            Scheme::Argon2 { algorithm: Algorithm::Argon2id, .. } => StoredAlgorithm::Argon2id,
            Scheme::Argon2 { algorithm: Algorithm::Argon2i, .. } => StoredAlgorithm::Argon2i,
            Scheme::Argon2 { algorithm: Algorithm::Argon2d, .. } => StoredAlgorithm::Argon2d,
            Scheme::Bcrypt { .. } => StoredAlgorithm::Bcrypt,
            Scheme::Scrypt { .. } => StoredAlgorithm::Scrypt,
            Scheme::Pbkdf2 { .. } => StoredAlgorithm::Pbkdf2,
        }
    }

    /// The pepper that it was made under.
    pub fn pepper(&self) -> Option<u32> {
        match self.scheme {
            Scheme::Argon2 { pepper, .. } => pepper,
            Scheme::Bcrypt { .. } | Scheme::Scrypt { .. } | Scheme::Pbkdf2 { .. } => None,
        }
    }
}

type Parts = (Scheme, Short, Short);

const SALT: core::ops::RangeInclusive<usize> = limits::SALT_BYTES_MIN..=limits::SALT_BYTES_MAX;
const TAG: core::ops::RangeInclusive<usize> = limits::TAG_BYTES_MIN..=limits::TAG_BYTES_MAX;

fn argon2(algorithm: Algorithm, rest: &str) -> Result<Parts, PhcError> {
    // Strings of before 2016 carry no version: they are of version 1.0.
    let (version, rest) = match rest.strip_prefix("v=") {
        None => (Version::V0x10, rest),
        Some(versioned) => match versioned.split_once('$').ok_or(PhcError::Malformed)? {
            ("19", rest) => (Version::V0x13, rest),
            ("16", rest) => (Version::V0x10, rest),
            _ => return Err(PhcError::Unsupported),
        },
    };
    let [parameters, salt, tag] = dollars(rest)?;
    let mut fields = parameters.split(',');
    let memory_kib = number(&mut fields, "m")?;
    let passes = number(&mut fields, "t")?;
    let lanes = number(&mut fields, "p")?;
    let pepper = match fields.next() {
        None => None,
        Some(field) => {
            let id = field.strip_prefix("keyid=").ok_or(PhcError::Malformed)?;
            let id = Short::decode(&PHC_BASE64, id, 4..=4)?;
            Some(u32::from_be_bytes(id.as_slice().try_into().map_err(|_| PhcError::Malformed)?))
        }
    };
    end(fields)?;
    let cost = Argon2Cost { memory_kib, passes, lanes };
    if let Some(parameter) = cost.out_of_bounds() {
        return Err(PhcError::OutOfBounds { parameter });
    }
    let salt = Short::decode(&PHC_BASE64, salt, SALT)?;
    let tag = Short::decode(&PHC_BASE64, tag, TAG)?;
    Ok((Scheme::Argon2 { algorithm, version, cost, pepper }, salt, tag))
}

fn bcrypt(rest: &str) -> Result<Parts, PhcError> {
    let (cost, encoded) = rest.split_once('$').ok_or(PhcError::Malformed)?;
    if cost.len() != 2 || encoded.len() != 53 {
        return Err(PhcError::Malformed);
    }
    let cost: u32 = digits(cost).ok_or(PhcError::Malformed)?;
    if !(4..=limits::BCRYPT_COST_MAX).contains(&cost) {
        return Err(PhcError::OutOfBounds { parameter: "cost" });
    }
    let (salt, tag) = encoded.split_at_checked(22).ok_or(PhcError::Malformed)?;
    let salt = Short::decode(&BCRYPT_BASE64, salt, 16..=16)?;
    let tag = Short::decode(&BCRYPT_BASE64, tag, 23..=23)?;
    Ok((Scheme::Bcrypt { cost }, salt, tag))
}

fn scrypt(rest: &str) -> Result<Parts, PhcError> {
    let [parameters, salt, tag] = dollars(rest)?;
    let mut fields = parameters.split(',');
    let log_n = number(&mut fields, "ln")?;
    let r = number(&mut fields, "r")?;
    let p = number(&mut fields, "p")?;
    end(fields)?;
    let out_of_bounds = |parameter| Err(PhcError::OutOfBounds { parameter });
    if !(1..=24).contains(&log_n) {
        return out_of_bounds("ln");
    }
    if r == 0 || u64::from(r) > limits::SCRYPT_BYTES_MAX >> 7 >> log_n {
        return out_of_bounds("r");
    }
    let bytes = u64::from(r) << 7 << log_n;
    if p == 0 || u64::from(p) > limits::SCRYPT_BYTES_WORK_MAX / bytes {
        return out_of_bounds("p");
    }
    // The lanes' own buffer of 128·r·p bytes is in a bound too: p times it is at most the work, N at least 2.
    let log_n = u8::try_from(log_n).map_err(|_| PhcError::Malformed)?;
    let salt = Short::decode(&PHC_BASE64, salt, SALT)?;
    let tag = Short::decode(&PHC_BASE64, tag, TAG)?;
    Ok((Scheme::Scrypt { log_n, r, p }, salt, tag))
}

fn pbkdf2(sha512: bool, rest: &str) -> Result<Parts, PhcError> {
    let [parameters, salt, tag] = dollars(rest)?;
    let mut fields = parameters.split(',');
    let iterations = number(&mut fields, "i")?;
    let length = number(&mut fields, "l")?;
    end(fields)?;
    if !(1..=limits::PBKDF2_ITERATIONS_MAX).contains(&iterations) {
        return Err(PhcError::OutOfBounds { parameter: "i" });
    }
    let salt = Short::decode(&PHC_BASE64, salt, SALT)?;
    let tag = Short::decode(&PHC_BASE64, tag, TAG)?;
    if tag.as_slice().len() as u64 != u64::from(length) {
        return Err(PhcError::Malformed);
    }
    Ok((Scheme::Pbkdf2 { sha512, iterations }, salt, tag))
}

/// Exactly three fields between `$`.
fn dollars(rest: &str) -> Result<[&str; 3], PhcError> {
    let (a, rest) = rest.split_once('$').ok_or(PhcError::Malformed)?;
    let (b, c) = rest.split_once('$').ok_or(PhcError::Malformed)?;
    if c.contains('$') {
        return Err(PhcError::Malformed);
    }
    Ok([a, b, c])
}

fn number<'a>(fields: &mut impl Iterator<Item = &'a str>, name: &'static str) -> Result<u32, PhcError> {
    let field = fields.next().ok_or(PhcError::Malformed)?;
    let value =
        field.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or(PhcError::Malformed)?;
    if value.is_empty()
        || value.len() > 1 && value.starts_with('0')
        || !value.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(PhcError::Malformed);
    }
    // Digits that do not fit are a number that is too large.
    digits(value).ok_or(PhcError::OutOfBounds { parameter: name })
}

/// `str::parse` alone would take a sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn end<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<(), PhcError> {
    fields.next().map_or(Ok(()), |_| Err(PhcError::Malformed))
}
