//! Names, keys and tuples.

use std::fmt::Display;

use ledger_core::entity::EntityKey;
use ledger_core::names::{NamespaceName, VaultName, VaultRef};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_proto::v1;

use super::field::{AtField, BadField, required};

/// The vault that a request addresses. Services do not call this: [`crate::access::Caller::vault`] does, and
/// checks that the caller may touch it.
pub(crate) fn vault_ref(vault: Option<v1::VaultRef>) -> Result<VaultRef, BadField> {
    let vault = required(vault, "vault")?;
    Ok(VaultRef {
        namespace: NamespaceName::new(&vault.namespace).at("vault.namespace")?,
        vault: VaultName::new(&vault.vault).at("vault.vault")?,
    })
}

/// A namespace by name.
pub(crate) fn namespace(name: &str, field: impl Display) -> Result<NamespaceName, BadField> {
    NamespaceName::new(name).at(field)
}

/// An entity key; takes the string over.
pub(crate) fn entity_key(key: String, field: impl Display) -> Result<EntityKey, BadField> {
    EntityKey::try_from(key).at(field)
}

/// A prefix of entity keys: empty, or what an entity key could begin with.
pub(crate) fn key_prefix(prefix: String, field: impl Display) -> Result<String, BadField> {
    if prefix.is_empty() {
        return Ok(prefix);
    }
    entity_key(prefix, field).map(String::from)
}

/// A tuple at the path `field`.
pub(crate) fn relationship(tuple: &v1::Relationship, field: impl Display) -> Result<Relationship, BadField> {
    Ok(Relationship {
        resource: Resource::new(&tuple.resource).at(format_args!("{field}.resource"))?,
        relation: Relation::new(&tuple.relation).at(format_args!("{field}.relation"))?,
        subject: Subject::new(&tuple.subject).at(format_args!("{field}.subject"))?,
    })
}

pub(crate) fn vault_ref_answer(vault: &VaultRef) -> v1::VaultRef {
    v1::VaultRef { namespace: vault.namespace.to_string(), vault: vault.vault.to_string() }
}

pub(crate) fn relationship_answer(tuple: Relationship) -> v1::Relationship {
    v1::Relationship {
        resource: tuple.resource.into(),
        relation: tuple.relation.into(),
        subject: tuple.subject.into(),
    }
}
