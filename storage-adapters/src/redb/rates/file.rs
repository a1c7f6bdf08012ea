//! The file: made whole or not at all, read whole when it is opened, changed in durable transactions.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageBackend, StorageError, Table as RedbTable, TableError, WriteTransaction,
};

use super::failure::RedbRateError;
use super::layout::{
    self, EPOCH, FILE_KIND, FORMAT_VERSION, META_ROWS, POLICIES, POLICY_ROWS, RATE_ROWS, RATES, RowKey,
    SECRET, Secret, StoredPolicy,
};
use crate::redb::backend::{CountingBackend, IoCounters};
use crate::redb::failure::panic_message;
use crate::redb::format::{FORMAT_KEY, META};
use crate::redb::row::{self, RowTable};
use crate::redb::state_files::StateFiles;

type Bytes = &'static [u8];

/// Where the file is, and what it is called.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub files: Arc<dyn StateFiles>,
    pub name: String,
    pub cache_bytes: usize,
}

/// The open file.
#[derive(Debug)]
pub(super) struct RateFile {
    /// Taken only by `drop`.
    db: Option<Database>,
    counters: Arc<IoCounters>,
}

/// All that a file holds.
#[derive(Debug)]
pub(super) struct Content {
    pub epoch_ns: u64,
    pub secret: Secret,
    pub policies: BTreeMap<u32, StoredPolicy>,
    pub rows: BTreeMap<RowKey, u64>,
}

/// What one transaction does.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Written when it is there: the epoch of all words from then on.
    pub epoch_ns: Option<u64>,
    /// Encoded. A policy that goes takes its rows along.
    pub policies: BTreeMap<u32, Option<Vec<u8>>>,
    /// Words; `None` removes the row.
    pub rows: BTreeMap<RowKey, Option<u64>>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.epoch_ns.is_none() && self.policies.is_empty() && self.rows.is_empty()
    }
}

impl Place {
    /// Opens the file; `None` when there is none.
    pub(super) fn open(&self) -> Result<Option<(RateFile, Content)>, RedbRateError> {
        if !self.files.exists(&self.name).map_err(|error| self.io("look for", error))? {
            return Ok(None);
        }
        let backend = self.files.open(&self.name).map_err(|error| self.io("open", error))?;
        if backend.len().map_err(|error| self.io("read", error))? == 0 {
            return Err(self.damaged("it is empty"));
        }
        let file = self.attach(backend)?;
        let content = self.guarded(|| file.content())?;
        self.remove_unfinished();
        Ok(Some((file, content)))
    }

    /// Makes a file of that content, in the place of the one that may be there: durable, or as if nothing had been done.
    pub(super) fn create(&self, secret: Secret, change: &Change) -> Result<RateFile, RedbRateError> {
        let unfinished = self.unfinished();
        let backend = self.files.create(&unfinished).map_err(|error| self.io("create", error))?;
        let file = self.attach(backend)?;
        self.guarded(|| file.initialise(secret, change))?;
        self.files.rename(&unfinished, &self.name).map_err(|error| self.io("rename into place", error))?;
        self.files.sync().map_err(|error| self.io("sync the directory of", error))?;
        Ok(file)
    }

    fn unfinished(&self) -> String {
        format!("{}.new", self.name)
    }

    /// What a crash left of a file that was being made. It is never read; so it may also stay.
    fn remove_unfinished(&self) {
        let name = self.unfinished();
        if self.files.exists(&name).unwrap_or(false) {
            let _ = self.files.remove(&name);
        }
    }

