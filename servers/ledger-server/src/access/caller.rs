//! Who calls.

use ledger_core::names::VaultRef;
use ledger_core::transaction::Actor;
use ledger_proto::v1;
use tonic::Status;

use super::{Role, Scope};
use crate::errors;
use crate::wire::address;

/// The authenticated caller: put into the request's extensions by the access layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The author of what the caller writes.
    pub actor: Actor,
    /// What it may do.
    pub role: Role,
    /// Where it may do it.
    pub scope: Scope,
}

impl Caller {
    /// The caller of a request. Without the access layer in front nobody is authenticated and every call is
    /// refused.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(errors::credential_missing)
    }

    /// The vault that a request addresses, when it lies in the caller's scope. A vault outside of it is refused
    /// whether it exists or not.
    pub(crate) fn vault(&self, vault: Option<v1::VaultRef>) -> Result<VaultRef, Status> {
        let vault = address::vault_ref(vault)?;
        if self.scope.covers(&vault) { Ok(vault) } else { Err(errors::outside_scope(&self.scope, &vault)) }
    }
}
