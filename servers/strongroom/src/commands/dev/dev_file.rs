//! `dev.json`, where other commands find the server that `dev` runs.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use service_kit::ReadyLine;

use crate::failure::Failure;

/// `dev.json`, there while `dev` runs.
pub struct DevFileGuard {
    path: PathBuf,
    content: Vec<u8>,
}

impl DevFileGuard {
    /// Writes the file.
    pub fn write(path: &Path, ready: &ReadyLine) -> Result<Self, Failure> {
        let content = write(path, ready)?;
        Ok(Self { path: path.to_owned(), content })
    }

    /// Writes it again, unless another `dev` has written its own since.
    pub fn update(&mut self, ready: &ReadyLine) -> Result<(), Failure> {
        if self.is_own() {
            self.content = write(&self.path, ready)?;
        }
        Ok(())
    }

    fn is_own(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|content| content == self.content)
    }
}

impl Drop for DevFileGuard {
    fn drop(&mut self) {
        // Another `dev` may have written its own since: that one stays.
        if self.is_own() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn write(path: &Path, ready: &ReadyLine) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    ready.print(&mut content).map_err(|error| Failure::file("write", path, &error))?;
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&content)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error: std::io::Error| Failure::file("write", path, &error))?;
    Ok(content)
}
