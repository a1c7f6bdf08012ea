//! The content of batch and state frames.

use bytes::Bytes;
use ledger_core::names::VaultId;
use ledger_core::ports::{LogChange, LogId, LogKind, LogRecord, SignedMark, StoredVote};

use super::frame::{Fields, Place};

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;
const SIGNED: u8 = 6;

/// Bytes of a record before its payload: tag, kind, term, node, index, length.
const RECORD_HEAD_BYTES: u64 = 1 + 1 + 8 + 8 + 8 + 4;
/// Bytes of a record's checksum.
const RECORD_SUM_BYTES: u64 = 4;
const LOG_ID_BYTES: u64 = 24;
const VOTE_BYTES: u64 = 8 + 1 + 1 + 8;
const MARK_BYTES: u64 = 16 + 8 + 32;
/// Bytes of a state frame without its marks.
const STATE_BYTES: u64 = 8 + (1 + VOTE_BYTES) + 2 * (1 + LOG_ID_BYTES) + (1 + 8 + LOG_ID_BYTES) + 4;

/// Where the bytes of a record stand, and the parts of its id that the index does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) term: u64,
    pub(super) node: u64,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl RecordPlace {
    /// Offset of the byte behind the record.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// What the record counts in a read, as [`LogRecord::size_bytes`].
    pub(super) fn size_bytes(&self) -> usize {
        let payload = self.length.saturating_sub(RECORD_HEAD_BYTES + RECORD_SUM_BYTES);
        usize::try_from(payload).unwrap_or(usize::MAX).saturating_add(LogRecord::OVERHEAD_BYTES)
    }
}

/// Bytes that a change takes in a batch.
pub(super) fn encoded_bytes(change: &LogChange) -> u64 {
    match change {
        LogChange::Append(record) => record_bytes(record.payload.len() as u64),
        LogChange::SaveVote(_) => 1 + VOTE_BYTES,
        LogChange::TruncateAfter(_) => 1 + 1 + 8,
        LogChange::PurgeThrough(_) | LogChange::SaveCommitted(_) => 1 + LOG_ID_BYTES,
        LogChange::SaveSigned(_) => 1 + MARK_BYTES,
    }
}

fn record_bytes(payload: u64) -> u64 {
    payload.saturating_add(RECORD_HEAD_BYTES + RECORD_SUM_BYTES)
}

/// Appends a change to `bytes`, whose first byte belongs at `start`. Returns where a record came to stand.
pub(super) fn encode(bytes: &mut Vec<u8>, change: &LogChange, start: &Place) -> Option<RecordPlace> {
    match change {
        LogChange::Append(record) => return Some(encode_record(bytes, record, start)),
        LogChange::SaveVote(vote) => {
            bytes.push(VOTE);
            put_vote(bytes, vote);
        }
        LogChange::TruncateAfter(keep) => {
            bytes.extend_from_slice(&[TRUNCATE, u8::from(keep.is_some())]);
            put_u64(bytes, keep.unwrap_or_default());
        }
        LogChange::PurgeThrough(id) => {
            bytes.push(PURGE);
            put_log_id(bytes, id);
        }
        LogChange::SaveCommitted(id) => {
            bytes.push(COMMITTED);
            put_log_id(bytes, id);
        }
        LogChange::SaveSigned(mark) => {
            bytes.push(SIGNED);
            put_mark(bytes, mark);
        }
    }
    None
}

fn encode_record(bytes: &mut Vec<u8>, record: &LogRecord, start: &Place) -> RecordPlace {
    let from = bytes.len();
    bytes.extend_from_slice(&[APPEND, record.kind as u8]);
    for number in [record.id.term, record.id.node, record.id.index] {
        put_u64(bytes, number);
    }
    // A longer payload made a batch that was refused before it was encoded.
    let length = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&record.payload);
    let offset = start.offset.saturating_add(from as u64);
    let sum = start.at(offset).checksum(bytes.get(from..).unwrap_or_default());
    bytes.extend_from_slice(&sum.to_be_bytes());
    let length = bytes.len().saturating_sub(from) as u64;
    RecordPlace { term: record.id.term, node: record.id.node, segment: start.segment, offset, length }
}

/// The record that was written at `place`; `None` when the bytes are others.
pub(super) fn decode_record(bytes: &[u8], place: &Place) -> Option<LogRecord> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if u32::from_be_bytes(*sum) != place.checksum(content) {
        return None;
    }
    let mut fields = Fields(content);
    if fields.u8()? != APPEND {
        return None;
    }
    let (kind, id, length) = record_head(&mut fields)?;
    let payload = fields.bytes(length)?;
    fields.0.is_empty().then(|| LogRecord { id, kind, payload: Bytes::copy_from_slice(payload) })
}

fn record_head(fields: &mut Fields<'_>) -> Option<(LogKind, LogId, usize)> {
    let kind = match fields.u8()? {
        0 => LogKind::Blank,
        1 => LogKind::Proposal,
        2 => LogKind::Membership,
        _ => return None,
    };
    let id = LogId { term: fields.u64()?, node: fields.u64()?, index: fields.u64()? };
    Some((kind, id, usize::try_from(fields.u32()?).ok()?))
}

/// The changes of a batch whose checksum is right, one at a time.
pub(super) struct Changes<'a> {
    fields: Fields<'a>,
    length: u64,
    start: Place,
}

impl<'a> Changes<'a> {
    /// `body` begins at `start`.
    pub(super) fn of(body: &'a [u8], start: Place) -> Self {
        Self { fields: Fields(body), length: body.len() as u64, start }
    }

    fn offset(&self) -> u64 {
        self.start.offset + (self.length - self.fields.0.len() as u64)
    }

