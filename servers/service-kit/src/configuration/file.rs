//! The TOML file: one table per server, flat keys.

use std::io::Read;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use zeroize::Zeroizing;

use super::error::ConfigurationError;
use super::resolver::SERVERS;
use super::setting::{Kind, Setting};

/// Configuration files are some kilobytes; more is a wrong path.
const CONFIGURATION_FILE_BYTES_MAX: u64 = 1 << 20;
/// Secrets are keys and passwords; more is a wrong path.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// The server's table of the file at `path`.
pub(super) fn read_table(path: &Path, server: &str) -> Result<Table, ConfigurationError> {
    let text = read_bounded(path, "the command line", CONFIGURATION_FILE_BYTES_MAX)?;
    let mut document: Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigurationError::Syntax {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            message: error.message().to_owned(),
        }
    })?;
    let own = document.remove(server);
    if let Some(stranger) = document.keys().find(|key| !SERVERS.contains(&key.as_str())) {
        return Err(ConfigurationError::UnknownKey {
            key: stranger.clone(),
            origin: path.display().to_string(),
            suggestion: Some(format!("[{server}]")),
        });
    }
    match own {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(_) => Err(ConfigurationError::UnknownKey {
            key: server.to_owned(),
            origin: path.display().to_string(),
            suggestion: Some(format!("[{server}]")),
        }),
    }
}

/// The text of a value as the file may write it: numbers and booleans bare where the kind allows it.
pub(super) fn text_of(value: &Value, setting: &Setting) -> Option<String> {
    match (value, setting.kind) {
        (Value::String(text), _) => Some(text.clone()),
        (Value::Integer(number), Kind::Count { .. } | Kind::Duration { .. } | Kind::Bytes) => {
            Some(number.to_string())
        }
        (Value::Boolean(switch), Kind::Switch) => Some(switch.to_string()),
        (Value::Array(items), Kind::List) => {
            let items: Option<Vec<&str>> =
                items.iter().map(|item| item.as_str().filter(|text| !text.contains(','))).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

/// The secret in a file, without the line end that editors append.
pub(super) fn read_secret(path: &Path, origin: &str) -> Result<Zeroizing<String>, ConfigurationError> {
    let text = read_bounded(path, origin, SECRET_FILE_BYTES_MAX)?;
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
    Ok(Zeroizing::new(trimmed.to_owned()))
}

fn read_bounded(
    path: &Path,
    origin: &str,
    limit_bytes: u64,
) -> Result<Zeroizing<String>, ConfigurationError> {
    let unreadable = |source| ConfigurationError::Unreadable {
        path: PathBuf::from(path),
        origin: origin.to_owned(),
        source,
    };
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > limit_bytes {
        let path = PathBuf::from(path);
        return Err(ConfigurationError::TooLarge { path, origin: origin.to_owned(), limit_bytes });
    }
    Ok(text)
}
