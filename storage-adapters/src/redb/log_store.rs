use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ::redb::{
    ReadOnlyTable, ReadableTable, StorageBackend, Table as RedbTable, TableDefinition, WriteTransaction,
};
use ledger_core::ports::{
    LogChange, LogExtent, LogId, LogKind, LogRecord, LogSnapshot, LogStore, SignedMark, StoreError,
};

use super::failure::{Failure, guarded};
use super::file::RedbFile;
use super::format::{FileKind, META, RowDefinition};
use super::log_row::{self, LogBounds, SALT_BYTES};
use super::options::RedbOptions;
use super::row::{self, RowTable};

/// Log records by index.
pub(super) const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
/// Signing marks by vault id.
pub(super) const SIGNED: RowDefinition = TableDefinition::new("signed");

/// Rows of table `meta`.
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const BOUNDS: &[u8] = b"bounds";

/// A [`LogStore`] in one file, `raft.db`. A batch is one transaction: one fsync, or two when it holds
/// a vote or a membership, which redb then writes in two phases: a torn newest commit is rolled back,
/// and neither of those may be.
#[derive(Debug)]
pub struct RedbLogStore {
    file: RedbFile,
    writer: Mutex<Writer>,
}

/// What the one writer knows without reading.
#[derive(Debug)]
struct Writer {
    purged: Option<LogId>,
    bounds: Option<LogBounds>,
    failed: bool,
}

impl Writer {
    fn extent(&self) -> LogExtent {
        let held = self.bounds.map(|bounds| (bounds.first, bounds.last.index));
        LogExtent { held, purged: self.purged.map(|id| id.index) }
    }
}

impl RedbLogStore {
    /// Opens `raft.db` in `dir`; makes it, readable by its owner only, when it is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Format`] for a file of a newer program; [`StoreError::Corrupt`] for a damaged
    /// row; otherwise [`StoreError::Engine`] with an [`OpenError`](super::OpenError).
    pub fn open(dir: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        Self::attach(RedbFile::open(dir, FileKind::Raft, options)?)
    }

    /// Opens the log that a storage backend of redb holds; makes it when the backend is empty. For
    /// fault injection.
    pub fn with_backend(backend: impl StorageBackend, options: RedbOptions) -> Result<Self, StoreError> {
        Self::attach(RedbFile::with_backend(Box::new(backend), FileKind::Raft, options)?)
    }

    fn attach(file: RedbFile) -> Result<Self, StoreError> {
        // Every row beside the records is checked here: a vote that cannot be read must not be taken
        // for one that was never cast.
        let (purged, bounds) = guarded("read the log's meta rows", || {
            let rows = MetaRows::of(&file)?;
            rows.signed()?;
            rows.check_keys()?;
            rows.snapshot()?;
            Ok((rows.log_id(PURGED)?, rows.bounds()?))
        })?;
        Ok(Self { file, writer: Mutex::new(Writer { purged, bounds, failed: false }) })
    }

    /// fsyncs since the store was opened, opening included: one a batch (two with a vote or a
    /// membership in it) and one for each of [`growths`](Self::growths).
    pub fn syncs(&self) -> u64 {
        self.file.syncs()
    }

    /// How often the file grew since the store was opened. It doubles up to 4 GiB, then grows by
    /// 4 GiB: this is rare.
    pub fn growths(&self) -> u64 {
        self.file.growths()
    }

    /// Bytes written to the file since the store was opened.
    pub fn bytes_written(&self) -> u64 {
        self.file.bytes_written()
    }

    fn write(&self, writer: &Writer, changes: &[LogChange]) -> Result<Writer, Failure> {
        writer.extent().after_all(changes)?;
        let appended = changes.iter().filter(|change| matches!(change, LogChange::Append(_))).count();
        let mut salts = vec![0; appended.saturating_mul(SALT_BYTES)];
        getrandom::fill(&mut salts)?;
        let mut write = self.file.begin_write()?;
        write.set_two_phase_commit(changes.iter().any(needs_two_phases));
        let mut batch = Batch::open(&write, writer)?;
        let mut salts = salts.chunks_exact(SALT_BYTES);
        for change in changes {
            batch.apply(change, &mut salts)?;
        }
        let after = batch.finish(writer)?;
        write.commit()?;
        Ok(after)
    }
}

