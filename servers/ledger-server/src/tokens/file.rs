//! Files of credentials: `admin.token` with the first administrator's token, and `tokens` of earlier releases, which
//! kept tokens beside the ledger.
//!
//! `tokens` is text, one JSON object a line: first `{"format":"strongroom.tokens","version":1}`, then one line
//! per token with `id`, `sha256`, `role`, `scope`, `actor` and `created_at_ms`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ledger_core::access_token::AccessToken;
use ledger_core::transaction::Actor;
use serde::Deserialize;

use super::{TokenFileError, TokenId};
use crate::access::{Role, Scope};

const FORMAT: &str = "strongroom.tokens";
const VERSION: u32 = 1;
const MODE_OWNER_ONLY: u32 = 0o600;
/// More than [`super::TOKENS_MAX`] of the longest lines.
const FILE_BYTES_MAX: u64 = 8 * 1_048_576;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatLine {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    #[serde(with = "hex::serde")]
    id: [u8; 8],
    #[serde(with = "hex::serde")]
    sha256: [u8; 32],
    role: Role,
    scope: Scope,
    actor: Actor,
    created_at_ms: u64,
}

impl From<StoredToken> for AccessToken {
    fn from(stored: StoredToken) -> Self {
        let StoredToken { id, sha256, role, scope, actor, created_at_ms } = stored;
        Self { id: TokenId(id), sha256, role, scope, actor, created_at_ms }
    }
}

/// The tokens of a file, in the order of their ids; `None` when there is no such file.
pub(super) fn read_tokens(path: &Path) -> Result<Option<Vec<AccessToken>>, TokenFileError> {
    let unreadable = |source| TokenFileError::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(TokenFileError::TooLarge { path: path.to_owned(), limit_bytes: FILE_BYTES_MAX });
    }
    parse_tokens(&text, path).map(Some)
}

fn parse_tokens(text: &str, path: &Path) -> Result<Vec<AccessToken>, TokenFileError> {
    let malformed = |line: usize, source| TokenFileError::Malformed { path: path.to_owned(), line, source };
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (_, first) = lines.next().unwrap_or((1, ""));
    let format: FormatLine = serde_json::from_str(first).map_err(|source| malformed(1, source))?;
    if format.format != FORMAT || format.version != VERSION {
        let found = format!("{} version {}", format.format.escape_debug(), format.version);
        return Err(TokenFileError::Format { path: path.to_owned(), found, known: VERSION });
    }
    let mut tokens = BTreeMap::new();
    for (number, line) in lines {
        let stored: StoredToken = serde_json::from_str(line).map_err(|source| malformed(number, source))?;
        let token = AccessToken::from(stored);
        let id = token.id;
        if tokens.insert(id, token).is_some() {
            return Err(TokenFileError::Duplicate { path: path.to_owned(), line: number, id });
        }
    }
    Ok(tokens.into_values().collect())
}

/// Writes a file that only its owner reads, durably and all or nothing: temporary file, fsync, rename, fsync of
/// the directory.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), TokenFileError> {
    let failed = |source| TokenFileError::Io { action: "write", path: path.to_owned(), source };
    let temporary = temporary_beside(path);
    // A leftover of a crash may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE_OWNER_ONLY)
        .open(&temporary)
        .map_err(failed)?;
    // The process umask can only have taken bits away; a file that its owner cannot read is no use either.
    file.set_permissions(fs::Permissions::from_mode(MODE_OWNER_ONLY)).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    rename(&temporary, path)
}

/// Renames a file durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), TokenFileError> {
    let failed = |source| TokenFileError::Io { action: "write", path: to.to_owned(), source };
    fs::rename(from, to).map_err(failed)?;
    let directory = to.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}
