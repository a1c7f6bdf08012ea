//! The keyset row: which key signs, which one will, which ones still verify; and the JWKS as a function of it.
//!
//! A key is published as *next* before it signs, so that every verifier's cache has it by then; it signs as *active*; and as
//! *retiring* it verifies until the last token that it signed has expired. Each step is a function of the row and the time, and the
//! caller writes its result under the condition that the row is still the one it read.

use thiserror::Error;

use super::access_token::{ACCESS_TOKEN_SECONDS_MAX, LEEWAY_SECONDS_MAX};
use super::keys::PublicKey;

/// At most so many keys are in a row: one next, one active, the rest retiring.
pub const KEYSET_ENTRIES_MAX: usize = 8;
/// The longest envelope of a seed, in bytes.
pub const SEALED_SEED_BYTES_MAX: usize = 256;
/// The longest encoded row, in bytes.
pub const KEYSET_BYTES_MAX: usize = 7 + KEYSET_ENTRIES_MAX * (32 + 1 + 8 + 2 + SEALED_SEED_BYTES_MAX);

const MAGIC: [u8; 4] = *b"SRKS";
const VERSION: u16 = 1;
const DAY_MS: u64 = 86_400_000;

/// What a key is for at the moment. Times in ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and signs nothing yet.
    Next {
        /// When it was put into the row.
        published_at_ms: u64,
    },
    /// Signs.
    Active {
        /// Since when.
        since_ms: u64,
    },
    /// Verifies what it has signed.
    Retiring {
        /// Until when.
        until_ms: u64,
    },
}

/// A key of the row: its public half, and its seed in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysetEntry {
    /// The public half.
    pub public: PublicKey,
    /// The seed, sealed: see [`crate::envelope`].
    pub sealed_seed: Vec<u8>,
    /// What it is for.
    pub state: KeyState,
}

/// When keys change. Times in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// How long a key signs: 30 days.
    pub active_ms: u64,
    /// How long a key is published before it signs: longer than verifiers keep a JWKS, an hour at most, plus clock differences.
    pub published_before_ms: u64,
    /// How long a key verifies after it signed last: the longest life of a token plus the leeway of verifiers.
    pub verifies_after_ms: u64,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self {
            active_ms: 30 * DAY_MS,
            published_before_ms: 2 * 3_600_000,
            verifies_after_ms: 2 * VERIFIES_AFTER_MS_MIN,
        }
    }
}

const VERIFIES_AFTER_MS_MIN: u64 = (ACCESS_TOKEN_SECONDS_MAX + LEEWAY_SECONDS_MAX) * 1_000;

/// Why a policy would lose tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RotationPolicyError {
    /// Tokens would outlive their key.
    #[error("a key verifies for at least {VERIFIES_AFTER_MS_MIN} ms after it signed")]
    VerifiesTooShortly,
    /// The next key would have to be published before its predecessor signs, or more keys retire at a time than a row holds.
    #[error(
        "a key signs for longer than it is published before, and than a sixth of the time that it verifies after"
    )]
    ActiveTooShortly,
}

impl RotationPolicy {
    /// Refuses what would lose tokens.
    pub fn validate(&self) -> Result<(), RotationPolicyError> {
        if self.verifies_after_ms < VERIFIES_AFTER_MS_MIN {
            return Err(RotationPolicyError::VerifiesTooShortly);
        }
        if self.active_ms <= self.published_before_ms
            || self.active_ms <= self.verifies_after_ms / (KEYSET_ENTRIES_MAX as u64 - 2)
        {
            return Err(RotationPolicyError::ActiveTooShortly);
        }
        Ok(())
    }
}

/// What the row needs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// Nothing until this time.
    WaitUntil {
        /// ms since 1970.
        at_ms: u64,
    },
    /// A new key, published as the next one: [`Keyset::add_next`].
    AddNext,
    /// The next key signs from now on: [`Keyset::promote`].
    Promote,
    /// A retired key goes: [`Keyset::remove_retired`].
    RemoveRetired,
}

