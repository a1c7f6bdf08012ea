//! The directory that the files of a state store are in.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ::redb::StorageBackend;
use ::redb::backends::FileBackend;
use ledger_core::ports::StoreError;

/// Where a state store has its files: every effect that replacing its content has on a disk goes through here and
/// through the backends, so that tests can record, drop and fail each.
pub trait StateFiles: fmt::Debug + Send + Sync + 'static {
    /// Whether there is a file of that name.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Makes an empty file, or empties the one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Gives a file another name, atomically, also when that name is taken; durable with the next
    /// [`sync`](StateFiles::sync). Open files stay what they are.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; durable with the next [`sync`](StateFiles::sync).
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of a file system.
#[derive(Debug)]
pub(super) struct StateDirectory(PathBuf);

impl StateDirectory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl StateFiles for StateDirectory {
    fn exists(&self, name: &str) -> io::Result<bool> {
        fs::exists(self.0.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut create = OpenOptions::new();
        create.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut create, 0o600);
        backend(create.open(self.0.join(name))?)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        backend(OpenOptions::new().read(true).write(true).open(self.0.join(name))?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

pub(super) fn failed(action: &'static str, source: io::Error) -> StoreError {
    StoreError::Engine { action, source: Box::new(source) }
}