    fn attach(&self, backend: Box<dyn StorageBackend>) -> Result<RateFile, RedbRateError> {
        let counters = Arc::new(IoCounters::default());
        let backend = CountingBackend::new(backend, Arc::clone(&counters));
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Builder::new().set_cache_size(self.cache_bytes).create_with_backend(backend)
        }));
        match opened {
            Ok(Ok(db)) => Ok(RateFile { db: Some(db), counters }),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                Err(RedbRateError::InUse { name: self.name.clone() })
            }
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if !is_content(&error) => {
                Err(self.io("open", error))
            }
            Ok(Err(error)) => Err(self.damaged(&error.to_string())),
            Err(payload) => Err(self.damaged(&panic_message(payload.as_ref()))),
        }
    }

    /// Runs `work`, and makes of everything that can go wrong in it an error of this file.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, RedbRateError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|failure| match failure {
                Failure::Redb(::redb::Error::Io(error)) => self.io("read or write", error),
                Failure::Redb(error) => self.damaged(&error.to_string()),
                Failure::Foreign => RedbRateError::Foreign { name: self.name.clone() },
                Failure::Format { found } => {
                    RedbRateError::Format { name: self.name.clone(), found, known: FORMAT_VERSION }
                }
                Failure::Row(reason) => self.damaged(&reason),
            }),
            Err(payload) => Err(self.damaged(&panic_message(payload.as_ref()))),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> RedbRateError {
        RedbRateError::Io { action, name: self.name.clone(), source: Arc::new(source) }
    }

    fn damaged(&self, reason: &str) -> RedbRateError {
        RedbRateError::Damaged { name: self.name.clone(), reason: reason.to_owned() }
    }
}

/// Whether an error of reading is about what was read: bytes that are no database.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Closing writes to the file, and so it may fail, or panic, on a damaged one. Nothing is lost by that.
impl Drop for RateFile {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl RateFile {
    /// Makes a change durable: one transaction, one fsync. After an error it is unknown what the disk holds.
    pub(super) fn commit(&self, change: &Change) -> Result<(), RedbRateError> {
        let failed = |reason: String| RedbRateError::Failed { reason };
        match catch_unwind(AssertUnwindSafe(|| self.write(change, |_| Ok(())))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(failed(failure.to_string())),
            Err(payload) => Err(failed(panic_message(payload.as_ref()))),
        }
    }

    /// fsyncs since it was opened, and how often it grew, each with an fsync.
    pub(super) fn syncs(&self) -> (u64, u64) {
        (self.counters.syncs(), self.counters.growths())
    }

    fn initialise(&self, secret: Secret, change: &Change) -> Result<(), Failure> {
        self.write(change, |meta| {
            let mut framed = Vec::new();
            let format = [&FORMAT_VERSION.to_be_bytes()[..], FILE_KIND].concat();
            row::seal(&mut framed, RowTable::FORMAT, FORMAT_KEY, &format);
            meta.insert(FORMAT_KEY, framed.as_slice())?;
            row::seal(&mut framed, META_ROWS, SECRET, &secret.0);
            meta.insert(SECRET, framed.as_slice())?;
            Ok(())
        })
    }

