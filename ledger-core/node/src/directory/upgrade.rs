//! The copy that an upgrade of the layout begins with.
//!
//! Steps, each of which may be the last before a crash: the marker `upgrading` in the directory; a partial copy;
//! its rename to the final name; the stores, file by file; the format file; the marker's end. A copy under its
//! final name is whole, and while the marker stands it is ours.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{DirectoryError, LOCK_FILE, PID_FILE, durable_file};

/// Stands in the directory while it is brought up to date.
const MARKER_FILE: &str = "upgrading";
/// Files that belong to a running process, not to the ledger.
const NOT_COPIED: [&str; 3] = [LOCK_FILE, PID_FILE, MARKER_FILE];
/// Room that stays beside the copy, in bytes: the upgrade itself writes too.
const RESERVE_BYTES: u64 = 16 * 1_048_576;

/// Makes the copy of a directory with layout `found`, or finds the one that an interrupted upgrade made.
pub(super) fn copy(directory: &Path, found: u32) -> Result<(), DirectoryError> {
    let absolute = fs::canonicalize(directory).map_err(io_error("look at", directory))?;
    let copy = beside(&absolute, &format!(".format-{found}"));
    let partial = beside(&absolute, &format!(".format-{found}.partial"));
    let marker = directory.join(MARKER_FILE);
    let copy_exists = exists(&copy)?;
    if !exists(&marker)? {
        if copy_exists {
            return Err(DirectoryError::CopyExists { path: directory.to_owned(), copy });
        }
        check_room(&absolute, &copy)?;
        durable_file::write(&marker, format!("from layout {found}\n").as_bytes(), 0o600)?;
    }
    if !copy_exists {
        remove_partial(&partial)?;
        copy_directory(&absolute, &partial)?;
        fs::rename(&partial, &copy).map_err(io_error("rename", &partial))?;
        sync_parent(&copy)?;
    }
    tracing::warn!(
        directory = %absolute.display(),
        copy = %copy.display(),
        "the data directory is upgraded from layout {found}; a copy of it as it was stands beside it: remove that \
         with `rm -r` when you do not want to go back to the older release"
    );
    Ok(())
}

/// Ends an upgrade: the format file is written.
pub(super) fn forget(directory: &Path) -> Result<(), DirectoryError> {
    let marker = directory.join(MARKER_FILE);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &marker)(error)),
        _ => Ok(()),
    }
}

fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn exists(path: &Path) -> Result<bool, DirectoryError> {
    path.try_exists().map_err(io_error("look at", path))
}

fn check_room(directory: &Path, copy: &Path) -> Result<(), DirectoryError> {
    let needed_bytes = size_of(directory)?.saturating_add(RESERVE_BYTES);
    let parent = copy.parent().unwrap_or(directory);
    let room =
        rustix::fs::statvfs(parent).map_err(|error| io_error("measure the room of", parent)(error.into()))?;
    let available_bytes = room.f_bavail.saturating_mul(room.f_frsize);
    if available_bytes >= needed_bytes {
        return Ok(());
    }
    let (path, copy) = (directory.to_owned(), copy.to_owned());
    Err(DirectoryError::NoRoomForCopy { path, copy, needed_bytes, available_bytes })
}

fn size_of(directory: &Path) -> Result<u64, DirectoryError> {
    let mut bytes = 0_u64;
    for entry in entries(directory)? {
        let metadata = fs::metadata(&entry).map_err(io_error("look at", &entry))?;
        let size = if metadata.is_dir() { size_of(&entry)? } else { metadata.len() };
        bytes = bytes.saturating_add(size);
    }
    Ok(bytes)
}

/// The paths in a directory that are copied.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let failed = || io_error("list", directory);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if !NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn remove_partial(partial: &Path) -> Result<(), DirectoryError> {
    match fs::remove_dir_all(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", partial)(error)),
        _ => Ok(()),
    }
}

/// Copies files and folders; all of it is durable when this returns.
fn copy_directory(from: &Path, to: &Path) -> Result<(), DirectoryError> {
    DirBuilder::new().mode(0o700).create(to).map_err(|source| super::not_writable(to, source, "create"))?;
    for source in entries(from)? {
        let Some(name) = source.file_name() else { continue };
        let target = to.join(name);
        if fs::metadata(&source).map_err(io_error("look at", &source))?.is_dir() {
            copy_directory(&source, &target)?;
            continue;
        }
        fs::copy(&source, &target).map_err(io_error("copy", &source))?;
        File::open(&target).and_then(|file| file.sync_all()).map_err(io_error("sync", &target))?;
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(io_error("sync", to))
}

fn sync_parent(path: &Path) -> Result<(), DirectoryError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("sync", parent))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { action, path, source }
}
