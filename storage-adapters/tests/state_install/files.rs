//! The recorded disk as the directory of a state store.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;
use storage_adapters::redb::StateFiles;
use storage_adapters::wal::{WalFile, WalFiles};

use super::disk::{Disk, DiskFile};

/// A [`Disk`] under redb.
#[derive(Debug, Clone)]
pub struct RedbDisk(pub Disk);

impl RedbDisk {
    pub fn files(&self) -> Arc<dyn StateFiles> {
        Arc::new(self.clone())
    }

    fn backend(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let file = self.0.image().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(RedbFile(DiskFile { disk: self.0.clone(), file })))
    }
}

impl StateFiles for RedbDisk {
    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.image().names.contains_key(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        WalFiles::create(&self.0, name)?;
        self.backend(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.backend(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        WalFiles::rename(&self.0, from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        WalFiles::remove(&self.0, name)
    }

    fn sync(&self) -> io::Result<()> {
        WalFiles::sync(&self.0)
    }
}

#[derive(Debug)]
struct RedbFile(DiskFile);

impl StorageBackend for RedbFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.length_bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.disk.set_length(self.0.file, length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        WalFile::sync_data(&self.0)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}
