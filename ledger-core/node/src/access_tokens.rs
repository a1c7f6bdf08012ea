//! Access tokens: replicated, so that every node of the ledger knows who may do what.

use std::sync::Arc;

use ledger_core::access_token::{AccessToken, AccessTokens, TokenId};
use ledger_core::command::{Command, Outcome};
use tokio::sync::watch;

use crate::errors::AdminError;
use crate::ledger::{Ledger, unexpected};

impl Ledger {
    /// The tokens as this node has applied them; changes with each of their changes.
    pub fn access_tokens(&self) -> watch::Receiver<Arc<AccessTokens>> {
        self.shared.handles.ledger.tokens()
    }

    /// Makes a token valid, on this node as soon as it applies the entry. The same token again is answered in the
    /// same way, so that it can be repeated after an unknown outcome.
    pub async fn put_token(&self, token: AccessToken) -> Result<AccessToken, AdminError> {
        self.token_command(Command::PutToken { token }).await
    }

    /// Makes a token invalid; answers what it was.
    pub async fn revoke_token(&self, id: TokenId) -> Result<AccessToken, AdminError> {
        self.token_command(Command::RevokeToken { id }).await
    }

    /// Makes these tokens valid when the ledger has none yet; answers whether it had none.
    pub async fn first_tokens(&self, tokens: Vec<AccessToken>) -> Result<bool, AdminError> {
        match self.admin_command(Command::FirstTokens { tokens }).await? {
            Some(Outcome::FirstTokens(taken)) => Ok(taken),
            other => Err(unexpected(other.as_ref())),
        }
    }

    async fn token_command(&self, command: Command) -> Result<AccessToken, AdminError> {
        match self.admin_command(command).await? {
            Some(Outcome::Token(outcome)) => Ok(outcome?),
            other => Err(unexpected(other.as_ref())),
        }
    }
}
