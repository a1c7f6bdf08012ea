//! What can go wrong with tokens.

use std::path::PathBuf;

use ledger_node::AdminError;

use super::TokenId;

/// The file of tokens could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `read`, `write`, `encode`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than a file of tokens ever is.
    #[error("{path} is larger than {limit_bytes} bytes: is it the file of tokens?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// A line is not what it must be.
    #[error(
        "{path}, line {line} is malformed: {source}. Restore the file, or move it away: then a new administrator's token is minted"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Two lines with one id.
    #[error("{path}, line {line}: the token {id} stands there twice")]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The id.
        id: TokenId,
    },
    /// Another format, or a newer version of it.
    #[error(
        "{path} has the format {found}; this program reads strongroom.tokens version {known}. Use the release that wrote it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// The version known.
        known: u32,
    },
    /// The operating system has no randomness to give.
    #[error("the operating system gave no randomness for a token: {0}")]
    Randomness(getrandom::Error),
}

/// A token was not made or not revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The ledger refused, or could not be asked.
    #[error(transparent)]
    Ledger(#[from] AdminError),
    /// A file could not be read or written, or there is no randomness.
    #[error(transparent)]
    File(#[from] TokenFileError),
}
