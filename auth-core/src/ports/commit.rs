//! What is committed: conditions, writes, and the id by which a commit is known when it comes again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::auth_store::{AuthStoreError, Limit};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::millis::Millis;

/// Bytes of a value, at most.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// Conditions of a commit, at most.
pub const CHECKS_PER_COMMIT_MAX: usize = 256;

/// Writes of a commit, at most.
pub const WRITES_PER_COMMIT_MAX: usize = 256;

/// Bytes of all keys and values of a commit, at most.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// How long a store remembers an applied commit, by the time in its id. Whoever does not know after ten minutes whether a
/// commit was applied has to read what it would have written.
pub const COMMIT_ID_HORIZON: Duration = Duration::from_secs(600);

/// How many applied commits a store remembers: those with the latest ids, about 100 MB on a disk. At more than 1,666
/// commits a second it remembers for less than [`COMMIT_ID_HORIZON`], and refuses what it may have forgotten.
pub const COMMIT_IDS_KEPT_MAX: u64 = 1_000_000;

/// How far ahead of a commit's time the time in its id may be: clocks differ.
pub const COMMIT_ID_AHEAD_MAX: Duration = Duration::from_secs(300);

/// The place of a commit among all of a store: 1, 2, 3 … in the order in which they took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before every commit.
    pub const START: Self = Self(0);
}

/// The version of a record: the position of the commit that wrote it. So no version comes again, also when a record is
/// deleted and made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// By what a commit is known when it comes again: 6 bytes of time in milliseconds, big-endian, and 80 random bits. Ids are
/// ordered by their time, so that a store can forget the oldest and knows what it may have forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId([u8; 16]);

impl CommitId {
    /// The id of a commit that is made now. The random bytes are fresh for each.
    pub fn new(now: Millis, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        let time = now.0.min((1 << 48) - 1).to_be_bytes().into_iter().skip(2);
        for (byte, value) in bytes.iter_mut().zip(time.chain(random)) {
            *byte = value;
        }
        Self(bytes)
    }

    /// The id of these bytes: every 16 bytes are one.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// When it was made, by whoever made it.
    pub fn made_at(self) -> Millis {
        Millis(self.0.iter().take(6).fold(0, |time, byte| time << 8 | u64::from(*byte)))
    }

    /// Refuses an id that a store may have forgotten by this time, or that is too far ahead of it.
    ///
    /// # Errors
    ///
    /// [`AuthStoreError::CommitIdExpired`], [`AuthStoreError::CommitIdAhead`].
    pub fn check_time(self, now: Millis) -> Result<(), AuthStoreError> {
        if self.made_at().after(COMMIT_ID_HORIZON) <= now {
            return Err(AuthStoreError::CommitIdExpired { id: self });
        }
        if self.made_at() > now.after(COMMIT_ID_AHEAD_MAX) {
            return Err(AuthStoreError::CommitIdAhead { id: self, now });
        }
        Ok(())
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// What has to be true of a record for a commit to take effect. A record that has expired by the commit's time is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// There is one, and it was last written by the commit of this version.
    Version(Version),
}

impl Expect {
    /// Whether it is so, given the version of the record that is there.
    pub fn holds(self, found: Option<Version>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Version(version) => found == Some(version),
        }
    }
}

/// A condition: of a key that is written, or only was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Of which record.
    pub key: Key,
    /// What.
    pub expect: Expect,
}

/// A write to one record, whatever is there.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Makes or replaces it.
    Put {
        /// Which.
        key: Key,
        /// With what.
        value: Arc<[u8]>,
        /// From when on it is gone, if ever.
        expires_at: Option<Millis>,
    },
    /// Removes it, also when it has expired or is not there.
    Delete {
        /// Which.
        key: Key,
    },
}

impl Write {
    /// Which record.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, expires_at } => {
                write!(formatter, "put {key:?}, {} bytes, until {expires_at:?}", value.len())
            }
            Self::Delete { key } => write!(formatter, "delete {key:?}"),
        }
    }
}

/// SHA-256 of what a commit says: what a store keeps to tell a commit that comes again from another one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitDigest(pub [u8; 32]);

/// Writes that take effect together, or not at all: when one of the conditions does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Each about another key.
    pub checks: Vec<Check>,
    /// Each to another key. A write without a check of its key is unconditional.
    pub writes: Vec<Write>,
}

impl Commit {
    /// A commit of nothing.
    pub fn new(id: CommitId) -> Self {
        Self { id, checks: Vec::new(), writes: Vec::new() }
    }

    /// With one condition more.
    #[must_use]
    pub fn expect(mut self, key: &Key, expect: Expect) -> Self {
        self.checks.push(Check { key: key.clone(), expect });
        self
    }

    /// With one record more to make or replace.
    #[must_use]
    pub fn put(mut self, key: &Key, value: impl AsRef<[u8]>, expires_at: Option<Millis>) -> Self {
        self.writes.push(Write::Put { key: key.clone(), value: value.as_ref().into(), expires_at });
        self
    }

    /// With one record more to remove.
    #[must_use]
    pub fn delete(mut self, key: &Key) -> Self {
        self.writes.push(Write::Delete { key: key.clone() });
        self
    }

