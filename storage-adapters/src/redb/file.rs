//! One database file: made whole, opened with care, counted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::backends::FileBackend;
use ::redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition,
};
use ledger_core::ports::StoreError;

use super::backend::{CountingBackend, IoCounters};
use super::failure::{Failure, OpenError, guarded, panic_message};
use super::format::{self, FileKind, FormatAge, META, RowDefinition};
use super::log_store::{LOG, SIGNED};
use super::options::{OlderFormat, RedbOptions};
use super::unwritten::UnwrittenBackend;

/// An open database file.
#[derive(Debug)]
pub(super) struct RedbFile {
    /// Taken only by `drop`.
    db: Option<Opened>,
    counters: Arc<IoCounters>,
}

enum Opened {
    Writable(Database),
    /// Over [`UnwrittenBackend`].
    ReadOnly(Database),
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Writable(_) => "Writable",
            Self::ReadOnly(_) => "ReadOnly",
        })
    }
}

/// Closing writes to the file, and so it may fail, or panic, on a damaged one. Nothing is lost by that:
/// the next opening repairs what was not closed.
impl Drop for RedbFile {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl RedbFile {
    /// Opens the file of `kind` in `dir`; makes it when it is missing.
    pub(super) fn open(dir: &Path, kind: FileKind, options: RedbOptions) -> Result<Self, StoreError> {
        guarded("open a database file", || {
            let path = dir.join(kind.file_name());
            if !exists(&path)? {
                create(dir, &path, kind, options)?;
            }
            let backend = open_backend(&path)?;
            Self::attach(Box::new(backend), kind, options, &path)
        })
    }

    /// Opens the file of `kind` in `dir`, which must be there, and writes nothing to it, whatever ended its last writer:
    /// what that one left open is made good in memory.
    pub(super) fn open_read_only(
        dir: &Path,
        kind: FileKind,
        options: RedbOptions,
    ) -> Result<Self, StoreError> {
        guarded("open a database file", || {
            let path = dir.join(kind.file_name());
            if !exists(&path)? {
                return Err(io_error("open", &path, io::ErrorKind::NotFound.into()).into());
            }
            let file = File::open(&path).map_err(|error| io_error("open", &path, error))?;
            let backend = UnwrittenBackend::new(backend_of(file, &path)?);
            let backend = backend.map_err(|error| io_error("read", &path, error))?;
            let db = open_database(backend, kind, options, &path)?;
            let file = Self { db: Some(Opened::ReadOnly(db)), counters: Arc::default() };
            match file.format_age(kind, &path)? {
                FormatAge::Present => Ok(file),
                FormatAge::Older(found) => Err(OpenError::OlderFormat { path, found }.into()),
            }
        })
    }

    /// Opens the database that a backend holds; makes it when the backend is empty.
    pub(super) fn with_backend(
        backend: Box<dyn StorageBackend>,
        kind: FileKind,
        options: RedbOptions,
    ) -> Result<Self, StoreError> {
        guarded("open a database", || Self::attach(backend, kind, options, Path::new(kind.file_name())))
    }

    fn attach(
        backend: Box<dyn StorageBackend>,
        kind: FileKind,
        options: RedbOptions,
        path: &Path,
    ) -> Result<Self, Failure> {
        let counters = Arc::new(IoCounters::default());
        let fresh = backend.len().map_err(|source| io_error("read", path, source))? == 0;
        let backend = CountingBackend::new(backend, Arc::clone(&counters));
        let db = Opened::Writable(open_database(backend, kind, options, path)?);
        let file = Self { db: Some(db), counters };
        if fresh {
            file.initialise(kind)?;
        }
        match (file.format_age(kind, path)?, options.older_format) {
            (FormatAge::Present, _) => {}
            // A new file is made in the same way: what an older format lacks are tables.
            (FormatAge::Older(_), OlderFormat::Migrate) => file.initialise(kind)?,
            (FormatAge::Older(found), OlderFormat::Refuse) => {
                return Err(OpenError::OlderFormat { path: path.to_owned(), found }.into());
            }
        }
        Ok(file)
    }

    fn format_age(&self, kind: FileKind, path: &Path) -> Result<FormatAge, Failure> {
        match self.begin_read()?.open_table(META) {
            Ok(meta) => format::check(&meta, kind, path),
            Err(::redb::TableError::Storage(error)) => Err(error.into()),
            Err(_) => Err(OpenError::Foreign { path: path.to_owned(), expected: kind.file_name() }.into()),
        }
    }

