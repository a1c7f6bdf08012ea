//! Settings with their values and where each came from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use zeroize::Zeroizing;

use super::error::ConfigurationError;
use super::resolver::same_shape;
use super::setting::{
    Kind, Setting, TimeUnit, parse_bytes, parse_count, parse_duration, parse_list, parse_switch,
};
use crate::Secret;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A flag of the command line.
    Flag {
        /// Its name without dashes.
        flag: String,
    },
    /// An environment variable, ours or an alias.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// A file that holds only this secret.
    SecretFile {
        /// Its path.
        path: PathBuf,
        /// The flag, variable or file that named it.
        named_by: Box<Source>,
    },
    /// The table's default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag { flag } => write!(f, "flag --{flag}"),
            Source::Environment { variable } => write!(f, "environment {variable}"),
            Source::File { path } => write!(f, "file {}", path.display()),
            Source::SecretFile { path, named_by } => write!(f, "file {} ({named_by})", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// One line of `config check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingRow {
    /// The setting's key.
    pub key: &'static str,
    /// Its text; secrets are `(redacted)`, unset settings `None`.
    pub value: Option<String>,
    /// Where it came from, as [`Source`] prints; `unset` for unset settings.
    pub source: String,
}

/// The resolved settings of one server. Every text in it has been checked against its setting's kind.
pub struct Resolved {
    pub(super) server: String,
    pub(super) settings: Vec<&'static Setting>,
    pub(super) values: BTreeMap<&'static str, Value>,
}

pub(super) struct Value {
    pub(super) text: Zeroizing<String>,
    pub(super) source: Source,
}

