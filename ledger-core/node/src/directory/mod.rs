//! The data directory of one node: its lock, its identity and its key.

mod durable_file;
mod log_key;
mod node_id;
mod restore_target;
mod retired_keys;
mod upgrade;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use ledger_verify::note::{NoteError, SigningKey};

/// Version of the directory's layout that this program reads and writes.
pub const FORMAT: u32 = 2;
/// The oldest layout that this program brings up to date.
const FORMAT_OLDEST: u32 = 1;

pub(crate) use log_key::name_of as key_name;
pub use restore_target::RestoreTarget;

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "LOCK";
const PID_FILE: &str = "ledger.pid";
const NODE_ID_FILE: &str = "node_id";
const LOG_KEY_FILE: &str = "log.key";
/// Stands in a directory while a snapshot is restored into it.
const RESTORING_FILE: &str = "restoring";
/// The first words of the format file.
const FORMAT_WORDS: &str = "strongroom ledger directory ";
/// Files that only a ledger makes: without a format file beside them the directory is damaged.
const LEDGER_FILES: [&str; 4] = ["raft.wal", "raft.db", "state.db", "blocks.db"];
/// More than any text file of the directory has.
const TEXT_BYTES_MAX: u64 = 4_096;

/// A data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Something else has the path.
    #[error("{path} is not a directory: give the path of a directory, it is created when it is missing")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("{path} is not writable for this user: {source}. Change its owner or give another path")]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by {}: stop that process, or give this one a directory of its own", holder(*pid))]
    Locked {
        /// The path.
        path: PathBuf,
        /// The process that holds the lock, where it left its number.
        pid: Option<u32>,
    },
    /// The layout is newer than this program.
    #[error("{path} has layout {found}; this program reads layout {FORMAT}. Use the release that wrote it")]
    FormatNewer {
        /// The path.
        path: PathBuf,
        /// The layout found.
        found: u32,
    },
    /// The layout is older than this program, and nobody has made a copy of it yet.
    #[error(
        "{path} has layout {found}; this program works with layout {FORMAT}. Start the server on it once: it copies \
         the directory and brings it up to date"
    )]
    FormatOlder {
        /// The path.
        path: PathBuf,
        /// The layout found.
        found: u32,
    },
    /// There is something where the copy before an upgrade goes.
    #[error(
        "{path} must be upgraded, which begins with a copy of it, but {copy} exists: move it away, or remove it with \
         `rm -r` if it is not needed"
    )]
    CopyExists {
        /// The data directory.
        path: PathBuf,
        /// Where the copy goes.
        copy: PathBuf,
    },
    /// There is no room for the copy before an upgrade.
    #[error(
        "{path} must be upgraded, which begins with a copy of it to {copy}: that needs {needed_bytes} bytes, and \
         {available_bytes} are available. Make room and start again"
    )]
    NoRoomForCopy {
        /// The data directory.
        path: PathBuf,
        /// Where the copy goes.
        copy: PathBuf,
        /// Bytes of the copy and a reserve.
        needed_bytes: u64,
        /// Bytes of the file system that this process may use.
        available_bytes: u64,
    },
    /// A file that belongs to the directory is missing.
    #[error("{path} is missing, but the directory holds a ledger: restore the file from a backup")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The private key is missing, as after a restore without it.
    #[error(
        "{path} is missing, but the directory holds a ledger: put its key there with `strongroom ledger key import FILE \
         --data DIR`"
    )]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// A snapshot is restored into the directory, or was until that was broken off.
    #[error("{path} holds a restore that did not finish: restore the snapshot into it again, or remove it")]
    RestoreUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// A snapshot is restored into an empty directory only.
    #[error("{path} is not empty (it holds {found}): give a directory that is empty or missing")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// A file has not the content that it should.
    #[error("{path} is damaged ({reason}): restore the file from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The private key can be read by others.
    #[error(
        "{path} may be read by others (mode {mode:03o}): run `chmod 600` on it, and rotate the key if others could read it"
    )]
    KeyPermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The private key does not parse, or cannot be minted.
    #[error("{path} is no log key: {source}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: NoteError,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
    /// Another error of the file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The data directory of one node, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    node_id: u64,
    ledger_id: LedgerId,
    signing_key: SigningKey,
    lifetime: Lifetime,
    layout: Layout,
    /// Released by the system when the file is closed.
    _lock: File,
}

/// The layout that the format file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Present,
    Older(u32),
    /// As before, and there is a copy of it.
    OlderAndCopied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Kept,
    RemovedAtDrop,
}