    fn write(
        &self,
        change: &Change,
        also: impl FnOnce(&mut RedbTable<'_, Bytes, Bytes>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut write = self.db()?.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        let mut meta = write.open_table(META)?;
        also(&mut meta)?;
        let mut framed = Vec::new();
        if let Some(epoch_ns) = change.epoch_ns {
            row::seal(&mut framed, META_ROWS, EPOCH, &epoch_ns.to_be_bytes());
            meta.insert(EPOCH, framed.as_slice())?;
        }
        drop(meta);
        put_policies(&write, change)?;
        let mut rates = write.open_table(RATES)?;
        for (key, word) in &change.rows {
            let key = key.to_bytes();
            match word {
                Some(word) => {
                    row::seal(&mut framed, RATE_ROWS, &key, &word.to_be_bytes());
                    rates.insert(&key[..], framed.as_slice())?;
                }
                None => {
                    rates.remove(&key[..])?;
                }
            }
        }
        drop(rates);
        write.commit()?;
        Ok(())
    }

    fn db(&self) -> Result<&Database, Failure> {
        self.db.as_ref().ok_or_else(|| Failure::Row("it is closed".to_owned()))
    }

    fn content(&self) -> Result<Content, Failure> {
        let read = self.db()?.begin_read()?;
        let meta = match read.open_table(META) {
            Err(TableError::Storage(error)) => return Err(error.into()),
            other => other.map_err(|_| Failure::Foreign)?,
        };
        check_format(&meta)?;
        let single = |key: &[u8]| {
            let framed = meta.get(key)?.ok_or_else(|| Failure::Row("a row of meta is missing".to_owned()))?;
            Ok::<_, Failure>(row::open(META_ROWS, key, framed.value())?.to_vec())
        };
        let epoch_ns = layout::decode_u64(&single(EPOCH)?).ok_or_else(|| damaged_row(META_ROWS, EPOCH))?;
        let secret = single(SECRET)?.as_slice().try_into().map_err(|_| damaged_row(META_ROWS, SECRET))?;
        let policies = rows_of(&read, POLICIES, POLICY_ROWS, |key, value| {
            Some((layout::decode_u32(key)?, layout::decode_policy(value)?))
        })?;
        let rows = rows_of(&read, RATES, RATE_ROWS, |key, value| {
            let (key, word) = (RowKey::from_bytes(key)?, layout::decode_u64(value)?);
            // A row goes with its policy.
            policies.contains_key(&key.policy).then_some((key, word))
        })?;
        Ok(Content { epoch_ns, secret: Secret(secret), policies, rows })
    }
}

fn put_policies(write: &WriteTransaction, change: &Change) -> Result<(), Failure> {
    let mut policies = write.open_table(POLICIES)?;
    let mut rates = write.open_table(RATES)?;
    let mut framed = Vec::new();
    for (number, encoded) in &change.policies {
        let key = number.to_be_bytes();
        match encoded {
            Some(value) => {
                row::seal(&mut framed, POLICY_ROWS, &key, value);
                policies.insert(&key[..], framed.as_slice())?;
            }
            None => {
                policies.remove(&key[..])?;
                let (first, last) =
                    (RowKey::first_of(*number).to_bytes(), RowKey::last_of(*number).to_bytes());
                rates.retain_in(&first[..]..=&last[..], |_, _| false)?;
            }
        }
    }
    Ok(())
}

fn check_format(meta: &ReadOnlyTable<Bytes, Bytes>) -> Result<(), Failure> {
    let stored = meta.get(FORMAT_KEY)?.ok_or(Failure::Foreign)?;
    let value = row::open(RowTable::FORMAT, FORMAT_KEY, stored.value())?;
    let (version, kind) = value.split_first_chunk::<4>().ok_or(Failure::Foreign)?;
    if kind != FILE_KIND {
        return Err(Failure::Foreign);
    }
    match u32::from_be_bytes(*version) {
        FORMAT_VERSION => Ok(()),
        found => Err(Failure::Format { found }),
    }
}

/// All rows of a table, each against its checksum.
fn rows_of<K: Ord, V>(
    read: &ReadTransaction,
    definition: crate::redb::format::RowDefinition,
    table: RowTable,
    decode: impl Fn(&[u8], &[u8]) -> Option<(K, V)>,
) -> Result<BTreeMap<K, V>, Failure> {
    let mut rows = BTreeMap::new();
    for entry in read.open_table(definition)?.iter()? {
        let (key, framed) = entry?;
        let value = row::open(table, key.value(), framed.value())?;
        let (key, value) = decode(key.value(), value).ok_or_else(|| damaged_row(table, key.value()))?;
        rows.insert(key, value);
    }
    Ok(rows)
}

fn damaged_row(table: RowTable, key: &[u8]) -> Failure {
    Failure::Row(table.corrupt(key).to_string())
}

/// What goes wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Redb(::redb::Error),
    #[error("it is another file")]
    Foreign,
    #[error("it has format {found}")]
    Format { found: u32 },
    #[error("{0}")]
    Row(String),
}

macro_rules! failure_from {
    ($($source:ty),+ $(,)?) => {
        $(impl From<$source> for Failure {
            fn from(error: $source) -> Self {
                Self::Redb(error.into())
            }
        })+
    };
}

failure_from! {
    StorageError,
    TableError,
    ::redb::TransactionError,
    ::redb::CommitError,
    ::redb::CursorError,
    ::redb::SetDurabilityError,
}

impl From<ledger_core::ports::StoreError> for Failure {
    fn from(error: ledger_core::ports::StoreError) -> Self {
        Self::Row(error.to_string())
    }
}