impl Resolved {
    /// The server these settings belong to.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Every setting in the order of the table, secrets redacted: what `config check` prints.
    pub fn rows(&self) -> Vec<SettingRow> {
        let row = |setting: &&'static Setting| match self.values.get(setting.key) {
            Some(_) if setting.is_secret() => SettingRow {
                key: setting.key,
                value: Some("(redacted)".to_owned()),
                source: self.shown(setting),
            },
            Some(value) => SettingRow {
                key: setting.key,
                value: Some(value.text.to_string()),
                source: self.shown(setting),
            },
            None => SettingRow { key: setting.key, value: None, source: "unset".to_owned() },
        };
        self.settings.iter().map(row).collect()
    }

    /// Where a setting's value came from; `None` when it is unset.
    pub fn source(&self, key: &str) -> Option<&Source> {
        self.values.get(key).map(|value| &value.source)
    }

    /// The error for a value that has the form of its kind but does not work. `expected` says what would.
    pub fn refusal(&self, key: &str, expected: impl Into<String>) -> ConfigurationError {
        let is_secret = self.settings.iter().any(|setting| setting.key == key && setting.is_secret());
        let value = self.values.get(key);
        ConfigurationError::Invalid {
            key: key.to_owned(),
            origin: value.map_or(Source::Default, |value| value.source.clone()),
            value: value.filter(|_| !is_secret).map(|value| value.text.to_string()),
            expected: expected.into(),
        }
    }

    /// Whether any table declares the key.
    pub fn declares(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key)
    }

    /// A [`Kind::Text`] or [`Kind::Choice`].
    ///
    /// # Errors
    /// Unset, or not declared as one of these.
    pub fn text(&self, key: &str) -> Result<&str, ConfigurationError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::text`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, ConfigurationError> {
        let declared = self.declared(key)?;
        if !matches!(declared.kind, Kind::Text | Kind::Choice(_)) {
            return Err(undeclared(key, "a text or a choice"));
        }
        Ok(self.values.get(key).map(|value| value.text.as_str()))
    }

    /// A [`Kind::Switch`]; unset is off.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn switch(&self, key: &str) -> Result<bool, ConfigurationError> {
        Ok(self.parsed(key, Kind::Switch, "a switch", |text, _| parse_switch(text))?.unwrap_or(false))
    }

    /// A [`Kind::Count`].
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn count(&self, key: &str) -> Result<u64, ConfigurationError> {
        self.optional_count(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::count`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_count(&self, key: &str) -> Result<Option<u64>, ConfigurationError> {
        self.parsed(key, Kind::Count { min: 0, max: u64::MAX }, "a count", |text, _| parse_count(text))
    }

    /// A [`Kind::Duration`].
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn duration(&self, key: &str) -> Result<Duration, ConfigurationError> {
        self.optional_duration(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::duration`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_duration(&self, key: &str) -> Result<Option<Duration>, ConfigurationError> {
        let wanted = Kind::Duration { bare: TimeUnit::Seconds };
        self.parsed(key, wanted, "a duration", |text, kind| match kind {
            Kind::Duration { bare } => parse_duration(text, bare),
            _ => None,
        })
    }

    /// A [`Kind::Bytes`], in bytes.
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn bytes(&self, key: &str) -> Result<u64, ConfigurationError> {
        self.optional_bytes(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::bytes`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_bytes(&self, key: &str) -> Result<Option<u64>, ConfigurationError> {
        self.parsed(key, Kind::Bytes, "a size", |text, _| parse_bytes(text))
    }

    /// A [`Kind::Path`].
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn path(&self, key: &str) -> Result<PathBuf, ConfigurationError> {
        self.optional_path(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::path`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_path(&self, key: &str) -> Result<Option<PathBuf>, ConfigurationError> {
        self.parsed(key, Kind::Path, "a path", |text, _| Some(PathBuf::from(text)))
    }

    /// A [`Kind::Address`].
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn address(&self, key: &str) -> Result<SocketAddr, ConfigurationError> {
        self.optional_address(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::address`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_address(&self, key: &str) -> Result<Option<SocketAddr>, ConfigurationError> {
        self.parsed(key, Kind::Address, "an address", |text, _| text.parse().ok())
    }

    /// A [`Kind::List`]; unset is empty.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn list(&self, key: &str) -> Result<Vec<String>, ConfigurationError> {
        let items = |text: &str, _| Some(parse_list(text).into_iter().map(str::to_owned).collect());
        Ok(self.parsed(key, Kind::List, "a list", items)?.unwrap_or_default())
    }

    /// A [`Kind::Secret`].
    ///
    /// # Errors
    /// Unset, or not declared as such.
    pub fn secret(&self, key: &str) -> Result<Secret<String>, ConfigurationError> {
        self.optional_secret(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Resolved::secret`], `None` when unset.
    ///
    /// # Errors
    /// Not declared as such.
    pub fn optional_secret(&self, key: &str) -> Result<Option<Secret<String>>, ConfigurationError> {
        self.parsed(key, Kind::Secret, "a secret", |text, _| Some(Secret::new(text.to_owned())))
    }

    fn parsed<T>(
        &self,
        key: &str,
        wanted: Kind,
        name: &'static str,
        parse: impl FnOnce(&str, Kind) -> Option<T>,
    ) -> Result<Option<T>, ConfigurationError> {
        let declared = self.declared(key)?;
        if !same_shape(declared.kind, wanted) {
            return Err(undeclared(key, name));
        }
        let Some(value) = self.values.get(key) else { return Ok(None) };
        parse(&value.text, declared.kind).map(Some).ok_or_else(|| ConfigurationError::Invalid {
            key: key.to_owned(),
            origin: value.source.clone(),
            value: (!declared.is_secret()).then(|| value.text.to_string()),
            expected: declared.kind.expected(),
        })
    }

    fn declared(&self, key: &str) -> Result<&'static Setting, ConfigurationError> {
        let found = self.settings.iter().find(|setting| setting.key == key);
        found.copied().ok_or_else(|| undeclared(key, "a setting"))
    }

    fn missing(&self, key: &str) -> ConfigurationError {
        match self.declared(key) {
            Ok(setting) => ConfigurationError::Missing {
                key: key.to_owned(),
                flag: setting.flag(),
                variable: setting.variable(&self.server),
            },
            Err(error) => error,
        }
    }

    fn shown(&self, setting: &Setting) -> String {
        self.source(setting.key).map_or_else(|| "unset".to_owned(), Source::to_string)
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("server", &self.server).field("rows", &self.rows()).finish()
    }
}

fn undeclared(key: &str, wanted: &'static str) -> ConfigurationError {
    ConfigurationError::Undeclared { key: key.to_owned(), wanted }
}
