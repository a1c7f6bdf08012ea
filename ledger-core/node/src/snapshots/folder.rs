//! The folder `snapshots/` of a data directory. A file with the name of a snapshot is whole: it gets that name
//! when its bytes are durable. So it may be copied at any time, also while the node runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger_core::snapshot::{SnapshotError, Summary, summarise};

const FOLDER: &str = "snapshots";
const EXTENSION: &str = "snap";
/// Ends the name of a file that is not whole.
const UNFINISHED: &str = ".unfinished";
/// Digits of the index in a name: as many as the largest has, so that names sort as indexes do.
const INDEX_DIGITS: usize = 20;
/// Written bytes that are made durable at a time, so that the last sync has little left to do.
const SYNC_EVERY_BYTES: usize = 16 << 20;

/// The snapshots of one data directory.
#[derive(Debug, Clone)]
pub struct SnapshotFolder {
    data_directory: PathBuf,
    path: PathBuf,
}

/// A file of the folder that has the name of a snapshot.
#[derive(Debug)]
pub struct StoredSnapshot {
    /// Where it is.
    pub path: PathBuf,
    /// Index of the last log entry in it, from its name.
    pub index: u64,
    /// What its two ends say; it is not read in between.
    pub summary: Result<Summary, SnapshotError>,
}

impl SnapshotFolder {
    /// The folder of a data directory; it is made with the first snapshot.
    pub fn of(data_directory: &Path) -> Self {
        // Whoever is told the path has another working directory.
        let data_directory =
            std::path::absolute(data_directory).unwrap_or_else(|_| data_directory.to_owned());
        Self { path: data_directory.join(FOLDER), data_directory }
    }

    /// Where it is, whether it is there or not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a crash left unfinished; returns how many files that were. Only for whoever holds the lock of
    /// the data directory.
    pub fn clean(&self) -> io::Result<usize> {
        let mut removed = 0;
        for path in self.files()? {
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(UNFINISHED)) {
                std::fs::remove_file(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The snapshots, oldest first; none when there is no folder.
    pub fn list(&self) -> io::Result<Vec<StoredSnapshot>> {
        let read = |(index, path): (u64, PathBuf)| {
            let summary = File::open(&path).map_err(SnapshotError::Io).and_then(summarise);
            StoredSnapshot { path, index, summary }
        };
        Ok(self.indexed()?.into_iter().map(read).collect())
    }

    /// The snapshot of an index, when there is one whose ends can be read.
    pub(super) fn find(&self, index: u64) -> Option<StoredSnapshot> {
        let path = self.path_of(index);
        let summary = File::open(&path).map_err(SnapshotError::Io).and_then(summarise);
        summary.is_ok().then_some(StoredSnapshot { path, index, summary })
    }

    /// Writes a snapshot: under another name first, which is removed when `write` fails. Returns what `write` did.
    pub fn write<T, E: From<io::Error>>(
        &self,
        index: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<T, E> {
        self.create()?;
        let path = self.path_of(index);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let written = write_whole(&unfinished, write).and_then(|written| {
            std::fs::rename(&unfinished, &path)?;
            sync(&self.path)?;
            Ok(written)
        });
        if written.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes the oldest until `keep` are left, but never the one of index `but`; returns how many.
    pub fn prune(&self, keep: usize, but: u64) -> io::Result<usize> {
        let indexed = self.indexed()?;
        let surplus = indexed.len().saturating_sub(keep);
        let oldest = indexed.into_iter().filter(|(index, _)| *index != but).take(surplus);
        let mut removed = 0;
        for (_, path) in oldest {
            std::fs::remove_file(path)?;
            removed += 1;
        }
        Ok(removed)
    }

    fn path_of(&self, index: u64) -> PathBuf {
        self.path.join(format!("{index:0width$}.{EXTENSION}", width = INDEX_DIGITS))
    }

    fn create(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => sync(&self.data_directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(&self.path) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Indexes and paths of the files that are named as snapshots, ascending.
    fn indexed(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut indexed: Vec<_> =
            self.files()?.into_iter().filter_map(|path| Some((index_of(&path)?, path))).collect();
        indexed.sort();
        Ok(indexed)
    }
}

fn index_of(path: &Path) -> Option<u64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let digits = stem.len() == INDEX_DIGITS && stem.bytes().all(|byte| byte.is_ascii_digit());
    stem.parse().ok().filter(|_| digits)
}

fn write_whole<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    // One that a crash left is overwritten: this process holds the directory's lock.
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    let mut sink = SyncedInSteps { file: BufWriter::new(file), unsynced_bytes: 0 };
    let written = write(&mut sink)?;
    sink.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(written)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A file that is synced while it grows: one large sync at the end would hold up those of the log.
struct SyncedInSteps {
    file: BufWriter<File>,
    unsynced_bytes: usize,
}

impl Write for SyncedInSteps {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(written);
        if self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
