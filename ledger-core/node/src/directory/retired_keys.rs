//! `log.keys.retired`: public keys that signed checkpoints of the ledger before the one in `log.key`.

use std::io;
use std::path::Path;

use ledger_verify::note::{SigningKey, VerifierKey};

use super::{DataDirectory, DirectoryError, LOG_KEY_FILE, NodeDirectory, durable_file, log_key, read_text};
use crate::peers::LedgerKey;

/// One C2SP verifier key a line, the oldest first.
const RETIRED_FILE: &str = "log.keys.retired";
/// Most keys that are remembered; the oldest ones go.
const RETIRED_MAX: usize = 16;

impl DataDirectory {
    /// The public keys that the ledger's checkpoints were signed with before, the oldest first; at most 16.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn retired_keys(&self) -> Result<Vec<VerifierKey>, DirectoryError> {
        let current = self.signing_key().verifier_key();
        let path = self.path().join(RETIRED_FILE);
        // After a crash in a rotation the key that still signs stands there already.
        Ok(read(&path)?.into_iter().filter(|key| *key != current).collect())
    }

    /// Signs with another key from now on. It is durable when this returns; the old private key is gone then.
    pub(crate) fn replace_key(&mut self, key: SigningKey) -> Result<(), DirectoryError> {
        retire(self.path(), self.signing_key().verifier_key())?;
        log_key::write(&self.path().join(LOG_KEY_FILE), self.ledger_id(), &key)?;
        self.set_signing_key(key);
        Ok(())
    }
}

impl NodeDirectory {
    /// Takes over the key that the cluster's leader says the ledger signs with now; answers with the one that was here, when
    /// that is another. One that was retired here is not taken: whoever has it has missed the rotation.
    ///
    /// # Errors
    /// The key is another ledger's, or was retired here, or the directory cannot be written.
    pub fn take_over_key(&mut self, key: &LedgerKey) -> Result<Option<VerifierKey>, DirectoryError> {
        let path = self.path().join(LOG_KEY_FILE);
        let (_, present) = log_key::parse(&path, key.secret_text())?;
        let Some(old) = self.key_to_replace(&present.verifier_key())? else { return Ok(None) };
        retire(self.path(), old.clone())?;
        self.take_key(key)?;
        Ok(Some(old))
    }

    /// The key that is here, when the ledger signs with another one now: that one is to be
    /// [taken over](Self::take_over_key) then.
    ///
    /// # Errors
    /// The present key was retired here, or the directory cannot be read.
    pub fn key_to_replace(&self, present: &VerifierKey) -> Result<Option<VerifierKey>, DirectoryError> {
        let Some(held) = self.verifier_key().filter(|held| held != present) else { return Ok(None) };
        if read(&self.path().join(RETIRED_FILE))?.contains(present) {
            return Err(DirectoryError::RetiredKey { key: present.to_string() });
        }
        Ok(Some(held))
    }
}

/// Remembers a key that signs no more.
fn retire(directory: &Path, key: VerifierKey) -> Result<(), DirectoryError> {
    let path = directory.join(RETIRED_FILE);
    let mut retired = read(&path)?;
    retired.retain(|known| *known != key);
    retired.push(key);
    let kept = retired.iter().skip(retired.len().saturating_sub(RETIRED_MAX));
    let lines: String = kept.map(|key| format!("{key}\n")).collect();
    durable_file::write(&path, lines.as_bytes(), 0o600)
}

fn read(path: &Path) -> Result<Vec<VerifierKey>, DirectoryError> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(DirectoryError::Io { action: "read", path: path.to_owned(), source }),
    };
    let key = |line: &str| {
        line.parse().map_err(|error| DirectoryError::Damaged {
            path: path.to_owned(),
            reason: format!("a line of it is no verifier key: {error}"),
        })
    };
    text.lines().map(key).collect()
}
