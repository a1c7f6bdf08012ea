//! Pins as one small JSON file each, replaced atomically under a lock.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use ledger_core::names::{LedgerId, VaultId, VaultRef};

use super::{FORKS_MAX, ForkEvidence, Pin, PinError, PinId, PinOutcome, PinStore};

/// Largest pin file, in bytes: a verifier key and a note have a few hundred.
const PIN_BYTES_MAX: u64 = 65_536;
const FORMAT: &str = "strongroom.pin.v1";
const NAME_FORMAT: &str = "strongroom.pin-name.v1";

/// Pins in a directory: `<ledger id>_<vault id>.json`, and `….fork-N.json` beside it when a fork was seen.
/// `NAMESPACE~VAULT.name` says which vault had a name last.
#[derive(Debug, Clone)]
pub struct DirectoryPins {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    format: String,
    verifier_key: String,
    checkpoint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameFile {
    format: String,
    ledger: LedgerId,
    vault: VaultId,
}

#[derive(Serialize)]
struct ForkFile<'a> {
    format: &'static str,
    reason: &'a str,
    pinned: &'a str,
    received: &'a str,
}

impl DirectoryPins {
    /// Pins in `path`, which is created when the first pin is stored.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Pins in `$XDG_STATE_HOME/strongroom/pins`, or `~/.local/state/strongroom/pins` when that is unset.
    pub fn in_state_home() -> Result<Self, PinError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state =
            absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.map(|state| Self::new(state.join("strongroom/pins"))).ok_or(PinError::NoHome)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, id: PinId) -> PathBuf {
        self.path.join(format!("{}_{}.json", id.ledger, id.vault))
    }

    fn create_directory(&self) -> Result<(), PinError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| io_error("create", &self.path, source))
    }

    /// Locks all pins of the directory until the file is dropped: between processes, not only threads.
    fn lock(&self) -> Result<File, PinError> {
        let path = self.path.join("LOCK");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| io_error("open", &path, source))?;
        file.lock().map_err(|source| io_error("lock", &path, source))?;
        Ok(file)
    }
}

impl PinStore for DirectoryPins {
    fn load(&self, id: PinId) -> Result<Option<Pin>, PinError> {
        let path = self.file(id);
        let Some(bytes) = read_small(&path)? else { return Ok(None) };
        let file: PinFile = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
        if file.format != FORMAT {
            return Err(damaged(
                &path,
                format!("its format is {:?}, this program knows {FORMAT:?}", file.format),
            ));
        }
        Ok(Some(Pin { verifier_key: file.verifier_key, checkpoint: file.checkpoint }))
    }

    fn replace(&self, id: PinId, expected: Option<&Pin>, new: &Pin) -> Result<PinOutcome, PinError> {
        self.create_directory()?;
        let _lock = self.lock()?;
        if self.load(id)?.as_ref() != expected {
            return Ok(PinOutcome::Moved);
        }
        let file = PinFile {
            format: FORMAT.to_owned(),
            verifier_key: new.verifier_key.clone(),
            checkpoint: new.checkpoint.clone(),
        };
        let path = self.file(id);
        write_whole(&path, &to_json(&path, &file)?)?;
        Ok(PinOutcome::Stored)
    }

    fn name_vault(&self, name: &VaultRef, id: PinId) -> Result<Option<PinId>, PinError> {
        self.create_directory()?;
        let _lock = self.lock()?;
        // No name has a tilde.
        let path = self.path.join(format!("{}~{}.name", name.namespace.as_str(), name.vault.as_str()));
        // A damaged file only costs the warning: pins themselves do not depend on names.
        let before = read_small(&path)?
            .and_then(|bytes| serde_json::from_slice::<NameFile>(&bytes).ok())
            .filter(|file| file.format == NAME_FORMAT)
            .map(|file| PinId { ledger: file.ledger, vault: file.vault });
        if before == Some(id) {
            return Ok(None);
        }
        let file = NameFile { format: NAME_FORMAT.to_owned(), ledger: id.ledger, vault: id.vault };
        write_whole(&path, &to_json(&path, &file)?)?;
        Ok(before)
    }

    fn record_fork(&self, id: PinId, evidence: &ForkEvidence) -> Result<String, PinError> {
        self.create_directory()?;
        let _lock = self.lock()?;
        let name = |number: usize| self.path.join(format!("{}_{}.fork-{number}.json", id.ledger, id.vault));
        let Some(path) = (1..=FORKS_MAX).map(name).find(|path| !path.exists()) else {
            // Any of them proves the fork: the first ones stay, and a loop cannot fill the disk.
            return Ok(format!("{} (the first of {FORKS_MAX})", name(1).display()));
        };
        let file = ForkFile {
            format: "strongroom.fork.v1",
            reason: &evidence.reason,
            pinned: &evidence.pinned,
            received: &evidence.received,
        };
        write_whole(&path, &to_json(&path, &file)?)?;
        Ok(path.display().to_string())
    }
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, PinError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| damaged(path, error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The content of a file, or `None` when there is none.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>, PinError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", path, source)),
        Ok(metadata) if metadata.len() > PIN_BYTES_MAX => return Err(damaged(path, "it is too large")),
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(|source| io_error("read", path, source))
}

/// Writes a temporary file, syncs it, renames it over `path`, syncs the directory.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PinError> {
    let temporary = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(|source| io_error("write", path, source))
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> PinError {
    PinError::Io { action, path: path.display().to_string(), source }
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> PinError {
    PinError::Damaged { path: path.display().to_string(), reason: reason.to_string() }
}
