//! The folder of a backup. A file belongs to it when the manifest lists it, and the manifest is replaced after the file is
//! durable: whatever ends the writer at whatever byte, the backup is as it was before, or whole with the new file.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use sha2::{Digest, Sha256};

use super::failure::BackupFailure;
use crate::directory::data_directory_around;

use super::manifest::{BackupFile, MANIFEST_BYTES_MAX, Manifest, ManifestError};

const MANIFEST_FILE: &str = "manifest";
const LOCK_FILE: &str = "LOCK";
/// Ends the name of a file that is not whole.
const UNFINISHED: &str = ".unfinished";
const INCOMING_FILE: &str = "incoming.unfinished";
/// Written bytes that are made durable at a time.
const SYNC_EVERY_BYTES: usize = 64 << 20;
/// Bytes of the hash that ends every file.
const HASH_BYTES: usize = 32;

/// The folder of a backup, to be read.
#[derive(Debug, Clone)]
pub struct BackupFolder {
    path: PathBuf,
}

impl BackupFolder {
    /// The backup in a folder.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What belongs to the backup.
    ///
    /// # Errors
    ///
    /// When there is none, or its manifest is refused.
    pub fn manifest(&self) -> Result<Manifest, BackupFailure> {
        self.read_manifest()?.ok_or_else(|| BackupFailure::NoBackup { path: self.path.clone() })
    }

    /// A file of the backup.
    pub fn file(&self, file: &BackupFile) -> PathBuf {
        self.path.join(&file.file)
    }

    /// What is seen to be wrong with a file without reading it.
    pub fn fault(&self, file: &BackupFile) -> Option<FileFault> {
        match std::fs::metadata(self.file(file)) {
            Err(_) => Some(FileFault::Missing),
            Ok(metadata) if metadata.len() != file.bytes => Some(FileFault::OtherLength),
            Ok(_) => None,
        }
    }

    /// The files of a chain that can be used: those before the first that is not there as it should be, which is returned
    /// too.
    pub fn reachable<'f>(
        &self,
        chain: &'f [BackupFile],
    ) -> (&'f [BackupFile], Option<(&'f BackupFile, FileFault)>) {
        let fault = |(at, file)| self.fault(file).map(|fault| (at, (file, fault)));
        match chain.iter().enumerate().find_map(fault) {
            Some((at, faulty)) => (chain.get(..at).unwrap_or_default(), Some(faulty)),
            None => (chain, None),
        }
    }

    /// Opens a file, which is compared with the manifest while it is read.
    pub(super) fn open(&self, file: &BackupFile) -> Result<ListedFile, BackupFailure> {
        let path = self.file(file);
        let opened = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                BackupFailure::OtherFile { file: file.file.clone(), what: "it is missing" }
            }
            _ => BackupFailure::io("open", path)(error),
        })?;
        Ok(ListedFile { file: opened, listed: file.clone(), sha: Sha256::new(), bytes: 0 })
    }

    fn read_manifest(&self) -> Result<Option<Manifest>, BackupFailure> {
        let path = self.path.join(MANIFEST_FILE);
        let refused = |source| BackupFailure::Manifest { path: self.path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(BackupFailure::io("open", &path))?,
        };
        let mut text = String::new();
        let read = file.take(MANIFEST_BYTES_MAX.saturating_add(1)).read_to_string(&mut text);
        match read {
            Ok(bytes) if bytes as u64 > MANIFEST_BYTES_MAX => Err(refused(ManifestError::TooLarge)),
            Ok(_) => Manifest::parse(&text).map(Some).map_err(refused),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(refused(ManifestError::Checksum)),
            Err(error) => Err(BackupFailure::io("read", path)(error)),
        }
    }
}

/// What is wrong with a file of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// It is not there.
    Missing,
    /// It has not the length that the manifest says.
    OtherLength,
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::OtherLength => "of another length",
        })
    }
}

/// A file of the manifest that is being read.
pub(super) struct ListedFile {
    file: File,
    listed: BackupFile,
    sha: Sha256,
    bytes: u64,
}

impl Read for ListedFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.sha.update(into.get(..read).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(read as u64);
        Ok(read)
    }
}

impl ListedFile {
    /// All was read: it is the file that the manifest lists.
    pub(super) fn finish(self) -> Result<(), BackupFailure> {
        let differs = |what| BackupFailure::OtherFile { file: self.listed.file.clone(), what };
        if self.bytes != self.listed.bytes {
            return Err(differs("its length"));
        }
        let sha256 = hex::encode(self.sha.finalize());
        if sha256 == self.listed.sha256 { Ok(()) } else { Err(differs("its SHA-256")) }
    }
}

/// A backup that this process adds to; others are kept out until it is dropped.
#[derive(Debug)]
pub struct BackupWriter {
    folder: BackupFolder,
    manifest: Option<Manifest>,
    /// Released by the system when the file is closed.
    _lock: File,
}

impl BackupWriter {
    /// Opens a backup, or begins one in a folder that is missing or empty. What a crash left unfinished is removed.
    ///
    /// # Errors
    ///
    /// When the folder holds something else, is in a data directory or in use, or its manifest is refused.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, BackupFailure> {
        let folder = BackupFolder::at(path);
        let path = folder.path();
        if let Some(data) = data_directory_around(path) {
            return Err(BackupFailure::InDataDirectory { path: path.to_owned(), data });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(BackupFailure::io("create", path))?;
        let manifest = folder.read_manifest()?;
        if manifest.is_none() {
            refuse_content(path)?;
        }
        let lock = lock(path)?;
        // Another process may have been faster.
        let manifest = folder.read_manifest()?;
        let writer = Self { folder, manifest, _lock: lock };
        writer.remove_unlisted()?;
        Ok(writer)
    }

