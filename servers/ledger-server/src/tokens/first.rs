//! The first tokens of a ledger: those of an earlier release's file, or one administrator's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_core::access_token::AccessToken;
use ledger_core::transaction::Actor;
use ledger_node::AdminError;

use super::error::{TokenError, TokenFileError};
use super::secret::TokenText;
use super::{ADMIN_TOKEN_FILE, NewToken, TokenRegistry, file, mint};
use crate::access::{Role, Scope};

/// Tokens of an earlier release.
const TOKENS_FILE: &str = "tokens";
/// The same once they are in the ledger.
const IMPORTED_FILE: &str = "tokens.imported";
/// Whoever can write here wants a new administrator's token, because the others are lost.
const WANTED_FILE: &str = "admin.token.wanted";
const FIRST_ADMIN_ACTOR: &str = "client:admin";
/// How often a node looks whether it leads now, while a ledger has no tokens.
const LEAD_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often the token that is wanted is tried for: ten seconds.
const WANTED_TRIES_MAX: u32 = 100;

impl TokenRegistry {
    /// Waits until the ledger has tokens. When it has none, the node that leads makes them: from the file `tokens` of
    /// an earlier release, which is kept as `tokens.imported`, or by minting one administrator's token, made at
    /// `now_ms` (unix milliseconds), into `admin.token`. A file `admin.token.wanted` has another one minted.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written, or the ledger stops.
    pub async fn ensure_first(&self, now_ms: u64) -> Result<(), TokenError> {
        let wanted = self.directory.join(WANTED_FILE);
        let mut minted = None;
        let mut tokens = self.tokens.clone();
        while tokens.borrow_and_update().is_empty() {
            if self.ledger.node_info().is_leader {
                match self.make_first(&mut minted, now_ms).await {
                    Ok(()) => continue,
                    // The tokens may come all the same, from here or from another leader.
                    Err(error) if passes(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            // A sender that is gone means that the ledger stops, which its owner notices.
            let _ = tokio::time::timeout(LEAD_POLL_INTERVAL, tokens.changed()).await;
        }
        if exists(&wanted) {
            self.mint_wanted(wanted, now_ms).await?;
        }
        self.settle_files(minted).await
    }

    async fn make_first(&self, minted: &mut Option<AccessToken>, now_ms: u64) -> Result<(), TokenError> {
        let path = self.directory.join(TOKENS_FILE);
        let of_file = blocking(move || file::read_tokens(&path)).await?;
        let first = match (of_file, &minted) {
            (Some(tokens), _) => tokens,
            (None, Some(token)) => vec![token.clone()],
            (None, None) => {
                let (token, text) = mint_admin(now_ms)?;
                // The secret first: after a crash in between the next start mints another one over it. The other way
                // round nobody would have a token.
                self.write_admin_token(text).await?;
                vec![minted.insert(token).clone()]
            }
        };
        self.ledger.first_tokens(first).await?;
        Ok(())
    }

    async fn mint_wanted(&self, wanted: PathBuf, now_ms: u64) -> Result<(), TokenError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.mint_further(now_ms).await {
                Ok(()) => return Ok(remove(wanted).await?),
                Err(error) if passes(&error) && tries < WANTED_TRIES_MAX => {
                    // Right after a start nobody leads yet.
                    tokio::time::sleep(LEAD_POLL_INTERVAL).await;
                }
                Err(error) if passes(&error) => {
                    tracing::warn!(%error, "no administrator's token was minted: start again to try again");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn mint_further(&self, now_ms: u64) -> Result<(), TokenError> {
        let (token, text) = mint_admin(now_ms)?;
        let id = token.id;
        // The secret first, as above.
        self.write_admin_token(text).await?;
        self.ledger.put_token(token).await?;
        self.applied_here(|tokens| tokens.get(&id).is_some()).await;
        tracing::info!(token = %id, "a new administrator's token was minted into admin.token, as admin.token.wanted asked");
        Ok(())
    }

    async fn write_admin_token(&self, text: TokenText) -> Result<(), TokenFileError> {
        let path = self.directory.join(ADMIN_TOKEN_FILE);
        blocking(move || file::replace(&path, format!("{}\n", text.expose()).as_bytes())).await
    }

    /// Puts away the file of an earlier release, and a token that another node's came before.
    async fn settle_files(&self, minted: Option<AccessToken>) -> Result<(), TokenError> {
        let (from, to) = (self.directory.join(TOKENS_FILE), self.directory.join(IMPORTED_FILE));
        if exists(&from) {
            blocking(move || file::rename(&from, &to)).await?;
            tracing::info!(
                "the tokens are in the ledger now; the file `tokens` is kept as `tokens.imported`"
            );
        }
        if minted.is_some_and(|token| !self.holds(token.id)) {
            remove(self.directory.join(ADMIN_TOKEN_FILE)).await?;
        }
        Ok(())
    }
}

/// No leader, or too much work.
fn passes(error: &TokenError) -> bool {
    use AdminError::{NoLeader, Overloaded, Unavailable};
    matches!(error, TokenError::Ledger(NoLeader { .. } | Overloaded { .. } | Unavailable { .. }))
}

fn mint_admin(now_ms: u64) -> Result<(AccessToken, TokenText), TokenFileError> {
    let actor = Actor::new(FIRST_ADMIN_ACTOR).ok();
    mint(&NewToken { role: Role::Admin, scope: Scope::Everything, actor, created_at_ms: now_ms })
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

async fn remove(path: PathBuf) -> Result<(), TokenFileError> {
    blocking(move || match std::fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(TokenFileError::Io { action: "remove", path, source })
        }
        _ => Ok(()),
    })
    .await
}

/// Waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenFileError> + Send + 'static,
) -> Result<T, TokenFileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => Err(TokenFileError::Io {
            action: "reach",
            path: PathBuf::from("a thread"),
            source: std::io::Error::other(stopped),
        }),
    }
}
