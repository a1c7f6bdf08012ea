//! The data directory of one node: its lock, its identity and its key.

mod cluster_file;
mod data_directory;
mod durable_file;
mod errors;
mod log_key;
mod node_directory;
mod node_id;
mod origin;
mod restore_target;
mod retired_keys;
mod upgrade;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use ledger_verify::note::SigningKey;

/// Version of the directory's layout that this program reads and writes.
pub const FORMAT: u32 = 2;
/// The oldest layout that this program brings up to date.
const FORMAT_OLDEST: u32 = 1;

pub use cluster_file::{FIRST_MEMBERS_MAX, Formation, Promise};
pub(crate) use cluster_file::{check_members, check_record, cluster_file_kept};
pub use data_directory::DataDirectory;
pub(crate) use durable_file::write_durably;
pub use errors::DirectoryError;
pub(crate) use log_key::name_of as key_name;
pub use node_directory::NodeDirectory;
pub use origin::Provenance;
pub use restore_target::RestoreTarget;

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "LOCK";
const PID_FILE: &str = "ledger.pid";
const NODE_ID_FILE: &str = "node_id";
const LOG_KEY_FILE: &str = "log.key";
const CLUSTER_FILE: &str = "cluster";
/// Says which file it is: a copy of it is another one.
const ORIGIN_FILE: &str = "origin";
/// Stands in a directory while its node gives up its identity.
const RENOUNCING_FILE: &str = "renouncing";
/// Stands in a directory while a snapshot is restored into it.
const RESTORING_FILE: &str = "restoring";
/// The first words of the format file.
const FORMAT_WORDS: &str = "strongroom ledger directory ";
/// Files that only a ledger makes: without a format file beside them the directory is damaged.
const LEDGER_FILES: [&str; 4] = ["raft.wal", "raft.db", "state.db", "blocks.db"];
/// More than any text file of the directory has.
const TEXT_BYTES_MAX: u64 = 4_096;

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

/// The data directory that a path is in or is, whether the path is there or not.
pub(crate) fn data_directory_around(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    // A link on the way leads where the files will be.
    let resolved = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok())?;
    let holds_format = |directory: &&Path| {
        read_text(&directory.join(FORMAT_FILE)).is_ok_and(|text| text.starts_with(FORMAT_WORDS))
    };
    resolved.ancestors().find(holds_format).map(Path::to_owned)
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
    read_text_of(path, TEXT_BYTES_MAX)
}

fn read_text_of(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], DirectoryError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| DirectoryError::Randomness(error.to_string()))?;
    Ok(bytes)
}