/// Why a step is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeysetError {
    /// There is a next key already.
    #[error("there is a next key already")]
    HasNext,
    /// There is no next key.
    #[error("there is no next key")]
    HasNoNext,
    /// Verifiers may not have the next key yet.
    #[error("the next key is not published for long enough: wait until {ready_at_ms}")]
    TooEarly {
        /// From then on it may be promoted.
        ready_at_ms: u64,
    },
    /// The key is in the row.
    #[error("the key is in the keyset already")]
    Repeated,
    /// More than [`KEYSET_ENTRIES_MAX`].
    #[error("a keyset has at most {KEYSET_ENTRIES_MAX} keys")]
    TooMany,
    /// The envelope of the seed is longer than [`SEALED_SEED_BYTES_MAX`].
    #[error("the envelope of a seed has at most {SEALED_SEED_BYTES_MAX} bytes")]
    SealedSeedTooLong,
}

/// The row is damaged, or of a version that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a keyset of version {VERSION}")]
pub struct KeysetDecodeError;

/// The row. Exactly one key is active, at most one is next, no key is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyset {
    active: KeysetEntry,
    others: Vec<KeysetEntry>,
}

impl Keyset {
    /// The first row of an installation: one key, which signs at once because no verifier knows an older one.
    pub fn first(public: PublicKey, sealed_seed: Vec<u8>, now_ms: u64) -> Result<Self, KeysetError> {
        let active = entry(public, sealed_seed, KeyState::Active { since_ms: now_ms })?;
        Ok(Self { active, others: Vec::new() })
    }

    /// The key that signs.
    pub fn active(&self) -> &KeysetEntry {
        &self.active
    }

    /// All keys, the active one first.
    pub fn entries(&self) -> impl Iterator<Item = &KeysetEntry> {
        core::iter::once(&self.active).chain(&self.others)
    }

    /// The keys that verify at `now_ms`: next, active, and those that retire and have not yet.
    pub fn verifying(&self, now_ms: u64) -> impl Iterator<Item = &PublicKey> {
        self.entries()
            .filter(
                move |entry| !matches!(entry.state, KeyState::Retiring { until_ms } if until_ms <= now_ms),
            )
            .map(|entry| &entry.public)
    }

    /// The JWKS document of the row at `now_ms`.
    pub fn to_jwks(&self, now_ms: u64) -> String {
        let keys: Vec<String> = self.verifying(now_ms).map(PublicKey::to_jwk).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// What is to be done at `now_ms`, one step at a time.
    pub fn due(&self, policy: &RotationPolicy, now_ms: u64) -> RotationStep {
        let KeyState::Active { since_ms } = self.active.state else {
            return RotationStep::WaitUntil { at_ms: u64::MAX }; // the active entry is active
        };
        let ends_ms = since_ms.saturating_add(policy.active_ms);
        let retired_ms = self.others.iter().filter_map(|entry| match entry.state {
            KeyState::Retiring { until_ms } => Some(until_ms),
            _ => None,
        });
        let (rotation, at_ms) = match self.next_published_at() {
            Some(at_ms) => {
                (RotationStep::Promote, ends_ms.max(at_ms.saturating_add(policy.published_before_ms)))
            }
            None => (RotationStep::AddNext, ends_ms.saturating_sub(policy.published_before_ms)),
        };
        match retired_ms.min() {
            Some(until_ms) if until_ms <= now_ms => RotationStep::RemoveRetired,
            _ if at_ms <= now_ms => rotation,
            until_ms => RotationStep::WaitUntil { at_ms: at_ms.min(until_ms.unwrap_or(u64::MAX)) },
        }
    }

    /// Publishes a key that will sign.
    pub fn add_next(
        mut self,
        public: PublicKey,
        sealed_seed: Vec<u8>,
        now_ms: u64,
    ) -> Result<Self, KeysetError> {
        if self.next_published_at().is_some() {
            return Err(KeysetError::HasNext);
        }
        if self.entries().any(|entry| entry.public == public) {
            return Err(KeysetError::Repeated);
        }
        if self.others.len() + 1 >= KEYSET_ENTRIES_MAX {
            return Err(KeysetError::TooMany);
        }
        self.others.push(entry(public, sealed_seed, KeyState::Next { published_at_ms: now_ms })?);
        Ok(self)
    }

    /// The next key signs, the active one retires. Refused while some verifier may not know the next one.
    pub fn promote(mut self, policy: &RotationPolicy, now_ms: u64) -> Result<Self, KeysetError> {
        let published_at_ms = self.next_published_at().ok_or(KeysetError::HasNoNext)?;
        let ready_at_ms = published_at_ms.saturating_add(policy.published_before_ms);
        if now_ms < ready_at_ms {
            return Err(KeysetError::TooEarly { ready_at_ms });
        }
        for other in &mut self.others {
            if matches!(other.state, KeyState::Next { .. }) {
                other.state = KeyState::Active { since_ms: now_ms };
                core::mem::swap(other, &mut self.active);
                other.state =
                    KeyState::Retiring { until_ms: now_ms.saturating_add(policy.verifies_after_ms) };
                break;
            }
        }
        Ok(self)
    }

    /// Without the keys whose time is over; their seeds are gone with the row's next write.
    #[must_use]
    pub fn remove_retired(mut self, now_ms: u64) -> Self {
        self.others
            .retain(|entry| !matches!(entry.state, KeyState::Retiring { until_ms } if until_ms <= now_ms));
        self
    }

    /// The row's bytes, as `docs/formats.md` has them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(KEYSET_BYTES_MAX);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.push((self.others.len() + 1) as u8);
        for entry in self.entries() {
            let (state, at_ms) = match entry.state {
                KeyState::Next { published_at_ms } => (0, published_at_ms),
                KeyState::Active { since_ms } => (1, since_ms),
                KeyState::Retiring { until_ms } => (2, until_ms),
            };
            bytes.extend_from_slice(&entry.public.to_bytes());
            bytes.push(state);
            bytes.extend_from_slice(&at_ms.to_be_bytes());
            bytes.extend_from_slice(&(entry.sealed_seed.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&entry.sealed_seed);
        }
        bytes
    }

    /// Reads the row's bytes. What is read would be written as the same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeysetDecodeError> {
        decode(bytes).ok_or(KeysetDecodeError)
    }

