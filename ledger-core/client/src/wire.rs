//! Between the ledger's types and the protocol's.

use bytes::Bytes;
use ledger_core::command::{OperationResult, Receipt};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, AssertTarget, Condition, Operation};
use ledger_proto::v1;
use ledger_verify::Hash;

use crate::error::ClientError;

pub(crate) fn vault_ref(vault: &VaultRef) -> Option<v1::VaultRef> {
    Some(v1::VaultRef {
        namespace: vault.namespace.as_str().to_owned(),
        vault: vault.vault.as_str().to_owned(),
    })
}

pub(crate) fn relationship(tuple: &Relationship) -> v1::Relationship {
    v1::Relationship {
        resource: tuple.resource.as_str().to_owned(),
        relation: tuple.relation.as_str().to_owned(),
        subject: tuple.subject.as_str().to_owned(),
    }
}

pub(crate) fn relationship_from(tuple: &v1::Relationship) -> Result<Relationship, ClientError> {
    let malformed = |_| ClientError::Answer { what: "a relationship" };
    Ok(Relationship {
        resource: Resource::new(&tuple.resource).map_err(malformed)?,
        relation: Relation::new(&tuple.relation).map_err(malformed)?,
        subject: Subject::new(&tuple.subject).map_err(malformed)?,
    })
}

pub(crate) fn entity_from(entity: v1::Entity) -> Result<(EntityKey, Entity), ClientError> {
    let key = EntityKey::try_from(entity.key).map_err(|_| ClientError::Answer { what: "an entity key" })?;
    let v1::Entity { value, version, modified_height, expires_at_ms, .. } = entity;
    Ok((key, Entity { value, version, modified_height, expires_at_ms }))
}

pub(crate) fn operation(operation: &Operation) -> Result<v1::Operation, ClientError> {
    use v1::operation::Action as Wire;
    let action = match &operation.action {
        Action::SetEntity { expires_at_ms, .. } if i64::try_from(*expires_at_ms).is_err() => {
            return Err(ClientError::Argument {
                what: format!("an expiry is at most {} (unix milliseconds), not {expires_at_ms}", i64::MAX),
            });
        }
        Action::SetEntity { key, value, expires_at_ms } => Wire::SetEntity(v1::SetEntity {
            key: key.as_str().to_owned(),
            value: value.clone().into_bytes(),
            expires_at_ms: *expires_at_ms,
        }),
        Action::DeleteEntity { key } => Wire::DeleteEntity(v1::DeleteEntity { key: key.as_str().to_owned() }),
        Action::ExpireEntity { .. } => {
            return Err(ClientError::Argument {
                what: "only the ledger itself expires entities: delete it".to_owned(),
            });
        }
        Action::CreateRelationship(tuple) => Wire::CreateRelationship(relationship(tuple)),
        Action::DeleteRelationship(tuple) => Wire::DeleteRelationship(relationship(tuple)),
        Action::Assert(AssertTarget::Entity(key)) => {
            Wire::Assert(v1::Assert { target: Some(v1::assert::Target::Key(key.as_str().to_owned())) })
        }
        Action::Assert(AssertTarget::Relationship(tuple)) => {
            Wire::Assert(v1::Assert { target: Some(v1::assert::Target::Relationship(relationship(tuple))) })
        }
    };
    Ok(v1::Operation { action: Some(action), condition: operation.condition.as_ref().map(condition) })
}

fn condition(condition: &Condition) -> v1::Condition {
    use v1::condition::Kind;
    let kind = match condition {
        Condition::MustNotExist => Kind::MustNotExist(true),
        Condition::MustExist => Kind::MustExist(true),
        Condition::VersionEquals(version) => Kind::VersionEquals(*version),
        Condition::ValueEquals(value) => Kind::ValueEquals(value.clone().into_bytes()),
    };
    v1::Condition { kind: Some(kind) }
}

pub(crate) fn receipt_from(
    receipt: Option<v1::Receipt>,
    results: &[i32],
    replayed: bool,
) -> Result<Receipt, ClientError> {
    let receipt = receipt.ok_or(ClientError::Answer { what: "a write without a receipt" })?;
    Ok(Receipt {
        vault: VaultId(id_from(&receipt.vault_id, "the receipt's vault id")?),
        height: receipt.height,
        version: receipt.version,
        index_in_block: receipt.index_in_block,
        block_hash: hash_from(&receipt.block_hash, "the receipt's block hash")?,
        time_ms: receipt.time_ms,
        results: results.iter().map(|number| result_from(*number)).collect::<Result<_, _>>()?,
        replayed,
    })
}

fn result_from(number: i32) -> Result<OperationResult, ClientError> {
    use v1::OperationResult as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Created) => Ok(OperationResult::Created),
        Ok(Wire::AlreadyExists) => Ok(OperationResult::AlreadyExists),
        Ok(Wire::Updated) => Ok(OperationResult::Updated),
        Ok(Wire::Deleted) => Ok(OperationResult::Deleted),
        Ok(Wire::NotFound) => Ok(OperationResult::NotFound),
        Ok(Wire::Held) => Ok(OperationResult::Held),
        Ok(Wire::Unspecified) | Err(_) => Err(ClientError::Answer { what: "an operation's result" }),
    }
}

pub(crate) fn id_from(bytes: &[u8], what: &'static str) -> Result<[u8; 16], ClientError> {
    <[u8; 16]>::try_from(bytes).map_err(|_| ClientError::Answer { what })
}

pub(crate) fn hash_from(bytes: &[u8], what: &'static str) -> Result<Hash, ClientError> {
    Hash::try_from(bytes).map_err(|_| ClientError::Answer { what })
}

pub(crate) fn hashes_from(list: &[Bytes], what: &'static str) -> Result<Vec<Hash>, ClientError> {
    list.iter().map(|bytes| hash_from(bytes, what)).collect()
}