    /// Bytes of all keys and values.
    pub fn size_bytes(&self) -> usize {
        let checks = self.checks.iter().map(|check| check.key.as_bytes().len());
        let writes =
            self.writes.iter().map(|write| write.key().as_bytes().len().saturating_add(write.value_bytes()));
        checks.chain(writes).fold(0, usize::saturating_add)
    }

    /// Refuses a commit that is beyond a limit or has two checks of, or two writes to, one key. Every store asks this first.
    ///
    /// # Errors
    ///
    /// [`AuthStoreError::TooLarge`], [`AuthStoreError::RepeatedKey`].
    pub fn check_limits(&self) -> Result<(), AuthStoreError> {
        Limit::Checks.hold(self.checks.len(), CHECKS_PER_COMMIT_MAX)?;
        Limit::Writes.hold(self.writes.len(), WRITES_PER_COMMIT_MAX)?;
        let value_bytes = self.writes.iter().map(Write::value_bytes).max();
        Limit::ValueBytes.hold(value_bytes.unwrap_or(0), VALUE_BYTES_MAX)?;
        let keys = || (self.checks.iter().map(|check| &check.key), self.writes.iter().map(Write::key));
        let (checked, written) = keys();
        for key in checked.chain(written) {
            Limit::KeyBytes.hold(key.as_bytes().len(), KEY_BYTES_MAX)?;
        }
        Limit::CommitBytes.hold(self.size_bytes(), COMMIT_BYTES_MAX)?;
        let (checked, written) = keys();
        refuse_repeated(checked)?;
        refuse_repeated(written)
    }

    /// The digest of its conditions and writes; `docs/formats.md` has the layout. Its id and the time are no part of it.
    pub fn digest(&self) -> CommitDigest {
        let mut hash = Sha256::new();
        hash.update(b"strongroom auth commit v1\0");
        let count = |hash: &mut Sha256, count: usize| hash.update((count as u64).to_be_bytes());
        count(&mut hash, self.checks.len());
        for check in &self.checks {
            count(&mut hash, check.key.as_bytes().len());
            hash.update(check.key.as_bytes());
            match check.expect {
                Expect::Absent => hash.update([0]),
                Expect::Present => hash.update([1]),
                Expect::Version(version) => {
                    hash.update([2]);
                    hash.update(version.0.to_be_bytes());
                }
            }
        }
        count(&mut hash, self.writes.len());
        for write in &self.writes {
            count(&mut hash, write.key().as_bytes().len());
            hash.update(write.key().as_bytes());
            match write {
                Write::Delete { .. } => hash.update([0]),
                Write::Put { value, expires_at, .. } => {
                    match expires_at {
                        None => hash.update([1]),
                        Some(expires_at) => {
                            hash.update([2]);
                            hash.update(expires_at.0.to_be_bytes());
                        }
                    }
                    count(&mut hash, value.len());
                    hash.update(value);
                }
            }
        }
        CommitDigest(hash.finalize().into())
    }
}

fn refuse_repeated<'k>(keys: impl Iterator<Item = &'k Key>) -> Result<(), AuthStoreError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(AuthStoreError::RepeatedKey { key: key.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Table, Tenant};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key(number: u64) -> Key {
        Key::new(Table(1), Tenant(2)).number(number)
    }

    fn id() -> CommitId {
        CommitId::new(Millis(0x0102_0304_0506), [7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    }

    /// The golden vectors of docs/formats.md. The digests were computed by another program, from the layout.
    #[test]
    fn ids_and_digests_are_the_documented_ones() {
        assert_eq!(hex(&id().to_bytes()), "0102030405060708090a0b0c0d0e0f10");
        assert_eq!(id().made_at(), Millis(0x0102_0304_0506));
        assert_eq!(CommitId::new(Millis(u64::MAX), [0; 10]).made_at(), Millis((1 << 48) - 1));
        assert_eq!(
            hex(&Commit::new(id()).digest().0),
            "1e3dfc6ab037145721bfc08b018f68bd657ed8c73d58daced1f671c65541433d"
        );
        let commit = Commit::new(id())
            .expect(&key(3), Expect::Absent)
            .expect(&key(4), Expect::Present)
            .expect(&key(5), Expect::Version(Version(6)))
            .put(&key(3), b"value", None)
            .put(&key(4), b"", Some(Millis(7)))
            .delete(&key(5));
        assert_eq!(
            hex(&commit.digest().0),
            "8fe38bf302ccaba0fa95410f78a0ef1c52ee2034ff7f035687daa3bba17cbf61"
        );
    }

    #[test]
    fn an_id_is_in_time_from_five_minutes_before_until_ten_minutes_after() {
        let made_at = id().made_at();
        let at = |now: u64| id().check_time(Millis(now));
        let (first, end) = (made_at.0 - 300_000, made_at.0 + 600_000);
        assert!(matches!(at(first - 1), Err(AuthStoreError::CommitIdAhead { .. })));
        assert!(at(first).is_ok() && at(end - 1).is_ok());
        assert!(matches!(at(end), Err(AuthStoreError::CommitIdExpired { .. })));
    }

    #[test]
    fn no_value_is_shown() {
        let commit = Commit::new(id()).put(&key(1), b"secret", None);
        let shown = format!("{commit:?} {:?}", commit.writes);
        assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
    }
}
