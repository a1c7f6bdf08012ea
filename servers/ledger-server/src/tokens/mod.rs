//! Tokens: the credentials of a ledger server.
//!
//! A token is `sr_<id>_<secret>` with 256 bits of randomness. The server keeps its SHA-256 with role, scope and
//! actor in the file `tokens` of the data directory, and compares in constant time. The first start mints one
//! administrator's token on `*` into `admin.token`, readable by its owner only.

mod file;
mod secret;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use ledger_core::transaction::Actor;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::access::{Caller, Role, Scope};
pub use secret::{TokenId, TokenIdError, TokenText};

/// Most tokens of one ledger.
pub const TOKENS_MAX: usize = 10_000;
const TOKENS_FILE: &str = "tokens";
const ADMIN_TOKEN_FILE: &str = "admin.token";
/// There from a ledger's first start on.
const LEDGER_FILE: &str = "state.db";
const FIRST_ADMIN_ACTOR: &str = "client:admin";

/// A token as it is listed: all but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its name.
    pub id: TokenId,
    /// What it permits.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// The author of what is written with it.
    pub actor: Actor,
    /// When it was made, unix milliseconds.
    pub created_at_ms: u64,
}

/// What a new token shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it permits.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// The author of what is written with it; `None` = `client:<token id>`.
    pub actor: Option<Actor>,
    /// The time now, unix milliseconds.
    pub created_at_ms: u64,
}

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
        "{path}, line {line} is malformed: {source}. Restore the file, or move it away to mint a new administrator's token at the next start"
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
    /// No token has this id.
    #[error("there is no token {0}")]
    NotFound(TokenId),
    /// Nobody could make tokens any more.
    #[error("token {0} is the last one with the role admin on *: create another before you revoke it")]
    LastAdmin(TokenId),
    /// There are as many tokens as there may be.
    #[error("a ledger has at most {TOKENS_MAX} tokens: revoke those that are not used")]
    TooMany,
    /// The change could not be stored; it did not take effect.
    #[error(transparent)]
    File(#[from] TokenFileError),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    id: TokenId,
    #[serde(with = "hex::serde")]
    sha256: [u8; 32],
    role: Role,
    scope: Scope,
    actor: Actor,
    created_at_ms: u64,
}

impl StoredToken {
    fn info(&self) -> TokenInfo {
        TokenInfo {
            id: self.id,
            role: self.role,
            scope: self.scope.clone(),
            actor: self.actor.clone(),
            created_at_ms: self.created_at_ms,
        }
    }

    fn is_admin_of_everything(&self) -> bool {
        self.role == Role::Admin && self.scope == Scope::Everything
    }
}

/// All tokens of a ledger, in memory and on disk. A change is on disk before it counts.
pub struct TokenRegistry {
    directory: PathBuf,
    tokens: RwLock<BTreeMap<TokenId, StoredToken>>,
    /// Held from reading the old tokens until the new ones count; authentication does not wait for the disk.
    changing: Mutex<()>,
    /// Changes with every change of the tokens; carries no data.
    changes: watch::Sender<()>,
}

