//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::Source;

/// One problem. Values of secrets never appear in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// A flag, variable or file key that no setting declares.
    #[error("unknown key \"{key}\" in {origin}{}", Suggestion(.suggestion))]
    UnknownKey {
        /// The key, variable or flag as it was written.
        key: String,
        /// Where it stood: `the environment`, `the command line`, a file.
        origin: String,
        /// The declared name that looks most like it.
        suggestion: Option<String>,
    },
    /// The text is not of the setting's kind.
    #[error("{key} from {origin}: {}expected {expected}", Shown(.value))]
    Invalid {
        /// The setting's key.
        key: String,
        /// Where the text came from.
        origin: Source,
        /// The text; `None` for a secret.
        value: Option<String>,
        /// What is expected.
        expected: String,
    },
    /// A setting that has to be given was given nowhere.
    #[error("{key} is not set: give --{flag}, {variable} or \"{key}\" in the file")]
    Missing {
        /// The setting's key.
        key: String,
        /// Its flag, without dashes.
        flag: String,
        /// Its environment variable.
        variable: String,
    },
    /// A secret is given as a value and as a file in the same layer.
    #[error("{key} is given twice in {origin}: as a value and as a file; remove one")]
    SecretGivenTwice {
        /// The setting's key.
        key: String,
        /// The layer.
        origin: String,
    },
    /// A variable's value is not UTF-8.
    #[error("the variable {variable} is not valid UTF-8")]
    NotUnicode {
        /// The variable.
        variable: String,
    },
    /// A file could not be read.
    #[error("cannot read {path} (named by {origin}): {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it.
        origin: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than configuration and secrets ever are.
    #[error("{path} (named by {origin}) is larger than {limit_bytes} bytes: is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Who named it.
        origin: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file is not TOML. The offending line is not quoted: it may hold a secret.
    #[error("{path}, line {line}: not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The program asked for a key, or for a kind, that its own table does not declare: a defect of the program.
    #[error("the setting {key} is not declared as {wanted}")]
    Undeclared {
        /// The key asked for.
        key: String,
        /// The kind asked for.
        wanted: &'static str,
    },
}

/// All problems found at once, so that one run of `config check` shows them all.
#[derive(Debug)]
pub struct ConfigurationErrors(pub Vec<ConfigurationError>);

impl fmt::Display for ConfigurationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigurationErrors {}

struct Suggestion<'a>(&'a Option<String>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; did you mean \"{name}\"?"),
            None => Ok(()),
        }
    }
}

struct Shown<'a>(&'a Option<String>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "\"{}\" is not usable, ", value.escape_debug()),
            None => Ok(()),
        }
    }
}
