//! Where this program keeps files of its own for a user.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// `$XDG_STATE_HOME/strongroom`, or `~/.local/state/strongroom` when that is unset.
pub fn state_directory() -> Option<PathBuf> {
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("strongroom"))
}

/// `$XDG_RUNTIME_DIR/strongroom/dev.json`, where `dev` says where it runs. Without that variable a directory of
/// this user's own under the system's temporary one.
pub fn dev_file() -> PathBuf {
    let runtime = absolute("XDG_RUNTIME_DIR").map(|runtime| runtime.join("strongroom"));
    let fallback = || std::env::temp_dir().join(format!("strongroom-{}", own_user_id().unwrap_or(u32::MAX)));
    runtime.unwrap_or_else(fallback).join("dev.json")
}

/// The user that this process runs as: the owner of its entry in `/proc`.
pub fn own_user_id() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}
