//! Tokens, roles and scopes.

use ledger_core::access_token::AccessToken;
use ledger_core::transaction::Actor;
use ledger_proto::v1;

use super::field::{AtField, BadField, FieldFault};
use crate::access::{Role, Scope};
use crate::tokens::{NewToken, TokenId};

/// A request for a token, made at `now_ms`.
pub(crate) fn new_token(request: &v1::CreateTokenRequest, now_ms: u64) -> Result<NewToken, BadField> {
    Ok(NewToken {
        role: role(request.role)?,
        scope: request.scope.parse::<Scope>().at("scope")?,
        actor: actor(&request.actor)?,
        created_at_ms: now_ms,
    })
}

/// A token's id.
pub(crate) fn token_id(text: &str) -> Result<TokenId, BadField> {
    text.parse().map_err(|_| FieldFault::TokenId).at("id")
}

fn role(given: i32) -> Result<Role, BadField> {
    match v1::Role::try_from(given) {
        Ok(v1::Role::Reader) => Ok(Role::Reader),
        Ok(v1::Role::Writer) => Ok(Role::Writer),
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Unspecified) => Err(FieldFault::Missing).at("role"),
        Err(_) => Err(FieldFault::EnumValue { given }).at("role"),
    }
}

fn actor(given: &str) -> Result<Option<Actor>, BadField> {
    if given.is_empty() {
        return Ok(None);
    }
    let actor = Actor::new(given).at("actor")?;
    if actor.as_str().starts_with("system:") {
        return Err(FieldFault::ActorReserved).at("actor");
    }
    Ok(Some(actor))
}

/// A token as it is listed.
pub(crate) fn token_answer(token: &AccessToken) -> v1::Token {
    let role = match token.role {
        Role::Reader => v1::Role::Reader,
        Role::Writer => v1::Role::Writer,
        Role::Admin => v1::Role::Admin,
    };
    v1::Token {
        id: token.id.to_string(),
        role: role.into(),
        scope: token.scope.to_string(),
        actor: token.actor.as_str().to_owned(),
        created_at_ms: token.created_at_ms,
    }
}