/// Whether losing the change to a torn commit could break the protocol even though nobody was told of
/// it: see [`RedbLogStore`].
fn needs_two_phases(change: &LogChange) -> bool {
    match change {
        LogChange::SaveVote(_) => true,
        LogChange::Append(record) => record.kind == LogKind::Membership,
        _ => false,
    }
}

impl LogStore for RedbLogStore {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        guarded("read the log's meta rows", || MetaRows::of(&self.file)?.snapshot())
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        guarded("read the log", || {
            let rows = MetaRows::of(&self.file)?;
            let Some(bounds) = rows.bounds()? else { return Ok(Vec::new()) };
            let from = from.max(bounds.first);
            let to = to.min(bounds.last.index.saturating_add(1));
            read_records(&rows.log, from, to, bytes_max)
        })
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        // A panic while the lock was held was caught below, so the state behind it is whole.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.failed {
            return Err(StoreError::Poisoned);
        }
        if changes.is_empty() {
            return Ok(());
        }
        match guarded("commit the log", || self.write(&writer, changes)) {
            Ok(after) => *writer = after,
            Err(error) => {
                writer.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Records of a range that the bounds say is there: a record that is not is an error (G4, G6).
fn read_records(
    log: &ReadOnlyTable<u64, &'static [u8]>,
    from: u64,
    to: u64,
    bytes_max: usize,
) -> Result<Vec<LogRecord>, Failure> {
    let mut records = Vec::new();
    if from >= to {
        return Ok(records);
    }
    let mut bytes = 0_usize;
    let mut stored = log.range(from..to)?;
    for index in from..to {
        let (key, value) = stored.next().ok_or_else(|| log_row::corrupt_record(index))??;
        if key.value() != index {
            return Err(log_row::corrupt_record(index).into());
        }
        let record = log_row::decode_record(index, value.value())?;
        bytes = bytes.saturating_add(record.size_bytes());
        records.push(record);
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(records)
}

/// One read transaction over the three tables.
struct MetaRows {
    log: ReadOnlyTable<u64, &'static [u8]>,
    meta: ReadOnlyTable<&'static [u8], &'static [u8]>,
    signed: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl MetaRows {
    fn of(file: &RedbFile) -> Result<Self, Failure> {
        let read = file.begin_read()?;
        Ok(Self {
            log: read.open_table(LOG)?,
            meta: read.open_table(META)?,
            signed: read.open_table(SIGNED)?,
        })
    }

    fn snapshot(&self) -> Result<LogSnapshot, Failure> {
        let purged = self.log_id(PURGED)?;
        Ok(LogSnapshot {
            vote: self.row(VOTE, log_row::decode_vote)?,
            committed: self.log_id(COMMITTED)?,
            purged,
            last: self.bounds()?.map(|bounds| bounds.last).or(purged),
            signed: self.signed()?,
        })
    }

    fn log_id(&self, key: &'static [u8]) -> Result<Option<LogId>, Failure> {
        self.row(key, log_row::decode_log_id)
    }

    fn bounds(&self) -> Result<Option<LogBounds>, Failure> {
        self.row(BOUNDS, log_row::decode_bounds)
    }

    fn row<T>(&self, key: &[u8], decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, Failure> {
        let Some(framed) = self.meta.get(key)? else { return Ok(None) };
        let value = row::open(RowTable::RAFT_META, key, framed.value())?;
        Ok(Some(decode(value).ok_or_else(|| RowTable::RAFT_META.corrupt(key))?))
    }

    fn signed(&self) -> Result<Vec<SignedMark>, Failure> {
        let mut marks = Vec::new();
        for entry in self.signed.iter()? {
            let (key, framed) = entry?;
            let value = row::open(RowTable::RAFT_SIGNED, key.value(), framed.value())?;
            let mark = log_row::decode_mark(key.value(), value);
            marks.push(mark.ok_or_else(|| RowTable::RAFT_SIGNED.corrupt(key.value()))?);
        }
        Ok(marks)
    }

    /// Refuses a key that nobody wrote: it may be what a damaged page made of the vote's.
    fn check_keys(&self) -> Result<(), Failure> {
        const KNOWN: [&[u8]; 5] = [VOTE, COMMITTED, PURGED, BOUNDS, super::format::FORMAT_KEY];
        for entry in self.meta.iter()? {
            let (key, _) = entry?;
            if !KNOWN.contains(&key.value()) {
                return Err(RowTable::RAFT_META.corrupt(key.value()).into());
            }
        }
        Ok(())
    }
}

/// One write transaction while its changes go in.
struct Batch<'txn> {
    log: RedbTable<'txn, u64, &'static [u8]>,
    meta: RedbTable<'txn, &'static [u8], &'static [u8]>,
    signed: RedbTable<'txn, &'static [u8], &'static [u8]>,
    purged: Option<LogId>,
    bounds: Option<LogBounds>,
    bytes: Vec<u8>,
}

impl<'txn> Batch<'txn> {
    fn open(write: &'txn WriteTransaction, writer: &Writer) -> Result<Self, Failure> {
        Ok(Self {
            log: write.open_table(LOG)?,
            meta: write.open_table(META)?,
            signed: write.open_table(SIGNED)?,
            purged: writer.purged,
            bounds: writer.bounds,
            bytes: Vec::new(),
        })
    }

    /// Applies a change that [`LogExtent::after_all`] allowed.
    fn apply<'s>(
        &mut self,
        change: &LogChange,
        salts: &mut impl Iterator<Item = &'s [u8]>,
    ) -> Result<(), Failure> {
        match change {
            LogChange::Append(record) => self.append(record, salts.next().unwrap_or_default()),
            LogChange::SaveVote(vote) => self.put_meta(VOTE, &log_row::encode_vote(vote)),
            LogChange::SaveCommitted(id) => self.put_meta(COMMITTED, &log_row::encode_log_id(id)),
            LogChange::TruncateAfter(keep) => self.truncate_after(*keep),
            LogChange::PurgeThrough(id) => self.purge_through(*id),
            LogChange::SaveSigned(mark) => {
                let key = mark.vault.0.as_slice();
                row::seal(&mut self.bytes, RowTable::RAFT_SIGNED, key, &log_row::encode_mark(mark));
                self.signed.insert(key, self.bytes.as_slice())?;
                Ok(())
            }
        }
    }

    fn append(&mut self, record: &LogRecord, salt: &[u8]) -> Result<(), Failure> {
        log_row::encode_record(&mut self.bytes, record, salt)
            .ok_or_else(|| ::redb::StorageError::ValueTooLarge(record.payload.len()))?;
        self.log.insert(record.id.index, self.bytes.as_slice())?;
        let first = self.bounds.map_or(record.id.index, |bounds| bounds.first);
        self.bounds = Some(LogBounds { first, last: record.id });
        Ok(())
    }

    fn truncate_after(&mut self, keep: Option<u64>) -> Result<(), Failure> {
        let Some(bounds) = self.bounds else { return Ok(()) };
        match keep {
            Some(keep) if keep >= bounds.last.index => {}
            Some(keep) if keep >= bounds.first => {
                self.log.retain_in(keep.saturating_add(1).., |_, _| false)?;
                let stored = self.log.get(keep)?.ok_or_else(|| log_row::corrupt_record(keep))?;
                let last = log_row::decode_record(keep, stored.value())?.id;
                drop(stored);
                self.bounds = Some(LogBounds { last, ..bounds });
            }
            _ => {
                self.log.retain(|_, _| false)?;
                self.bounds = None;
            }
        }
        Ok(())
    }

    fn purge_through(&mut self, id: LogId) -> Result<(), Failure> {
        if self.purged.is_some_and(|purged| id.index <= purged.index) {
            return Ok(());
        }
        self.log.retain_in(..=id.index, |_, _| false)?;
        self.bounds = self
            .bounds
            .filter(|bounds| bounds.last.index > id.index)
            .map(|bounds| LogBounds { first: bounds.first.max(id.index.saturating_add(1)), ..bounds });
        self.purged = Some(id);
        self.put_meta(PURGED, &log_row::encode_log_id(&id))
    }

    fn put_meta(&mut self, key: &'static [u8], value: &[u8]) -> Result<(), Failure> {
        row::seal(&mut self.bytes, RowTable::RAFT_META, key, value);
        self.meta.insert(key, self.bytes.as_slice())?;
        Ok(())
    }

    /// Writes the bounds if they moved; what the writer knows once the transaction is committed.
    fn finish(mut self, before: &Writer) -> Result<Writer, Failure> {
        match self.bounds {
            after if after == before.bounds => {}
            Some(bounds) => self.put_meta(BOUNDS, &log_row::encode_bounds(&bounds))?,
            None => {
                self.meta.remove(BOUNDS)?;
            }
        }
        Ok(Writer { purged: self.purged, bounds: self.bounds, failed: false })
    }
}