impl DataDirectory {
    /// Opens or creates (mode 0700) a directory. A new one gets a node id and a log key, and with it the
    /// identity of the ledger. One of an older layout is left as it is: see
    /// [`copied_for_upgrade`](Self::copied_for_upgrade).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        Self::open_for(path.into(), Lifetime::Kept)
    }

    /// A new directory under the system's temporary directory that is removed when this is dropped.
    pub fn ephemeral() -> Result<Self, DirectoryError> {
        let random = random_bytes::<8>()?;
        let name = format!("strongroom-{:016x}", u64::from_be_bytes(random));
        Self::open_for(std::env::temp_dir().join(name), Lifetime::RemovedAtDrop)
    }

    /// The directory: stores put their files here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identity of the node, minted with the directory.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Identity of the ledger that the log key belongs to.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// The key that signs checkpoints.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    /// Makes a complete copy of a directory of an older layout, `PATH.format-N`, so that its files may be brought
    /// up to date; [`Ledger::open`](crate::Ledger::open) finishes that. Does nothing to a directory of the present
    /// layout. A crash at any moment loses nothing: the next call goes on.
    ///
    /// # Errors
    /// When the copy exists already but was not made by an upgrade that was interrupted, when there is no room for
    /// it, or when it cannot be written.
    pub fn copied_for_upgrade(mut self) -> Result<Self, DirectoryError> {
        if let Layout::Older(found) = self.layout {
            upgrade::copy(&self.path, found)?;
            self.layout = Layout::OlderAndCopied;
        }
        Ok(self)
    }

    /// Names the present layout in the format file, once the stores have it.
    pub(crate) fn finish_upgrade(&mut self) -> Result<(), DirectoryError> {
        match self.layout {
            Layout::Present => return Ok(()),
            Layout::Older(found) => {
                return Err(DirectoryError::FormatOlder { path: self.path.clone(), found });
            }
            Layout::OlderAndCopied => {}
        }
        write_format(&self.path)?;
        upgrade::forget(&self.path)?;
        self.layout = Layout::Present;
        Ok(())
    }

    fn open_for(path: PathBuf, lifetime: Lifetime) -> Result<Self, DirectoryError> {
        create(&path)?;
        let lock = lock(&path)?;
        if path.join(RESTORING_FILE).exists() {
            return Err(DirectoryError::RestoreUnfinished { path });
        }
        let layout = check_format(&path)?;
        let is_new = layout.is_none();
        let node_id = node_id::read_or_mint(&path.join(NODE_ID_FILE), is_new)?;
        let (ledger_id, signing_key) = log_key::read_or_mint(&path.join(LOG_KEY_FILE), is_new)?;
        if is_new {
            // Last: a directory without a format file is finished by the next open.
            write_format(&path)?;
        }
        let layout = match layout {
            Some(found) if found < FORMAT => Layout::Older(found),
            _ => {
                upgrade::forget(&path)?;
                Layout::Present
            }
        };
        let pid = format!("{}\n", std::process::id());
        durable_file::write(&path.join(PID_FILE), pid.as_bytes(), 0o600)?;
        Ok(Self { path, node_id, ledger_id, signing_key, lifetime, layout, _lock: lock })
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        // Nothing depends on either: the lock is what counts, and it goes with its file.
        let _ = match self.lifetime {
            Lifetime::Kept => std::fs::remove_file(self.path.join(PID_FILE)),
            Lifetime::RemovedAtDrop => std::fs::remove_dir_all(&self.path),
        };
    }
}

/// Gives a directory that was restored without its key the key of its ledger.
///
/// # Errors
///
/// When the directory is in use, holds no ledger or has a key already, or when the key is another ledger's.
pub fn import_key(path: &Path, ledger_id: LedgerId, key: &SigningKey) -> Result<(), DirectoryError> {
    let _lock = lock(path)?;
    if path.join(RESTORING_FILE).exists() {
        return Err(DirectoryError::RestoreUnfinished { path: path.to_owned() });
    }
    let file = path.join(LOG_KEY_FILE);
    if check_format(path)?.is_none() {
        return Err(DirectoryError::Missing { path: path.join(FORMAT_FILE) });
    }
    if file.exists() {
        return Err(DirectoryError::NotEmpty { path: path.to_owned(), found: LOG_KEY_FILE.to_owned() });
    }
    log_key::write(&file, ledger_id, key)
}

fn create(path: &Path) -> Result<(), DirectoryError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(DirectoryError::NotADirectory { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| not_writable(path, source, "create")),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(DirectoryError::NotADirectory { path: path.to_owned() })
        }
        Err(source) => Err(DirectoryError::Io { action: "look at", path: path.to_owned(), source }),
    }
}

fn not_writable(path: &Path, source: io::Error, action: &'static str) -> DirectoryError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DirectoryError::NotWritable { path, source }
        }
        io::ErrorKind::NotADirectory => DirectoryError::NotADirectory { path },
        _ => DirectoryError::Io { action, path, source },
    }
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| not_writable(directory, source, "lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let pid = read_text(&directory.join(PID_FILE)).ok().and_then(|text| text.trim().parse().ok());
            Err(DirectoryError::Locked { path: directory.to_owned(), pid })
        }
        Err(TryLockError::Error(source)) => Err(DirectoryError::Io { action: "lock", path, source }),
    }
}

fn write_format(directory: &Path) -> Result<(), DirectoryError> {
    let line = format!("{FORMAT_WORDS}{FORMAT}\n");
    durable_file::write(&directory.join(FORMAT_FILE), line.as_bytes(), 0o600)
}

/// Reads the layout; `None` when the directory has none yet.
fn check_format(directory: &Path) -> Result<Option<u32>, DirectoryError> {
    let path = directory.join(FORMAT_FILE);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let holds_ledger = LEDGER_FILES.iter().any(|name| directory.join(name).exists());
            return if holds_ledger { Err(DirectoryError::Missing { path }) } else { Ok(None) };
        }
        Err(source) => return Err(DirectoryError::Io { action: "read", path, source }),
    };
    let version = text.strip_prefix(FORMAT_WORDS).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match version {
        Some(found @ FORMAT_OLDEST..=FORMAT) => Ok(Some(found)),
        Some(found) if found > FORMAT => {
            Err(DirectoryError::FormatNewer { path: directory.to_owned(), found })
        }
        _ => Err(DirectoryError::Damaged { path, reason: "it names no layout".to_owned() }),
    }
}

/// Reads a small text file.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], DirectoryError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| DirectoryError::Randomness(error.to_string()))?;
    Ok(bytes)
}
