//! The files of a [`Disk`] as the engines see them.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;
use storage_adapters::wal::{WalFile, WalFiles};

use crate::disk::Disk;
use crate::disk_image::Place;

/// One file.
#[derive(Debug)]
pub struct RecordedFile {
    pub disk: Disk,
    pub place: Place,
}

impl StorageBackend for RecordedFile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.disk.length(self.place) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.disk.read(self.place, offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.set_length(self.place, len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.disk.sync(self.place)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.write(self.place, offset, data)
    }
}

impl WalFile for RecordedFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.length(self.place) as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(self.place, offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(self.place, offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(self.place)
    }
}

/// The log's directory.
#[derive(Debug)]
pub struct RecordedDirectory(pub Disk);

impl RecordedDirectory {
    fn file(&self, number: usize) -> Arc<dyn WalFile> {
        Arc::new(RecordedFile { disk: self.0.clone(), place: Place::LogFile(number) })
    }
}

impl WalFiles for RecordedDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.log_names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.0.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.0.log_file(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync(Place::LogNames)
    }
}
