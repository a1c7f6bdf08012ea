//! A store that is one file: made whole or not at all, checked for what it is when it is opened.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{
    Builder, Database, DatabaseError, ReadableTable, StorageBackend, StorageError, Table as RedbTable,
    TableError,
};

use super::backend::{CountingBackend, IoCounters};
use super::failure::panic_message;
use super::format::FORMAT_KEY;
use super::row::{self, RowTable};
use super::state_files::{StateDirectory, StateFiles};

type Bytes = &'static [u8];

/// Where the file is, and what it is called.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub files: Arc<dyn StateFiles>,
    pub name: String,
    pub cache_bytes: usize,
}

/// What the file says that it is, whatever its name is.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileFormat {
    pub kind: &'static [u8],
    pub version: u32,
}

/// The open file.
#[derive(Debug)]
pub(super) struct OneFile {
    /// Taken only by `drop`.
    db: Option<Database>,
    counters: Arc<IoCounters>,
}

/// Why the file was not opened or made.
#[derive(Debug, Clone)]
pub(super) enum FileFault {
    NoFile { path: PathBuf },
    Io { action: &'static str, name: String, source: Arc<io::Error> },
    InUse { name: String },
    Foreign { name: String },
    Format { name: String, found: u32 },
    Damaged { name: String, reason: String },
}

/// What goes wrong inside a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Redb(::redb::Error),
    #[error("it is another file")]
    Foreign,
    #[error("it has format {found}")]
    Format { found: u32 },
    #[error("{0}")]
    Row(String),
}

impl Place {
    /// A file of a directory that exists.
    pub(super) fn of(path: &Path, cache_bytes: usize) -> Result<Self, FileFault> {
        let no_file = || FileFault::NoFile { path: path.to_owned() };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_file)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        if path.is_dir() || !directory.is_dir() {
            return Err(no_file());
        }
        let files: Arc<dyn StateFiles> = Arc::new(StateDirectory::new(directory));
        Ok(Self { files, name: name.to_owned(), cache_bytes })
    }

    /// Opens the file and reads of it what is needed to begin; `None` when there is none.
    pub(super) fn open<T>(
        &self,
        content: impl FnOnce(&OneFile) -> Result<T, Failure>,
    ) -> Result<Option<(OneFile, T)>, FileFault> {
        if !self.files.exists(&self.name).map_err(|error| self.io("look for", error))? {
            return Ok(None);
        }
        let backend = self.files.open(&self.name).map_err(|error| self.io("open", error))?;
        if backend.len().map_err(|error| self.io("read", error))? == 0 {
            return Err(self.damaged("it is empty"));
        }
        let file = self.attach(backend)?;
        let content = self.guarded(|| content(&file))?;
        self.remove_unfinished();
        Ok(Some((file, content)))
    }

    /// Makes a file with that content, in the place of the one that may be there: durable, or as if nothing had been done.
    pub(super) fn create(
        &self,
        initialise: impl FnOnce(&OneFile) -> Result<(), Failure>,
    ) -> Result<OneFile, FileFault> {
        let unfinished = self.unfinished();
        let backend = self.files.create(&unfinished).map_err(|error| self.io("create", error))?;
        let file = self.attach(backend)?;
        self.guarded(|| initialise(&file))?;
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

    fn attach(&self, backend: Box<dyn StorageBackend>) -> Result<OneFile, FileFault> {
        let counters = Arc::new(IoCounters::default());
        let backend = CountingBackend::new(backend, Arc::clone(&counters));
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Builder::new().set_cache_size(self.cache_bytes).create_with_backend(backend)
        }));
        match opened {
            Ok(Ok(db)) => Ok(OneFile { db: Some(db), counters }),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(FileFault::InUse { name: self.name.clone() }),
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if !is_content(&error) => {
                Err(self.io("open", error))
            }
            Ok(Err(error)) => Err(self.damaged(&error.to_string())),
            Err(payload) => Err(self.damaged(&panic_message(payload.as_ref()))),
        }
    }

    /// Runs `work`, and makes of everything that can go wrong in it a fault of this file.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, FileFault> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|failure| match failure {
                Failure::Redb(::redb::Error::Io(error)) => self.io("read or write", error),
                Failure::Redb(error) => self.damaged(&error.to_string()),
                Failure::Foreign => FileFault::Foreign { name: self.name.clone() },
                Failure::Format { found } => FileFault::Format { name: self.name.clone(), found },
                Failure::Row(reason) => self.damaged(&reason),
            }),
            Err(payload) => Err(self.damaged(&panic_message(payload.as_ref()))),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> FileFault {
        FileFault::Io { action, name: self.name.clone(), source: Arc::new(source) }
    }

    fn damaged(&self, reason: &str) -> FileFault {
        FileFault::Damaged { name: self.name.clone(), reason: reason.to_owned() }
    }
}

/// Whether an error of reading is about what was read: bytes that are no database.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Closing writes to the file, and so it may fail, or panic, on a damaged one. Nothing is lost by that.
impl Drop for OneFile {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl OneFile {
    pub(super) fn db(&self) -> Result<&Database, Failure> {
        self.db.as_ref().ok_or_else(|| Failure::Row("it is closed".to_owned()))
    }

    /// What the file has cost since it was opened, and what failed.
    #[cfg(feature = "auth")]
    pub(super) fn counters(&self) -> &IoCounters {
        &self.counters
    }

    /// fsyncs since it was opened, and how often it grew, each with an fsync.
    pub(super) fn syncs(&self) -> (u64, u64) {
        (self.counters.syncs(), self.counters.growths())
    }
}

impl FileFormat {
    /// Writes the format row.
    pub(super) fn write(self, meta: &mut RedbTable<'_, Bytes, Bytes>) -> Result<(), Failure> {
        let mut framed = Vec::new();
        let format = [&self.version.to_be_bytes()[..], self.kind].concat();
        row::seal(&mut framed, RowTable::FORMAT, FORMAT_KEY, &format);
        meta.insert(FORMAT_KEY, framed.as_slice())?;
        Ok(())
    }

    /// Refuses a file of another kind or version.
    pub(super) fn check(self, meta: &impl ReadableTable<Bytes, Bytes>) -> Result<(), Failure> {
        let stored = meta.get(FORMAT_KEY)?.ok_or(Failure::Foreign)?;
        let value = row::open(RowTable::FORMAT, FORMAT_KEY, stored.value())?;
        let (version, kind) = value.split_first_chunk::<4>().ok_or(Failure::Foreign)?;
        if kind != self.kind {
            return Err(Failure::Foreign);
        }
        match u32::from_be_bytes(*version) {
            version if version == self.version => Ok(()),
            found => Err(Failure::Format { found }),
        }
    }
}

/// The failure for a row that is not what was written.
pub(super) fn damaged_row(table: RowTable, key: &[u8]) -> Failure {
    Failure::Row(table.corrupt(key).to_string())
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
