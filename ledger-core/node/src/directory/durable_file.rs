//! Small files that are there whole or not at all, also after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{DirectoryError, not_writable};

/// Writes a file: temporary file, `fsync`, rename, `fsync` of the directory.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DirectoryError> {
    write_telling(path, |_| Ok(content.to_vec()), mode)
}

/// Writes a private file of another part of the node.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_steps(path, |_| Ok(content.to_vec()), 0o600)
}

/// As [`write`], of what is known only once the file is there.
pub(super) fn write_telling(
    path: &Path,
    content: impl FnOnce(&File) -> io::Result<Vec<u8>>,
    mode: u32,
) -> Result<(), DirectoryError> {
    write_steps(path, content, mode).map_err(|source| not_writable(path, source, "write"))
}

fn write_steps(path: &Path, content: impl FnOnce(&File) -> io::Result<Vec<u8>>, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = match OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a crash; this process holds the directory's lock.
            std::fs::remove_file(&temporary)?;
            OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?
        }
        other => other?,
    };
    let content = content(&file)?;
    file.write_all(&content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