    fn next_published_at(&self) -> Option<u64> {
        self.others.iter().find_map(|entry| match entry.state {
            KeyState::Next { published_at_ms } => Some(published_at_ms),
            _ => None,
        })
    }
}

fn entry(public: PublicKey, sealed_seed: Vec<u8>, state: KeyState) -> Result<KeysetEntry, KeysetError> {
    if sealed_seed.len() > SEALED_SEED_BYTES_MAX {
        return Err(KeysetError::SealedSeedTooLong);
    }
    Ok(KeysetEntry { public, sealed_seed, state })
}

fn decode(bytes: &[u8]) -> Option<Keyset> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (count, mut rest) = rest.split_first()?;
    if *magic != MAGIC || u16::from_be_bytes(*version) != VERSION || usize::from(*count) > KEYSET_ENTRIES_MAX
    {
        return None;
    }
    let mut read: Option<Keyset> = None;
    for _ in 0..*count {
        let (public, after) = rest.split_first_chunk::<32>()?;
        let (state, after) = after.split_first()?;
        let (at_ms, after) = after.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let (sealed_seed, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        let at_ms = u64::from_be_bytes(*at_ms);
        let state = match state {
            0 => KeyState::Next { published_at_ms: at_ms },
            1 => KeyState::Active { since_ms: at_ms },
            2 => KeyState::Retiring { until_ms: at_ms },
            _ => return None,
        };
        let entry = entry(PublicKey::new(*public).ok()?, sealed_seed.to_vec(), state).ok()?;
        match (&mut read, state) {
            // The active key is first, and the only one of its kind.
            (None, KeyState::Active { .. }) => read = Some(Keyset { active: entry, others: Vec::new() }),
            (None, _) | (Some(_), KeyState::Active { .. }) => return None,
            (Some(keyset), _) => {
                let second_next =
                    matches!(state, KeyState::Next { .. }) && keyset.next_published_at().is_some();
                if second_next || keyset.entries().any(|known| known.public == entry.public) {
                    return None;
                }
                keyset.others.push(entry);
            }
        }
    }
    if rest.is_empty() { read } else { None }
}
