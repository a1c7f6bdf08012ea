//! `log.key`: the private key of the ledger's checkpoints, whose name carries the ledger's identity.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ledger_core::names::LedgerId;
use ledger_verify::note::SigningKey;
use zeroize::Zeroizing;

use super::{DirectoryError, durable_file, random_bytes, read_text};

const NAME_PREFIX: &str = "strongroom/";
/// Permission bits that let anyone but the owner read or write.
const OTHERS: u32 = 0o077;

/// The key's name: `strongroom/<ledger id>`.
pub(crate) fn name_of(ledger_id: LedgerId) -> String {
    format!("{NAME_PREFIX}{ledger_id}")
}

/// Reads the key; `None` when it is missing.
pub(super) fn read(path: &Path) -> Result<Option<(LedgerId, SigningKey)>, DirectoryError> {
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DirectoryError::Io { action: "look at", path: path.to_owned(), source }),
    };
    if mode & OTHERS != 0 {
        return Err(DirectoryError::KeyPermissions { path: path.to_owned(), mode: mode & 0o777 });
    }
    let text = Zeroizing::new(read_text(path).map_err(|source| io_error(path, source))?);
    parse(path, &text).map(Some)
}

/// Reads the text of a key, for the file at a path.
pub(super) fn parse(path: &Path, text: &str) -> Result<(LedgerId, SigningKey), DirectoryError> {
    let key = SigningKey::parse(text.trim_end_matches('\n'))
        .map_err(|source| DirectoryError::Key { path: path.to_owned(), source })?;
    let ledger_id = ledger_id_of(key.name()).ok_or_else(|| DirectoryError::Damaged {
        path: path.to_owned(),
        reason: "the key's name is not strongroom/ and 32 hexadecimal digits".to_owned(),
    })?;
    Ok((ledger_id, key))
}

/// Writes the key of a ledger, which must be its own.
pub(super) fn write(path: &Path, ledger_id: LedgerId, key: &SigningKey) -> Result<(), DirectoryError> {
    if ledger_id_of(key.name()) != Some(ledger_id) {
        let reason = format!("it belongs to {}, not to ledger {ledger_id}", key.name());
        return Err(DirectoryError::Damaged { path: path.to_owned(), reason });
    }
    let mut text = key.to_secret_text();
    text.push('\n');
    durable_file::write(path, text.as_bytes(), 0o600)
}

/// Mints the key of a new ledger.
pub(super) fn mint(path: &Path) -> Result<(LedgerId, SigningKey), DirectoryError> {
    let ledger_id = LedgerId(random_bytes()?);
    let seed = Zeroizing::new(random_bytes::<32>()?);
    let key = SigningKey::from_seed(&name_of(ledger_id), &seed)
        .map_err(|source| DirectoryError::Key { path: path.to_owned(), source })?;
    let mut text = key.to_secret_text();
    text.push('\n');
    durable_file::write(path, text.as_bytes(), 0o600)?;
    Ok((ledger_id, key))
}

fn ledger_id_of(key_name: &str) -> Option<LedgerId> {
    let digits = key_name.strip_prefix(NAME_PREFIX)?;
    let canonical = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| canonical)?;
    Some(LedgerId(number.to_be_bytes()))
}

fn io_error(path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io { action: "read", path: path.to_owned(), source }
}
