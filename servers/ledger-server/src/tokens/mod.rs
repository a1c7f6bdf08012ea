//! Tokens: the credentials of a ledger server.
//!
//! A token is `sr_<id>_<secret>` with 256 bits of randomness. The ledger replicates its SHA-256 with role, scope and
//! actor; every node compares in constant time with what it has applied, and a revocation ends open answers on every
//! node. The leader of a ledger without tokens mints one administrator's token on `*` into `admin.token`, readable by
//! its owner only.

mod error;
mod file;
mod first;
mod secret;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger_core::access_token::{AccessToken, AccessTokens};
pub use ledger_core::access_token::{TOKENS_MAX, TokenId, TokenIdError};
use ledger_core::transaction::Actor;
use ledger_node::Ledger;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::access::{Caller, Role, Scope};
pub use error::{TokenError, TokenFileError};
pub use secret::TokenText;

/// Where the first administrator's token is.
const ADMIN_TOKEN_FILE: &str = "admin.token";
/// For how long a change waits until this node has applied what the leader has.
const APPLIED_HERE_WAIT: Duration = Duration::from_secs(5);

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

/// The tokens of a ledger, as this node has applied them.
pub struct TokenRegistry {
    directory: PathBuf,
    ledger: Ledger,
    tokens: watch::Receiver<Arc<AccessTokens>>,
}

impl std::fmt::Debug for TokenRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRegistry").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl TokenRegistry {
    /// A view of an open ledger's tokens; `directory` is where its first administrator's token is kept. Call
    /// [`ensure_first`](Self::ensure_first) before the first caller.
    pub fn new(ledger: Ledger, directory: &Path) -> Self {
        let tokens = ledger.access_tokens();
        Self { directory: directory.to_owned(), ledger, tokens }
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
        let tokens = self.tokens.borrow();
        let token = tokens.get(&id)?;
        let caller = || Caller { actor: token.actor.clone(), role: token.role, scope: token.scope.clone() };
        bool::from(token.sha256.ct_eq(&digest)).then(|| (id, caller()))
    }

    /// Whether a token of this id is valid now.
    pub(crate) fn holds(&self, id: TokenId) -> bool {
        self.tokens.borrow().get(&id).is_some()
    }

    /// Changes with every change of the tokens.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<AccessTokens>> {
        self.tokens.clone()
    }

    /// Makes a token. It is replicated when this returns, and valid on this node; the text is in this answer only.
    pub async fn create(&self, new: &NewToken) -> Result<(AccessToken, TokenText), TokenError> {
        let (token, text) = mint(new)?;
        let token = self.ledger.put_token(token).await?;
        self.applied_here(|tokens| tokens.get(&token.id).is_some()).await;
        Ok((token, text))
    }

    /// Every token in the order of their ids.
    pub fn list(&self) -> Vec<AccessToken> {
        self.tokens.borrow().iter().cloned().collect()
    }

    /// Revokes a token: calls that carry it are refused from now on, here at once and on other nodes as soon as they
    /// have applied it, and answers that are still being sent end.
    pub async fn revoke(&self, id: TokenId) -> Result<AccessToken, TokenError> {
        let revoked = self.ledger.revoke_token(id).await?;
        self.applied_here(|tokens| tokens.get(&id).is_none()).await;
        Ok(revoked)
    }

    /// The change is decided: a node that lags does not make it a failure.
    async fn applied_here(&self, is_applied: impl Fn(&AccessTokens) -> bool) {
        let mut tokens = self.tokens.clone();
        let _ = tokio::time::timeout(APPLIED_HERE_WAIT, tokens.wait_for(|tokens| is_applied(tokens))).await;
    }
}

fn mint(new: &NewToken) -> Result<(AccessToken, TokenText), TokenFileError> {
    let (id, text) = TokenText::mint().map_err(TokenFileError::Randomness)?;
    let actor = new.actor.clone().unwrap_or_else(|| actor_of(id));
    let token = AccessToken {
        id,
        sha256: secret::digest(text.expose()),
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
