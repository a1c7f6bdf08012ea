//! Files that must not be there yet.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// A certificate with its key, to be written.
pub struct NewFiles<'a> {
    pub directory: &'a Path,
    /// Name of the files without their extension.
    pub name: &'a str,
}

/// Where they are.
pub struct Written {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl NewFiles<'_> {
    /// Writes both, the key readable by its owner only. Nothing is written when one of them exists.
    pub fn write(&self, certificate_pem: &str, key_pem: &str) -> Result<Written, Failure> {
        let directory = self.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| Failure::file("create", directory, &error))?;
        let certificate = directory.join(format!("{}.pem", self.name));
        let key = directory.join(format!("{}.key", self.name));
        for path in [&certificate, &key] {
            if path.symlink_metadata().is_ok() {
                return Err(exists(path));
            }
        }
        write(&key, key_pem, 0o600)?;
        if let Err(failure) = write(&certificate, certificate_pem, 0o644) {
            // A key without its certificate would only be in the way of the next try.
            let _ = std::fs::remove_file(&key);
            return Err(failure);
        }
        Ok(Written { certificate, key })
    }
}

fn exists(path: &Path) -> Failure {
    let message = format!("{} exists: certificates and keys are not overwritten", path.display());
    Failure::new(Exit::Error, "FILE", message).with_hint("choose another directory, or move the file away")
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure::file("write", path, &error))
}