impl std::fmt::Debug for TokenRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRegistry").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl TokenRegistry {
    /// Reads the tokens of a data directory, whose lock the caller holds. Without a file of tokens it mints the
    /// first administrator's token, made at `now_ms` (unix milliseconds). Open the stores after it: where a ledger
    /// is there already, the missing file is worth a warning.
    pub fn open(directory: &Path, now_ms: u64) -> Result<Self, TokenFileError> {
        let registry = |tokens| Self {
            directory: directory.to_owned(),
            tokens: RwLock::new(tokens),
            changing: Mutex::new(()),
            changes: watch::Sender::new(()),
        };
        if let Some(tokens) = file::read_tokens(&directory.join(TOKENS_FILE))? {
            return Ok(registry(tokens));
        }
        if directory.join(LEDGER_FILE).exists() {
            let directory = directory.display();
            tracing::warn!(
                %directory,
                "the directory holds a ledger but no file `tokens`: no earlier token is valid any more, and a new \
                 administrator's token was minted into admin.token; restore `tokens` from a backup if it was lost"
            );
        }
        let (token, text) = mint(&NewToken {
            role: Role::Admin,
            scope: Scope::Everything,
            actor: Actor::new(FIRST_ADMIN_ACTOR).ok(),
            created_at_ms: now_ms,
        })?;
        // The secret first: after a crash in between the next start mints another one over it. The other way
        // round nobody would have a token.
        file::replace(&directory.join(ADMIN_TOKEN_FILE), format!("{}\n", text.expose()).as_bytes())?;
        let tokens = BTreeMap::from([(token.id, token)]);
        file::write_tokens(&directory.join(TOKENS_FILE), &tokens)?;
        Ok(registry(tokens))
    }

    /// The file with the first administrator's token, while it is there and its token is valid.
    pub fn admin_token_file(&self) -> Option<PathBuf> {
        let path = self.directory.join(ADMIN_TOKEN_FILE);
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&path).ok()?);
        self.authenticate(text.trim_end()).map(|_| path)
    }

    /// The caller that a token's text stands for; `None` when it is unknown or was revoked.
    pub fn authenticate(&self, text: &str) -> Option<Caller> {
        self.authenticate_by_id(text).map(|(_, caller)| caller)
    }

    /// As [`authenticate`](Self::authenticate), with the token's id.
    pub(crate) fn authenticate_by_id(&self, text: &str) -> Option<(TokenId, Caller)> {
        let id = secret::id_of(text)?;
        let digest = secret::digest(text);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(&id)?;
        let caller = || Caller { actor: token.actor.clone(), role: token.role, scope: token.scope.clone() };
        bool::from(token.sha256.ct_eq(&digest)).then(|| (id, caller()))
    }

    /// Whether a token of this id is valid now.
    pub(crate) fn holds(&self, id: TokenId) -> bool {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Changes with every change of the tokens.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Makes a token. It is on disk when this returns; the text is in this answer only. Waits for the disk.
    pub fn create(&self, new: &NewToken) -> Result<(TokenInfo, TokenText), TokenError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tokens = self.snapshot();
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        // 64 random bits: among 10,000 tokens two ids meet once in 10^11 ledgers. Look all the same.
        let (token, text) = loop {
            let (token, text) = mint(new)?;
            if !tokens.contains_key(&token.id) {
                break (token, text);
            }
        };
        let info = token.info();
        tokens.insert(token.id, token);
        self.store(tokens)?;
        Ok((info, text))
    }

    /// Every token in the order of their ids.
    pub fn list(&self) -> Vec<TokenInfo> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.values().map(StoredToken::info).collect()
    }

    /// Revokes a token: calls that carry it are refused from now on, also after a restart, and answers that are
    /// still being sent end. Waits for the disk.
    pub fn revoke(&self, id: TokenId) -> Result<TokenInfo, TokenError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tokens = self.snapshot();
        let revoked = tokens.remove(&id).ok_or(TokenError::NotFound(id))?;
        if revoked.is_admin_of_everything() && !tokens.values().any(StoredToken::is_admin_of_everything) {
            return Err(TokenError::LastAdmin(id));
        }
        self.store(tokens)?;
        Ok(revoked.info())
    }

    fn snapshot(&self) -> BTreeMap<TokenId, StoredToken> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self, tokens: BTreeMap<TokenId, StoredToken>) -> Result<(), TokenFileError> {
        file::write_tokens(&self.directory.join(TOKENS_FILE), &tokens)?;
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        self.changes.send_replace(());
        Ok(())
    }
}

fn mint(new: &NewToken) -> Result<(StoredToken, TokenText), TokenFileError> {
    let (id, text) = TokenText::mint().map_err(TokenFileError::Randomness)?;
    let actor = new.actor.clone().unwrap_or_else(|| actor_of(id));
    let sha256 = secret::digest(text.expose());
    let token = StoredToken {
        id,
        sha256,
        role: new.role,
        scope: new.scope.clone(),
        actor,
        created_at_ms: new.created_at_ms,
    };
    Ok((token, text))
}

