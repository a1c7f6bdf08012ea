//! Access tokens: made, revoked, and never without an administrator.

use std::sync::Arc;

use super::{LedgerState, StateError};
use crate::access_token::{AccessToken, AccessTokens, TOKENS_MAX, TokenId};
use crate::codec;
use crate::command::AdminRefusal;
use crate::ports::Table;
use crate::rows;

type Answer = Result<Result<AccessToken, AdminRefusal>, StateError>;

impl LedgerState {
    /// The tokens as of the newest entry. Another `Arc` with every change.
    pub fn tokens(&self) -> &Arc<AccessTokens> {
        &self.tokens
    }

    /// The same command twice is answered twice in the same way: whoever sent it may not have got the first answer.
    pub(super) fn put_token(&mut self, token: &AccessToken) -> Answer {
        match self.tokens.get(&token.id) {
            Some(known) if known == token => return Ok(Ok(token.clone())),
            Some(_) => return Ok(Err(AdminRefusal::TokenIdUsed(token.id))),
            None if self.tokens.len() >= TOKENS_MAX => return Ok(Err(AdminRefusal::TooManyTokens)),
            None => {}
        }
        self.store_token(token)?;
        Ok(Ok(token.clone()))
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Answer {
        let Some(token) = self.tokens.get(&id).cloned() else {
            return Ok(Err(AdminRefusal::TokenNotFound(id)));
        };
        let others_administer =
            || self.tokens.iter().any(|other| other.id != id && other.is_admin_of_everything());
        if token.is_admin_of_everything() && !others_administer() {
            return Ok(Err(AdminRefusal::LastAdminToken(id)));
        }
        Arc::make_mut(&mut self.tokens).remove(&id);
        self.overlay.delete(Table::Ledger, rows::token_key(id));
        Ok(Ok(token))
    }

    /// Takes the first tokens of a ledger; answers whether it had none before.
    pub(super) fn first_tokens(&mut self, tokens: &[AccessToken]) -> Result<bool, StateError> {
        if !self.tokens.is_empty() {
            return Ok(false);
        }
        for token in tokens.iter().take(TOKENS_MAX) {
            self.store_token(token)?;
        }
        Ok(true)
    }

    fn store_token(&mut self, token: &AccessToken) -> Result<(), StateError> {
        let row = codec::encode("a token row", token)?;
        self.overlay.put(Table::Ledger, rows::token_key(token.id), row);
        Arc::make_mut(&mut self.tokens).insert(token.clone());
        Ok(())
    }
}
