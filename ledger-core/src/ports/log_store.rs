use std::time::Duration;

use bytes::Bytes;

use super::StoreError;
use crate::names::VaultId;

/// Term and index of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct LogId {
    /// Raft term.
    pub term: u64,
    /// The leader of that term.
    pub node: u64,
    /// Index in the log, from 0.
    pub index: u64,
}

/// What a log record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogKind {
    /// Nothing: a new leader's first entry.
    Blank = 0,
    /// An encoded [`crate::command::Proposal`].
    Proposal = 1,
    /// An encoded membership.
    Membership = 2,
}

/// One record of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it stands.
    pub id: LogId,
    /// What it is.
    pub kind: LogKind,
    /// Its bytes.
    pub payload: Bytes,
}

impl LogRecord {
    /// Bytes that a record counts in [`LogStore::read`] beside its payload.
    pub const OVERHEAD_BYTES: usize = 32;

    /// What the record counts against the limit of [`LogStore::read`].
    pub fn size_bytes(&self) -> usize {
        self.payload.len().saturating_add(Self::OVERHEAD_BYTES)
    }
}

/// A vote as Raft remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredVote {
    /// The term.
    pub term: u64,
    /// Who was voted for; `None` = nobody yet in this term.
    pub node: Option<u64>,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// The last checkpoint of a vault that was, or may have been, signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedMark {
    /// The vault.
    pub vault: VaultId,
    /// Tree size.
    pub size: u64,
    /// Root of the tree of that size.
    pub root: [u8; 32],
}

/// One change to the log. A batch of them is one durable transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChange {
    /// Appends a record at the index after the last.
    Append(LogRecord),
    /// Replaces the vote.
    SaveVote(StoredVote),
    /// Drops every record after this index; `None` = all of them.
    TruncateAfter(Option<u64>),
    /// Drops every record up to and with this one, and remembers it.
    PurgeThrough(LogId),
    /// Remembers how far the log is committed.
    SaveCommitted(LogId),
    /// Remembers a checkpoint before it is signed.
    SaveSigned(SignedMark),
}

/// What a log store remembers, as it opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The vote.
    pub vote: Option<StoredVote>,
    /// How far the log was known to be committed.
    pub committed: Option<LogId>,
    /// The last record that was purged.
    pub purged: Option<LogId>,
    /// The last record; the purged one when no other is left.
    pub last: Option<LogId>,
    /// The last signed checkpoint of each vault, ordered by vault.
    pub signed: Vec<SignedMark>,
}

/// The replicated log, the vote and the signing marks of one node.
///
/// # Contract
///
/// - **G1 atomic**: a batch of [`commit`](LogStore::commit) takes effect whole and in order, or not at all.
/// - **G2 durable**: when `commit` returns `Ok`, the batch survives a power cut; later batches never
///   survive without it.
/// - **G3 visible**: a returned batch is seen by every later `read` and `snapshot`.
/// - **G4 contiguous**: records have no holes; an append that would leave one, or write over a record,
///   is refused. The first record of a log from which nothing was purged may have any index.
/// - **G5 truncate, purge**: truncation removes exactly the records after the index; a purge removes
///   exactly those up to it, is remembered, and never brings a record back.
/// - **G6 faithful**: a record is returned byte for byte as it was appended or the call fails with
///   [`StoreError::Corrupt`].
/// - **G7 fail-stop**: after an error of `commit`, a refusal included, every later `commit` fails.
/// - **G8 bounded**: `read` returns at least one record of a non-empty range and stops after the
///   record with which the sum of [`LogRecord::size_bytes`] reaches `bytes_max`.
///
/// One thread writes at a time; any number may read.
pub trait LogStore: Send + Sync + 'static {
    /// What is remembered (G3).
    fn snapshot(&self) -> Result<LogSnapshot, StoreError>;

    /// Records with `from <= index < to`, in order (G3, G6, G8).
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError>;

    /// Makes the changes durable (G1, G2, G4, G5, G7).
    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError>;

    /// How long the next commit takes on a disk that is simulated: a node inside one thread waits so long before it, on
    /// the clock of its runtime. A real store takes its time in `commit`.
    fn simulated_delay(&self) -> Duration {
        Duration::ZERO
    }
}
