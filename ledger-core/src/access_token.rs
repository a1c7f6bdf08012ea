//! Access tokens as every node of a ledger knows them: all but their secrets.
//!
//! A token's text is minted by the node that a caller asked, shown once, and never replicated: the log, the stores
//! and snapshots hold its SHA-256.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::access::{Role, Scope};
use crate::codec::{self, CodecError};
use crate::ledger_state::from_hex;
use crate::rows;
use crate::transaction::Actor;

/// Most tokens of one ledger.
pub const TOKENS_MAX: usize = 10_000;

/// Names a token without giving it away; printed as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

/// A text that is no token id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token id is 16 lower-case hex digits")]
pub struct TokenIdError;

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let is_lower_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let bytes = from_hex(text).filter(|_| is_lower_hex).ok_or(TokenIdError)?;
        bytes.try_into().map(Self).map_err(|_| TokenIdError)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Its name.
    pub id: TokenId,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// What it permits.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// The author of what is written with it.
    pub actor: Actor,
    /// When it was made, by the clock of the node that made it, unix milliseconds.
    pub created_at_ms: u64,
}

impl AccessToken {
    /// Whether it permits everything. Of such a token there is always one left.
    pub fn is_admin_of_everything(&self) -> bool {
        self.role == Role::Admin && self.scope == Scope::Everything
    }
}

/// The tokens of a ledger at one log entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessTokens(BTreeMap<TokenId, AccessToken>);

impl AccessTokens {
    /// The token of an id.
    pub fn get(&self, id: &TokenId) -> Option<&AccessToken> {
        self.0.get(id)
    }

    /// All of them in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &AccessToken> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the ledger has none yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// SHA-256 over the rows of all tokens in order, each as length of the key (u64, big-endian), key, length of the
    /// value, value: equal on every node at the same log entry.
    pub fn digest(&self) -> Result<[u8; 32], CodecError> {
        let mut sha = Sha256::new();
        for token in self.0.values() {
            for part in [rows::token_key(token.id).as_slice(), &codec::encode("a token row", token)?] {
                sha.update((part.len() as u64).to_be_bytes());
                sha.update(part);
            }
        }
        Ok(sha.finalize().into())
    }

    pub(crate) fn insert(&mut self, token: AccessToken) -> Option<AccessToken> {
        self.0.insert(token.id, token)
    }

    pub(crate) fn remove(&mut self, id: &TokenId) -> Option<AccessToken> {
        self.0.remove(id)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_it_parses_and_nothing_else_parses() {
        let text = "0123456789abcdef";
        assert_eq!(text.parse::<TokenId>().unwrap().to_string(), text);
        for text in ["", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
            assert_eq!(text.parse::<TokenId>(), Err(TokenIdError), "{text:?}");
        }
    }
}
