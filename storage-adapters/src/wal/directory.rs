//! The log's directory on a real file system.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger_core::ports::StoreError;

use super::failure::WalError;
use super::files::{WalFile, WalFiles};
use super::log_store::{Empty, WalLogStore};
use super::options::WalOptions;

/// Name of a log's directory in the data directory.
pub const DIRECTORY: &str = "raft.wal";

/// The log while it is made.
const NEW_DIRECTORY: &str = "raft.wal.new";
/// Held by the process that has the log open.
const LOCK: &str = "lock";
const OPEN: &str = "open the log";
const MAKE: &str = "make the log";

/// A directory of log files that no other process has open.
#[derive(Debug)]
pub struct WalDirectory {
    path: PathBuf,
    /// For its sync.
    directory: File,
    _lock: File,
}

impl WalDirectory {
    /// Whether `dir` has a log.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(DIRECTORY).symlink_metadata().is_ok()
    }

    /// Locks an existing directory.
    ///
    /// # Errors
    ///
    /// [`WalError::InUse`] when it is locked already, otherwise [`WalError::Directory`].
    pub fn open(path: &Path) -> Result<Self, WalError> {
        let fail = |action| move |source| WalError::Directory { action, path: path.to_owned(), source };
        let directory = File::open(path).map_err(fail("open"))?;
        let lock = private_file().truncate(false).create(true).open(path.join(LOCK)).map_err(fail("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(WalError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(fail("lock")(source)),
        }
    }

    /// The log's directory in `dir`; made with a new log when it is missing.
    pub(super) fn open_or_make(dir: &Path, options: WalOptions) -> Result<Self, StoreError> {
        if !Self::is_in(dir) {
            Self::make(dir, options, |_| Ok(()))?;
        }
        Self::open(&dir.join(DIRECTORY)).map_err(|error| error.into_store_error(OPEN))
    }

    /// Makes a log in `dir` under another name, fills it, and gives it its name when it is durable.
    pub(super) fn make(
        dir: &Path,
        options: WalOptions,
        fill: impl FnOnce(&WalLogStore) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = dir.join(DIRECTORY);
        let new = dir.join(NEW_DIRECTORY);
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Directory { action, path, source }.into_store_error(MAKE)
        };
        if Self::is_in(dir) {
            return Err(WalError::Exists { path }.into_store_error(MAKE));
        }
        match std::fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("remove", &new)(error)),
            _ => {}
        }
        make_private(&new).map_err(fail("make", &new))?;
        let files = Self::open(&new).map_err(|error| error.into_store_error(MAKE))?;
        let files: Arc<dyn WalFiles> = Arc::new(files);
        let store = WalLogStore::attach(&files, options, Empty::Make)?;
        fill(&store)?;
        drop((store, files));
        let directory = File::open(dir).map_err(fail("open", dir))?;
        std::fs::rename(&new, &path).map_err(fail("name", &path))?;
        directory.sync_all().map_err(fail("sync", dir))
    }
}

impl WalFiles for WalDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?;
        // A name that is not UTF-8 is none of ours.
        names
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(Arc::new(LogFile(private_file().create(true).truncate(true).open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(Arc::new(LogFile(private_file().open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

/// Read and write, for the owner only.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[derive(Debug)]
struct LogFile(File);

impl WalFile for LogFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
