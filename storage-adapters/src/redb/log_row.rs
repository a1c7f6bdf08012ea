//! Layouts of the rows of `raft.db`.

use bytes::Bytes;
use ledger_core::names::VaultId;
use ledger_core::ports::{LogId, LogKind, LogRecord, SignedMark, StoreError, StoredVote};

use super::row;

/// Random bytes in every log row. They are drawn when the record is already fixed and never leave the
/// node, so that nobody who chooses the payload can predict a page of the file and prepare two
/// contents with one page checksum (redb's own checksum is fast, not collision resistant).
pub(super) const SALT_BYTES: usize = 16;

/// Version of the record layout.
const RECORD_VERSION: u8 = 1;

/// Bytes before the payload: version, kind, term, node, salt, length.
const RECORD_HEAD_BYTES: usize = 1 + 1 + 8 + 8 + SALT_BYTES + 4;

/// Name of the log table in errors.
const LOG_TABLE: &str = "raft.db log";

/// Replaces the content of `bytes` with the stored form of a record. `None` when the payload exceeds
/// 4 GiB.
pub(super) fn encode_record(bytes: &mut Vec<u8>, record: &LogRecord, salt: &[u8]) -> Option<()> {
    let length = u32::try_from(record.payload.len()).ok()?;
    bytes.clear();
    bytes.reserve(RECORD_HEAD_BYTES.saturating_add(record.payload.len()).saturating_add(4));
    bytes.extend_from_slice(&[RECORD_VERSION, record.kind as u8]);
    bytes.extend_from_slice(&record.id.term.to_be_bytes());
    bytes.extend_from_slice(&record.id.node.to_be_bytes());
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&record.payload);
    let sum = record_checksum(record.id.index, bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The record stored at `index`, once its checksum is found right.
pub(super) fn decode_record(index: u64, stored: &[u8]) -> Result<LogRecord, StoreError> {
    let corrupt = || corrupt_record(index);
    let (content, sum) = stored.split_last_chunk::<4>().ok_or_else(corrupt)?;
    if u32::from_be_bytes(*sum) != record_checksum(index, content) {
        return Err(corrupt());
    }
    let mut fields = Fields(content);
    let version = fields.u8().ok_or_else(corrupt)?;
    if version != RECORD_VERSION {
        let (found, known) = (u32::from(version), u32::from(RECORD_VERSION));
        return Err(StoreError::Format { what: format!("record {index} of raft.db"), found, known });
    }
    fields.record(index).ok_or_else(corrupt)
}

/// The error for a record that is not what was written, or is not there.
pub(super) fn corrupt_record(index: u64) -> StoreError {
    row::corrupt(LOG_TABLE, &index.to_be_bytes())
}

fn record_checksum(index: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_be_bytes()), content)
}

/// Where the log begins and ends: written with every change of it, so that a record which a damaged
/// page swallowed is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogBounds {
    pub(super) first: u64,
    pub(super) last: LogId,
}

pub(super) fn encode_bounds(bounds: &LogBounds) -> Vec<u8> {
    [&bounds.first.to_be_bytes()[..], &encode_log_id(&bounds.last)].concat()
}

pub(super) fn decode_bounds(value: &[u8]) -> Option<LogBounds> {
    let mut fields = Fields(value);
    let bounds = LogBounds { first: fields.u64()?, last: fields.log_id()? };
    fields.finished(bounds)
}

pub(super) fn encode_log_id(id: &LogId) -> Vec<u8> {
    [id.term, id.node, id.index].iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(super) fn decode_log_id(value: &[u8]) -> Option<LogId> {
    let mut fields = Fields(value);
    let id = fields.log_id()?;
    fields.finished(id)
}

pub(super) fn encode_vote(vote: &StoredVote) -> Vec<u8> {
    let mut value = vote.term.to_be_bytes().to_vec();
    value.push(u8::from(vote.committed));
    if let Some(node) = vote.node {
        value.extend_from_slice(&node.to_be_bytes());
    }
    value
}

pub(super) fn decode_vote(value: &[u8]) -> Option<StoredVote> {
    let mut fields = Fields(value);
    let term = fields.u64()?;
    let committed = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let node = if fields.0.is_empty() { None } else { Some(fields.u64()?) };
    fields.finished(StoredVote { term, node, committed })
}

pub(super) fn encode_mark(mark: &SignedMark) -> Vec<u8> {
    [&mark.size.to_be_bytes()[..], &mark.root].concat()
}

pub(super) fn decode_mark(vault: &[u8], value: &[u8]) -> Option<SignedMark> {
    let vault = VaultId(vault.try_into().ok()?);
    let mut fields = Fields(value);
    let mark = SignedMark { vault, size: fields.u64()?, root: fields.take()? };
    fields.finished(mark)
}

/// What is left to decode of a row; every integer is big-endian.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn log_id(&mut self) -> Option<LogId> {
        Some(LogId { term: self.u64()?, node: self.u64()?, index: self.u64()? })
    }

    /// `decoded`, if nothing is left.
    pub(super) fn finished<T>(&self, decoded: T) -> Option<T> {
        self.0.is_empty().then_some(decoded)
    }

    /// A record without its version.
    fn record(mut self, index: u64) -> Option<LogRecord> {
        let kind = match self.u8()? {
            0 => LogKind::Blank,
            1 => LogKind::Proposal,
            2 => LogKind::Membership,
            _ => return None,
        };
        let id = LogId { term: self.u64()?, node: self.u64()?, index };
        self.take::<SALT_BYTES>()?;
        let length = self.u32()?;
        (u64::from(length) == self.0.len() as u64).then(|| LogRecord {
            id,
            kind,
            payload: Bytes::copy_from_slice(self.0),
        })
    }
}
