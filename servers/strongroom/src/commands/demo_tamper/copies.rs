//! The directories of the demonstration, all temporary.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// What a ledger that is at rest consists of, beside its log.
const FILES: [&str; 5] = ["format", "node_id", "log.key", "state.db", "blocks.db"];
/// The folder of its log.
const LOG: &str = "raft.wal";

/// Three directories, removed at the end.
pub struct Copies {
    root: PathBuf,
}

impl Copies {
    /// Makes the place for them.
    pub fn new() -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Failure::error(format!("no randomness: {error}")))?;
        let root = std::env::temp_dir().join(format!("strongroom-tamper-{}", hex::encode(random)));
        let created = std::fs::DirBuilder::new().mode(0o700).create(&root);
        created.map_err(|error| Failure::file("create", &root, &error))?;
        Ok(Self { root })
    }

    /// Where a new ledger may live.
    pub fn original(&self) -> PathBuf {
        self.root.join("original")
    }

    /// A copy that stays as it is.
    pub fn untouched(&self) -> PathBuf {
        self.root.join("untouched")
    }

    /// A copy that is changed.
    pub fn changed(&self) -> PathBuf {
        self.root.join("changed")
    }

    /// Copies a directory twice. No server may have it open.
    pub fn fill_from(&self, original: &Path) -> Result<(), Failure> {
        // Held while files are read: a server that writes would make a torn copy.
        let _lock = lock(original)?;
        for copy in [self.untouched(), self.changed()] {
            let created = std::fs::DirBuilder::new().mode(0o700).create(&copy);
            created.map_err(|error| Failure::file("create", &copy, &error))?;
            let log = copy.join(LOG);
            let created = std::fs::DirBuilder::new().mode(0o700).create(&log);
            created.map_err(|error| Failure::file("create", &log, &error))?;
            for name in files_of(original)? {
                let from = original.join(&name);
                std::fs::copy(&from, copy.join(&name))
                    .map_err(|error| Failure::file("copy", &from, &error))?;
            }
        }
        Ok(())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // It is below the temporary directory: what cannot be removed goes with that.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Locks the directory as a server would, but writes nothing.
fn lock(directory: &Path) -> Result<Option<std::fs::File>, Failure> {
    let path = directory.join("LOCK");
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory.join("state.db").exists() => {
            return Ok(None);
        }
        Err(_) => return Err(Failure::not_found(format!("{} holds no ledger", directory.display()))),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(_) => Err(Failure::error(format!("{} is in use: stop the server first", directory.display()))),
    }
}

/// The files of a ledger, relative to its directory, in a fixed order.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let log = directory.join(LOG);
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::not_found(format!("{} holds no ledger: it has no {LOG}", directory.display()))
        }
        _ => Failure::file("read", &log, &error),
    };
    let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(&log).map_err(failed)? {
        segments.push(Path::new(LOG).join(entry.map_err(failed)?.file_name()));
    }
    segments.sort();
    files.extend(segments);
    Ok(files)
}

/// A digest of content, times and sizes of the ledger's files.
pub fn digest_of(directory: &Path) -> Result<[u8; 32], Failure> {
    let mut digest = Sha256::new();
    for name in files_of(directory)? {
        let path = directory.join(&name);
        let failed = |error: std::io::Error| Failure::file("read", &path, &error);
        let mut file = std::fs::File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::not_found(format!(
                "{} holds no ledger: it has no {}",
                directory.display(),
                name.display()
            )),
            _ => failed(error),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        digest.update(metadata.mtime().to_be_bytes());
        digest.update(metadata.mtime_nsec().to_be_bytes());
        digest.update(metadata.len().to_be_bytes());
        std::io::copy(&mut file, &mut HashWriter(&mut digest)).map_err(failed)?;
    }
    Ok(digest.finalize().into())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