    /// The next change, and where its record stands; the record comes without its payload.
    pub(super) fn next(&mut self) -> Option<(LogChange, Option<RecordPlace>)> {
        let offset = self.offset();
        let change = match self.fields.u8()? {
            APPEND => {
                let (kind, id, length) = record_head(&mut self.fields)?;
                self.fields.bytes(length)?;
                self.fields.take::<4>()?;
                let place = RecordPlace {
                    term: id.term,
                    node: id.node,
                    segment: self.start.segment,
                    offset,
                    length: self.offset() - offset,
                };
                return Some((LogChange::Append(LogRecord { id, kind, payload: Bytes::new() }), Some(place)));
            }
            VOTE => LogChange::SaveVote(vote(&mut self.fields)?),
            TRUNCATE => {
                let is_some = flag(&mut self.fields)?;
                let keep = self.fields.u64()?;
                LogChange::TruncateAfter(is_some.then_some(keep))
            }
            PURGE => LogChange::PurgeThrough(log_id(&mut self.fields)?),
            COMMITTED => LogChange::SaveCommitted(log_id(&mut self.fields)?),
            SIGNED => LogChange::SaveSigned(mark(&mut self.fields)?),
            _ => return None,
        };
        Some((change, None))
    }

    /// Whether nothing but padding is left.
    pub(super) fn is_finished(&self) -> bool {
        self.fields.0.len() < super::frame::ALIGNMENT && self.fields.0.iter().all(|byte| *byte == 0)
    }
}

/// What a state frame holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogState {
    /// Where the frames of the segment before end; 0 in a log's first segment.
    pub(super) previous_end: u64,
    pub(super) vote: Option<StoredVote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Index of the first record and id of the last.
    pub(super) held: Option<(u64, LogId)>,
    pub(super) signed: Vec<SignedMark>,
}

impl LogState {
    /// Bytes of the frame's body for so many marks.
    pub(super) fn encoded_bytes(marks: usize) -> u64 {
        (marks as u64).saturating_mul(MARK_BYTES).saturating_add(STATE_BYTES)
    }

    /// What is absent is written as zeros behind its flag, so that the length depends on the marks only.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        put_u64(bytes, self.previous_end);
        bytes.push(u8::from(self.vote.is_some()));
        put_vote(bytes, &self.vote.unwrap_or(StoredVote { term: 0, node: None, committed: false }));
        for id in [self.committed, self.purged] {
            bytes.push(u8::from(id.is_some()));
            put_log_id(bytes, &id.unwrap_or(NO_LOG_ID));
        }
        let (first, last) = self.held.unwrap_or((0, NO_LOG_ID));
        bytes.push(u8::from(self.held.is_some()));
        put_u64(bytes, first);
        put_log_id(bytes, &last);
        let marks = u32::try_from(self.signed.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&marks.to_be_bytes());
        self.signed.iter().for_each(|mark| put_mark(bytes, mark));
    }

    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let previous_end = fields.u64()?;
        let has_vote = flag(&mut fields)?;
        let vote = Some(vote(&mut fields)?).filter(|_| has_vote);
        let has_committed = flag(&mut fields)?;
        let committed = Some(log_id(&mut fields)?).filter(|_| has_committed);
        let has_purged = flag(&mut fields)?;
        let purged = Some(log_id(&mut fields)?).filter(|_| has_purged);
        let is_held = flag(&mut fields)?;
        let held = Some((fields.u64()?, log_id(&mut fields)?)).filter(|_| is_held);
        let marks = u64::from(fields.u32()?);
        // Checked before anything is allocated for them.
        if marks.saturating_mul(MARK_BYTES) > fields.0.len() as u64 {
            return None;
        }
        let signed = (0..marks).map(|_| mark(&mut fields)).collect::<Option<Vec<_>>>()?;
        let is_finished = fields.0.len() < super::frame::ALIGNMENT && fields.0.iter().all(|byte| *byte == 0);
        is_finished.then_some(Self { previous_end, vote, committed, purged, held, signed })
    }
}

const NO_LOG_ID: LogId = LogId { term: 0, node: 0, index: 0 };

fn put_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn put_log_id(bytes: &mut Vec<u8>, id: &LogId) {
    for number in [id.term, id.node, id.index] {
        put_u64(bytes, number);
    }
}

fn put_vote(bytes: &mut Vec<u8>, vote: &StoredVote) {
    put_u64(bytes, vote.term);
    bytes.extend_from_slice(&[u8::from(vote.committed), u8::from(vote.node.is_some())]);
    put_u64(bytes, vote.node.unwrap_or_default());
}

fn put_mark(bytes: &mut Vec<u8>, mark: &SignedMark) {
    bytes.extend_from_slice(&mark.vault.0);
    put_u64(bytes, mark.size);
    bytes.extend_from_slice(&mark.root);
}

fn flag(fields: &mut Fields<'_>) -> Option<bool> {
    match fields.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn log_id(fields: &mut Fields<'_>) -> Option<LogId> {
    Some(LogId { term: fields.u64()?, node: fields.u64()?, index: fields.u64()? })
}

fn vote(fields: &mut Fields<'_>) -> Option<StoredVote> {
    let term = fields.u64()?;
    let committed = flag(fields)?;
    let has_node = flag(fields)?;
    let node = fields.u64()?;
    Some(StoredVote { term, node: has_node.then_some(node), committed })
}

fn mark(fields: &mut Fields<'_>) -> Option<SignedMark> {
    Some(SignedMark { vault: VaultId(fields.take()?), size: fields.u64()?, root: fields.take()? })
}