    /// Makes every table that is not there, so that no later read finds one missing in a whole file, and
    /// writes the format row: all of it or nothing.
    fn initialise(&self, kind: FileKind) -> Result<(), Failure> {
        let mut write = self.db()?.begin_write()?;
        write.set_quick_repair(true);
        if kind == FileKind::Raft {
            write.open_table(LOG)?;
            write.open_table(SIGNED)?;
        }
        for table in kind.state_tables() {
            let definition: RowDefinition = TableDefinition::new(table.name());
            write.open_table(definition)?;
        }
        let mut meta = write.open_table(META)?;
        format::write(&mut meta, kind)?;
        drop(meta);
        write.commit()?;
        Ok(())
    }

    /// The database, if it may be written to.
    fn db(&self) -> Result<&Database, Failure> {
        match &self.db {
            Some(Opened::Writable(db)) => Ok(db),
            Some(Opened::ReadOnly(_)) | None => Err(Failure::Store(StoreError::Poisoned)),
        }
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        match &self.db {
            Some(Opened::Writable(db)) => Ok(db.begin_read()?),
            Some(Opened::ReadOnly(db)) => Ok(db.begin_read()?),
            None => Err(Failure::Store(StoreError::Poisoned)),
        }
    }

    pub(super) fn begin_write(&self) -> Result<::redb::WriteTransaction, Failure> {
        let mut write = self.db()?.begin_write()?;
        write.set_durability(::redb::Durability::Immediate)?;
        Ok(write)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.counters.syncs()
    }

    pub(super) fn growths(&self) -> u64 {
        self.counters.growths()
    }

    pub(super) fn bytes_written(&self) -> u64 {
        self.counters.bytes_written()
    }
}

/// Refuses a directory that lacks a file of `creation_order` although it has a later one: the missing
/// file was there.
pub(super) fn refuse_gaps(dir: &Path, creation_order: &[FileKind]) -> Result<(), StoreError> {
    let is_there = |kind: &&FileKind| dir.join(kind.file_name()).symlink_metadata().is_ok();
    let missing = creation_order.iter().find(|kind| !is_there(kind));
    let present = creation_order.iter().rfind(is_there);
    let position = |kind: &FileKind| creation_order.iter().position(|candidate| candidate == kind);
    match (missing, present) {
        (Some(missing), Some(present)) if position(missing) < position(present) => {
            Err(OpenError::missing(dir, *missing, *present).into_store_error())
        }
        _ => Ok(()),
    }
}

/// Whether there is a file to open: `false` when nothing is there.
fn exists(path: &Path) -> Result<bool, OpenError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(OpenError::NotAFile { path: path.to_owned() }),
        Ok(metadata) if metadata.len() == 0 => Err(OpenError::Empty { path: path.to_owned() }),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("read", path, error)),
    }
}

/// Makes a file under another name and moves it into place, so that a crash leaves either no file or
/// a whole one.
fn create(dir: &Path, path: &Path, kind: FileKind, options: RedbOptions) -> Result<(), Failure> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &unfinished, error).into());
        }
        Ok(()) | Err(_) => {}
    }
    let mut create = OpenOptions::new();
    create.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut create, 0o600);
    let file = create.open(&unfinished).map_err(|error| io_error("create", &unfinished, error))?;
    drop(RedbFile::attach(Box::new(backend_of(file, &unfinished)?), kind, options, &unfinished)?);
    fs::rename(&unfinished, path).map_err(|error| io_error("rename into place", &unfinished, error))?;
    // Without this the directory may forget the name in a power cut.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io_error("sync", dir, error))?;
    Ok(())
}

fn open_backend(path: &Path) -> Result<FileBackend, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    backend_of(file.map_err(|error| io_error("open", path, error))?, path)
}

fn backend_of(file: File, path: &Path) -> Result<FileBackend, OpenError> {
    FileBackend::new(file).map_err(|error| open_error(&error, path))
}

fn open_database(
    backend: impl StorageBackend,
    kind: FileKind,
    options: RedbOptions,
    path: &Path,
) -> Result<Database, OpenError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Builder::new()
            .set_cache_size(options.cache_bytes(kind))
            .set_check_integrity_on_open(options.checks(kind))
            .create_with_backend(backend)
    }));
    match opened {
        Ok(result) => result.map_err(|error| open_error(&error, path)),
        Err(payload) => {
            let reason = panic_message(payload.as_ref());
            Err(OpenError::Damaged { path: path.to_owned(), reason })
        }
    }
}

fn open_error(error: &DatabaseError, path: &Path) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        other => OpenError::Damaged { path, reason: other.to_string() },
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}
