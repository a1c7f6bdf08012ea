//! The bytes of the file; `docs/formats.md` has them too.

use std::sync::Arc;

use auth_core::ports::{Change, Changed, CommitDigest, CommitId, Position, Record, Version};
use auth_core::{Key, Millis};

use crate::redb::format::RowDefinition;
use crate::redb::one_file::FileFormat;
use crate::redb::row::RowTable;

/// What the file is, whatever it is called.
pub(super) const FORMAT: FileFormat = FileFormat { kind: b"auth.db", version: 1 };

pub(super) const RECORDS: RowDefinition = RowDefinition::new("records");
pub(super) const ENDS: RowDefinition = RowDefinition::new("ends");
pub(super) const COMMITS: RowDefinition = RowDefinition::new("commits");
pub(super) const CHANGES: RowDefinition = RowDefinition::new("changes");

/// Rows of table `meta`, beside the format.
pub(super) const LAST: &[u8] = b"last";
pub(super) const FORGOTTEN: &[u8] = b"forgotten";

pub(super) const META_ROWS: RowTable = RowTable { number: 0xE7, name: "auth.db meta" };
pub(super) const RECORD_ROWS: RowTable = RowTable { number: 0xE8, name: "auth.db records" };
pub(super) const END_ROWS: RowTable = RowTable { number: 0xE9, name: "auth.db ends" };
pub(super) const COMMIT_ROWS: RowTable = RowTable { number: 0xEA, name: "auth.db commits" };
pub(super) const CHANGE_ROWS: RowTable = RowTable { number: 0xEB, name: "auth.db changes" };

/// Version `u64`, end (0, or 1 and `u64`), value.
pub(super) fn encode_record(version: Version, expires_at: Option<Millis>, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len().saturating_add(17));
    bytes.extend_from_slice(&version.0.to_be_bytes());
    match expires_at {
        None => bytes.push(0),
        Some(end) => {
            bytes.push(1);
            bytes.extend_from_slice(&end.0.to_be_bytes());
        }
    }
    bytes.extend_from_slice(value);
    bytes
}

/// Version and end of a record, and its value.
pub(super) struct StoredRecord<'b> {
    pub version: Version,
    pub expires_at: Option<Millis>,
    pub value: &'b [u8],
}

impl StoredRecord<'_> {
    pub(super) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    pub(super) fn to_record(&self) -> Record {
        Record { value: Arc::from(self.value), version: self.version, expires_at: self.expires_at }
    }
}

pub(super) fn decode_record(bytes: &[u8]) -> Option<StoredRecord<'_>> {
    let (version, rest) = split_u64(bytes)?;
    let (has_end, rest) = rest.split_first()?;
    let (expires_at, value) = match has_end {
        0 => (None, rest),
        1 => {
            let (end, value) = split_u64(rest)?;
            (Some(Millis(end)), value)
        }
        _ => return None,
    };
    Some(StoredRecord { version: Version(version), expires_at, value })
}

/// The end `u64`, then the key: so the longest expired come first.
pub(super) fn end_key(end: Millis, key: &Key) -> Vec<u8> {
    [&end.0.to_be_bytes()[..], key.as_bytes()].concat()
}

pub(super) fn decode_end_key(bytes: &[u8]) -> Option<(Millis, Key)> {
    let (end, key) = split_u64(bytes)?;
    Some((Millis(end), Key::decode(key)?))
}

/// Digest, position `u64`.
pub(super) fn encode_commit(digest: CommitDigest, position: Position) -> [u8; 40] {
    let mut bytes = [0; 40];
    let content = digest.0.into_iter().chain(position.0.to_be_bytes());
    bytes.iter_mut().zip(content).for_each(|(byte, value)| *byte = value);
    bytes
}

pub(super) fn decode_commit(bytes: &[u8]) -> Option<(CommitDigest, Position)> {
    let (digest, position) = bytes.split_first_chunk::<32>()?;
    Some((CommitDigest(*digest), Position(decode_u64(position)?)))
}

/// Time `u64`, number of keys `u16`, then of each: 0 deleted or 1 put, length `u16`, key.
pub(super) fn encode_change(change: &Change) -> Vec<u8> {
    let mut bytes = change.committed_at.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length(change.keys.len()));
    for (key, changed) in &change.keys {
        bytes.push(u8::from(*changed == Changed::Put));
        bytes.extend_from_slice(&length(key.as_bytes().len()));
        bytes.extend_from_slice(key.as_bytes());
    }
    bytes
}

/// The limits of a commit keep it below.
fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

pub(super) fn decode_change(position: Position, bytes: &[u8]) -> Option<Change> {
    let (committed_at, rest) = split_u64(bytes)?;
    let (count, mut rest) = split_u16(rest)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let (changed, behind) = rest.split_first()?;
        let changed = match changed {
            0 => Changed::Deleted,
            1 => Changed::Put,
            _ => return None,
        };
        let (length, behind) = split_u16(behind)?;
        let (key, behind) = behind.split_at_checked(usize::from(length))?;
        keys.push((Key::decode(key)?, changed));
        rest = behind;
    }
    rest.is_empty().then_some(Change { position, committed_at: Millis(committed_at), keys })
}

/// Of a change the time alone.
pub(super) fn decode_committed_at(bytes: &[u8]) -> Option<Millis> {
    split_u64(bytes).map(|(committed_at, _)| Millis(committed_at))
}

pub(super) fn decode_id(bytes: &[u8]) -> Option<CommitId> {
    bytes.try_into().ok().map(CommitId::from_bytes)
}

pub(super) fn decode_u64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}
