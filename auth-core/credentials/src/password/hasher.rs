//! Making and verifying password hashes.

use super::memory::HashMemory;
use super::pepper::Peppers;
use super::phc::{Argon2Cost, PasswordHash, Scheme, Short};
use super::{PASSWORD_BYTES_MAX, Password};
use argon2::{Algorithm, Argon2, Version};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a new hash's tag.
const TAG_BYTES: usize = 32;
/// bcrypt reads so many bytes of a password, its terminating zero included, and ignores the rest.
const BCRYPT_BYTES_MAX: usize = 72;
/// Where the result of a comparison with nothing goes: any 16 bytes.
const DUMMY_SALT: [u8; 16] = *b"strongroom/dummy";

/// Whether a password is the one that a hash was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Match {
        /// The hash is not what would be made now: make a new one and replace it, if the stored one is still the one verified.
        needs_rehash: bool,
    },
    /// It is not.
    Mismatch,
}

impl Verdict {
    /// Whether the password was right.
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match { .. })
    }
}

/// Why no hash was computed. None of these says anything about the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HashError {
    /// The hash names a pepper that is not configured.
    #[error("the pepper {id} is not known")]
    UnknownPepper {
        /// Its id.
        id: u32,
    },
    /// The system gives no memory.
    #[error("no memory for a password hash")]
    OutOfMemory,
    /// The library refused parameters that were checked: a defect.
    #[error("the parameters of a password hash were refused")]
    Refused,
}

/// Makes hashes at one cost under one pepper, verifies those of any supported kind.
#[derive(Debug)]
pub struct PasswordHasher {
    cost: Argon2Cost,
    peppers: Peppers,
}

impl PasswordHasher {
    /// Hashes at `cost` under the current one of `peppers`.
    pub fn new(cost: Argon2Cost, peppers: Peppers) -> Self {
        Self { cost, peppers }
    }

    /// The cost of new hashes.
    pub fn cost(&self) -> Argon2Cost {
        self.cost
    }

    /// Hashes with Argon2id. `salt` is 16 fresh random bytes.
    pub fn hash(
        &self,
        password: &Password,
        salt: [u8; 16],
        memory: &mut HashMemory,
    ) -> Result<PasswordHash, HashError> {
        let pepper = self.peppers.current();
        let tag = self.target_tag(password, &salt, memory)?;
        let (Some(salt), Some(tag)) = (Short::new(&salt), Short::new(tag.as_slice())) else {
            return Err(HashError::Refused);
        };
        Ok(PasswordHash::argon2id(self.cost, pepper, salt, tag))
    }

    /// Computes what `stored` asks for and compares in constant time.
    pub fn verify(
        &self,
        password: &Password,
        stored: &PasswordHash,
        memory: &mut HashMemory,
    ) -> Result<Verdict, HashError> {
        let mut computed = Zeroizing::new([0; 64]);
        let computed = computed.get_mut(..stored.tag.as_slice().len()).ok_or(HashError::Refused)?;
        let salt = stored.salt.as_slice();
        let mut possible = true;
        match stored.scheme {
            Scheme::Argon2 { algorithm, version, cost, pepper } => {
                self.argon2(algorithm, version, cost, pepper, password, salt, computed, memory)?;
            }
            Scheme::Bcrypt { cost } => possible = bcrypt_into(cost, password, salt, computed)?,
            Scheme::Scrypt { log_n, r, p } => {
                let params = scrypt::Params::new(log_n, r, p).map_err(|_| HashError::Refused)?;
                scrypt::scrypt(password.as_bytes(), salt, &params, computed)
                    .map_err(|_| HashError::Refused)?;
            }
            Scheme::Pbkdf2 { sha512: false, iterations } => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, computed);
            }
            Scheme::Pbkdf2 { sha512: true, iterations } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password.as_bytes(), salt, iterations, computed);
            }
        }
        let equal = bool::from(computed.ct_eq(stored.tag.as_slice()));
        Ok(if equal && possible {
            Verdict::Match { needs_rehash: self.needs_rehash(stored) }
        } else {
            Verdict::Mismatch
        })
    }

    /// Takes as long as verifying a hash of the target cost, for a user who does not exist or has no password. Nothing matches.
    pub fn verify_unknown(&self, password: &Password, memory: &mut HashMemory) -> Result<Verdict, HashError> {
        let tag = self.target_tag(password, &DUMMY_SALT, memory)?;
        let _ = tag.ct_eq(&[0; TAG_BYTES]);
        Ok(Verdict::Mismatch)
    }

    /// Whether a hash differs in kind, cost, pepper or sizes from those that [`Self::hash`] makes.
    pub fn needs_rehash(&self, stored: &PasswordHash) -> bool {
        let Scheme::Argon2 { algorithm: Algorithm::Argon2id, version: Version::V0x13, cost, pepper } =
            stored.scheme
        else {
            return true;
        };
        cost != self.cost
            || pepper != self.peppers.current()
            || stored.tag.as_slice().len() != TAG_BYTES
            || stored.salt.as_slice().len() < 16
    }

    fn target_tag(
        &self,
        password: &Password,
        salt: &[u8; 16],
        memory: &mut HashMemory,
    ) -> Result<Zeroizing<[u8; TAG_BYTES]>, HashError> {
        let mut tag = Zeroizing::new([0; TAG_BYTES]);
        let pepper = self.peppers.current();
        let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
        self.argon2(algorithm, version, self.cost, pepper, password, salt, tag.as_mut_slice(), memory)?;
        Ok(tag)
    }

    #[expect(clippy::too_many_arguments, reason = "the parameters of one Argon2 call, and where it works")]
    fn argon2(
        &self,
        algorithm: Algorithm,
        version: Version,
        cost: Argon2Cost,
        pepper: Option<u32>,
        password: &Password,
        salt: &[u8],
        out: &mut [u8],
        memory: &mut HashMemory,
    ) -> Result<(), HashError> {
        let seasoned = self
            .peppers
            .season(pepper, password)
            .ok_or(HashError::UnknownPepper { id: pepper.unwrap_or_default() })?;
        let params = cost.params(out.len()).ok_or(HashError::Refused)?;
        let blocks = memory.blocks(cost.block_count()).ok_or(HashError::OutOfMemory)?;
        let result = Argon2::new(algorithm, version, params).hash_password_into_with_memory(
            seasoned.as_bytes(),
            salt,
            out,
            blocks,
        );
        memory.trim();
        result.map_err(|_| HashError::Refused)
    }
}

/// `false`: bcrypt would take the password for another one, so it matches nothing. The work is done all the same.
fn bcrypt_into(cost: u32, password: &Password, salt: &[u8], out: &mut [u8]) -> Result<bool, HashError> {
    let salt: [u8; 16] = salt.try_into().map_err(|_| HashError::Refused)?;
    // As every implementation does: the password with a zero behind it, cut at 72 bytes. The next sign-in hashes all of it.
    let mut key = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    key.extend_from_slice(password.as_bytes());
    // bcrypt repeats its key, so `a` and `a`, zero, `a` are one to it. No implementation makes hashes of passwords with a zero.
    let possible = !key.contains(&0);
    key.push(0);
    key.truncate(BCRYPT_BYTES_MAX);
    let computed = Zeroizing::new(bcrypt::bcrypt(cost, salt, &key));
    // The stored text has 23 of the 24 bytes.
    out.copy_from_slice(computed.get(..out.len()).ok_or(HashError::Refused)?);
    Ok(possible)
}