#[expect(clippy::expect_used, reason = "client: and 16 hex digits are always an actor")]
fn actor_of(id: TokenId) -> Actor {
    Actor::new(&format!("client:{id}")).expect("client: and 16 hex digits are an actor")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn reader_on(scope: &str) -> NewToken {
        NewToken { role: Role::Reader, scope: scope.parse().unwrap(), actor: None, created_at_ms: 5 }
    }

    #[test]
    fn the_first_start_mints_one_administrator_and_stores_only_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let registry = TokenRegistry::open(directory.path(), 1_000).unwrap();
        let path = registry.admin_token_file().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let caller = registry.authenticate(text.trim_end()).unwrap();
        assert_eq!((caller.role, caller.scope), (Role::Admin, Scope::Everything));
        let stored = std::fs::read_to_string(directory.path().join("tokens")).unwrap();
        // The secret may contain the separator.
        let secret = text.trim_end().splitn(3, '_').nth(2).unwrap();
        assert!(!stored.contains(secret) && !stored.contains("sr_"));
        for file in [path, directory.path().join("tokens")] {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        assert!(!format!("{registry:?}").contains(secret));
    }

    #[test]
    fn tokens_survive_a_restart_and_revoked_ones_do_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let registry = TokenRegistry::open(directory.path(), 1).unwrap();
        let (kept, kept_text) = registry.create(&reader_on("acme")).unwrap();
        let (gone, gone_text) = registry.create(&reader_on("acme/main")).unwrap();
        assert_eq!(kept.actor.as_str(), format!("client:{}", kept.id));
        registry.revoke(gone.id).unwrap();
        assert!(registry.authenticate(gone_text.expose()).is_none());
        let listed = registry.list();
        drop(registry);
        let registry = TokenRegistry::open(directory.path(), 2).unwrap();
        assert_eq!(registry.list(), listed);
        assert!(registry.authenticate(kept_text.expose()).is_some());
        assert!(registry.authenticate(gone_text.expose()).is_none());
        assert!(matches!(registry.revoke(gone.id), Err(TokenError::NotFound(_))));
    }

    #[test]
    fn any_other_secret_under_a_known_id_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let registry = TokenRegistry::open(directory.path(), 1).unwrap();
        let (_, text) = registry.create(&reader_on("*")).unwrap();
        let text = text.expose();
        for position in 20..text.len() {
            let mut altered = text.as_bytes().to_vec();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(registry.authenticate(&altered).is_none(), "{position}");
        }
    }

    #[test]
    fn the_last_administrator_of_everything_cannot_be_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let registry = TokenRegistry::open(directory.path(), 1).unwrap();
        let first = registry.list()[0].id;
        let admin = |scope: &str| NewToken { role: Role::Admin, ..reader_on(scope) };
        registry.create(&admin("acme")).unwrap();
        assert!(matches!(registry.revoke(first), Err(TokenError::LastAdmin(_))));
        let (second, _) = registry.create(&admin("*")).unwrap();
        registry.revoke(first).unwrap();
        assert!(registry.admin_token_file().is_none(), "a revoked token is not offered");
        assert!(matches!(registry.revoke(second.id), Err(TokenError::LastAdmin(_))));
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_by_name_and_line() {
        let directory = tempfile::tempdir().unwrap();
        drop(TokenRegistry::open(directory.path(), 1).unwrap());
        let path = directory.path().join("tokens");
        let good = std::fs::read_to_string(&path).unwrap();
        let message_for = |content: &str| {
            std::fs::write(&path, content).unwrap();
            TokenRegistry::open(directory.path(), 2).unwrap_err().to_string()
        };
        assert!(message_for("").contains("tokens, line 1"));
        assert!(message_for(&good.replace("\"admin\"", "\"root\"")).contains("line 2"));
        assert!(message_for(&good.replace("\"version\":1", "\"version\":2")).contains("version 2"));
        assert!(message_for(&format!("{good}{}\n", good.lines().nth(1).unwrap())).contains("twice"));
        std::fs::write(&path, &good).unwrap();
        assert_eq!(TokenRegistry::open(directory.path(), 2).unwrap().list().len(), 1);
    }

    #[test]
    fn a_change_that_cannot_be_stored_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let registry = TokenRegistry::open(directory.path(), 1).unwrap();
        let (token, text) = registry.create(&reader_on("*")).unwrap();
        // A directory in the place of the temporary file cannot be removed or opened as a file.
        std::fs::create_dir_all(directory.path().join("tokens.tmp/full")).unwrap();
        assert!(registry.create(&reader_on("*")).is_err());
        assert!(registry.revoke(token.id).is_err());
        assert!(registry.authenticate(text.expose()).is_some());
        assert_eq!(registry.list().len(), 2);
    }
}