    /// What belongs to the backup; `None` = nothing yet.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The folder.
    pub fn folder(&self) -> &BackupFolder {
        &self.folder
    }

    /// Begins a file.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn stage(&self) -> Result<StagedFile, BackupFailure> {
        let path = self.folder.path.join(INCOMING_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(BackupFailure::io("create", &path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let (content, whole) = (Sha256::new(), Sha256::new());
        Ok(StagedFile { path, file, content, whole, tail: Vec::new(), bytes: 0, unsynced_bytes: 0 })
    }

    /// Adds a file that is durable to the backup. `describe` gets its length and hash.
    ///
    /// # Errors
    ///
    /// When it does not follow the files that are there, or cannot be added: the backup is then as it was.
    pub(super) fn add(
        &mut self,
        staged: &Staged,
        ledger_id: LedgerId,
        describe: impl FnOnce(&[BackupFile], u64, String) -> BackupFile,
    ) -> Result<BackupFile, BackupFailure> {
        let path = self.folder.path.clone();
        let mut manifest = self.manifest.clone().unwrap_or_else(|| Manifest { ledger_id, files: Vec::new() });
        if manifest.ledger_id != ledger_id {
            return Err(BackupFailure::OtherLedger { folder: manifest.ledger_id, ledger: ledger_id });
        }
        let file = describe(&manifest.files, staged.bytes, hex::encode(staged.sha256));
        manifest.files.push(file.clone());
        let refused = |source| BackupFailure::Manifest { path: path.clone(), source };
        let text = manifest.encode().map_err(refused)?;
        let named = path.join(&file.file);
        std::fs::rename(&staged.path, &named).map_err(BackupFailure::io("rename", &staged.path))?;
        sync(&path)?;
        let unfinished = path.join(format!("{MANIFEST_FILE}{UNFINISHED}"));
        write_durably(&unfinished, text.as_bytes()).map_err(BackupFailure::io("write", &unfinished))?;
        std::fs::rename(&unfinished, path.join(MANIFEST_FILE))
            .map_err(BackupFailure::io("rename", &unfinished))?;
        sync(&path)?;
        self.manifest = Some(manifest);
        Ok(file)
    }

    /// Removes what a crash left: files without a whole name, and files that never came into the manifest.
    fn remove_unlisted(&self) -> Result<(), BackupFailure> {
        let path = &self.folder.path;
        let listed = |name: &str| {
            let files = self.manifest.iter().flat_map(|manifest| &manifest.files);
            files.into_iter().any(|file| file.file == name)
        };
        for entry in std::fs::read_dir(path).map_err(BackupFailure::io("read", path))? {
            let entry = entry.map_err(BackupFailure::io("read", path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_ours(&name) && !listed(&name) {
                let left = entry.path();
                std::fs::remove_file(&left).map_err(BackupFailure::io("remove", left))?;
            }
        }
        Ok(())
    }
}

/// Whether only a backup makes files of such a name.
fn is_ours(name: &str) -> bool {
    let is_part = |name: &str| {
        let indexes = name.strip_suffix(".base").or_else(|| name.strip_suffix(".blocks"));
        indexes.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
    };
    name == INCOMING_FILE || name.strip_suffix(UNFINISHED) == Some(MANIFEST_FILE) || is_part(name)
}

fn refuse_content(path: &Path) -> Result<(), BackupFailure> {
    for entry in std::fs::read_dir(path).map_err(BackupFailure::io("read", path))? {
        let name = entry.map_err(BackupFailure::io("read", path))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name != LOCK_FILE && !is_ours(&name) {
            return Err(BackupFailure::NotEmpty { path: path.to_owned(), found: name });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, BackupFailure> {
    let lock = path.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock)
        .map_err(BackupFailure::io("open", &lock))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupFailure::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(BackupFailure::io("lock", lock)(source)),
    }
}

fn sync(directory: &Path) -> Result<(), BackupFailure> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(BackupFailure::io("sync", directory))
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A file on its way into a backup. Its last 32 bytes must be the SHA-256 of those before them.
pub struct StagedFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// Over all bytes but the last 32, and over all.
    content: Sha256,
    whole: Sha256,
    /// The last bytes so far, at most 32.
    tail: Vec<u8>,
    bytes: u64,
    unsynced_bytes: usize,
}

/// A whole and durable file that does not belong to the backup yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 over all of them.
    pub sha256: [u8; 32],
}

impl StagedFile {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it durable.
    ///
    /// # Errors
    ///
    /// When it is not whole or cannot be written.
    pub fn finish(mut self) -> Result<Staged, BackupFailure> {
        let content: [u8; HASH_BYTES] = self.content.finalize().into();
        if self.tail != content {
            return Err(BackupFailure::NotWhole);
        }
        let path = self.path;
        let finished = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        finished.map_err(BackupFailure::io("write", &path))?;
        Ok(Staged { path, bytes: self.bytes, sha256: self.whole.finalize().into() })
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.whole.update(bytes);
        self.tail.extend_from_slice(bytes);
        let over = self.tail.len().saturating_sub(HASH_BYTES);
        self.content.update(self.tail.get(..over).unwrap_or_default());
        self.tail.drain(..over);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(bytes.len());
        if self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
