//! A directory that a snapshot is restored into: no ledger before all of it is there.

use std::fs::File;
use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use ledger_verify::note::SigningKey;

use super::{
    CLUSTER_FILE, DirectoryError, FORMAT, FORMAT_FILE, FORMAT_WORDS, LEDGER_FILES, LOCK_FILE, LOG_KEY_FILE,
    NODE_ID_FILE, PID_FILE, RESTORING_FILE, create, durable_file, lock, log_key, node_id, not_writable,
};

/// An empty data directory, locked for this process, that [`finish`](Self::finish) turns into a ledger's. Until then
/// a marker keeps everyone from opening it, also after a crash.
#[derive(Debug)]
pub struct RestoreTarget {
    path: PathBuf,
    node_id: u64,
    /// Released by the system when the file is closed.
    _lock: File,
}

/// Has the server mint an administrator's token when it starts.
const TOKEN_WANTED_FILE: &str = "admin.token.wanted";

impl RestoreTarget {
    /// Begins a restore into a directory that is missing, empty, or holds a restore that did not finish, which is
    /// removed. A node id is minted: the restored node is not the one whose snapshot it holds.
    pub fn begin(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        create(&path)?;
        refuse_content(&path)?;
        let lock = lock(&path)?;
        refuse_content(&path)?;
        durable_file::write(&path.join(RESTORING_FILE), b"a ledger is being restored here\n", 0o600)?;
        for name in
            LEDGER_FILES.into_iter().chain([FORMAT_FILE, NODE_ID_FILE, LOG_KEY_FILE, CLUSTER_FILE, PID_FILE])
        {
            for name in [name.to_owned(), format!("{name}.new")] {
                let file = path.join(name);
                // The log may be a folder.
                let removed = match file.is_dir() {
                    true => std::fs::remove_dir_all(&file),
                    false => std::fs::remove_file(&file),
                };
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(not_writable(&file, error, "remove"));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        let node_id = node_id::read_or_mint(&path.join(NODE_ID_FILE), true)?;
        Ok(Self { path, node_id, _lock: lock })
    }

    /// The directory: the stores that take the rows put their files here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identity of the node that the directory becomes.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Makes it a ledger's directory, once its stores are closed. Without a key it cannot be served before one is
    /// imported.
    pub fn finish(self, ledger_id: LedgerId, key: Option<&SigningKey>) -> Result<(), DirectoryError> {
        if let Some(key) = key {
            log_key::write(&self.path.join(LOG_KEY_FILE), ledger_id, key)?;
        }
        // The tokens are the ledger's; whoever restores it may have none of them.
        durable_file::write(&self.path.join(TOKEN_WANTED_FILE), b"", 0o600)?;
        let format = format!("{FORMAT_WORDS}{FORMAT}\n");
        durable_file::write(&self.path.join(FORMAT_FILE), format.as_bytes(), 0o600)?;
        let marker = self.path.join(RESTORING_FILE);
        std::fs::remove_file(&marker).map_err(|source| not_writable(&marker, source, "remove"))?;
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|source| not_writable(&self.path, source, "sync"))
    }
}

/// The lock file of an earlier attempt is no content; with the marker nothing is.
fn refuse_content(path: &Path) -> Result<(), DirectoryError> {
    if path.join(RESTORING_FILE).exists() {
        return Ok(());
    }
    let unreadable = |source| DirectoryError::Io { action: "read", path: path.to_owned(), source };
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if name != LOCK_FILE {
            let found = name.to_string_lossy().into_owned();
            return Err(DirectoryError::NotEmpty { path: path.to_owned(), found });
        }
    }
    Ok(())
}
