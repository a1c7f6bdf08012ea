//! From the canonical transactions of a block back to what was asked for.

use bytes::Bytes;
use ledger_verify::transaction::{self, ActionRef, ConditionRef, RelationshipRef};

use super::error::BackupError;
use crate::command::Submission;
use crate::entity::{EntityKey, EntityValue};
use crate::names::VaultId;
use crate::relationship::{Relation, Relationship, Resource, Subject};
use crate::transaction::{Action, Actor, AssertTarget, Condition, IdempotencyKey, Operation, Transaction};

/// What a client asked for, of the transaction that a block holds. Every value passes the constructor that it passed
/// when it was written.
pub(super) fn submission(bytes: &Bytes) -> Result<Submission, BackupError> {
    let refused = |what: String| BackupError::inconsistent(format!("a transaction is none: {what}"));
    let view = transaction::decode(bytes).map_err(|error| refused(error.to_string()))?;
    let actor = Actor::new(view.header.actor).map_err(|error| refused(error.to_string()))?;
    let key = IdempotencyKey::new(view.header.idempotency_key).map_err(|error| refused(error.to_string()))?;
    let operations: Option<Vec<Operation>> = view
        .operations
        .iter()
        .map(|operation| {
            let condition = operation.condition.as_ref().map(condition);
            let condition = match condition {
                Some(None) => return None,
                Some(Some(condition)) => Some(condition),
                None => None,
            };
            Some(Operation { action: action(&operation.action)?, condition })
        })
        .collect();
    let operations = operations.ok_or_else(|| refused("an operation breaks a limit".to_owned()))?;
    let transaction = Transaction::new(key, operations).map_err(|error| refused(error.to_string()))?;
    Ok(Submission { vault: VaultId(view.header.vault_id), actor, transaction })
}

fn action(action: &ActionRef<'_>) -> Option<Action> {
    Some(match *action {
        ActionRef::SetEntity { key, value, expires_at_ms } => {
            Action::SetEntity { key: entity_key(key)?, value: entity_value(value)?, expires_at_ms }
        }
        ActionRef::DeleteEntity { key } => Action::DeleteEntity { key: entity_key(key)? },
        ActionRef::ExpireEntity { key } => Action::ExpireEntity { key: entity_key(key)? },
        ActionRef::CreateRelationship(tuple) => Action::CreateRelationship(relationship(&tuple)?),
        ActionRef::DeleteRelationship(tuple) => Action::DeleteRelationship(relationship(&tuple)?),
        ActionRef::AssertEntity { key } => Action::Assert(AssertTarget::Entity(entity_key(key)?)),
        ActionRef::AssertRelationship(tuple) => {
            Action::Assert(AssertTarget::Relationship(relationship(&tuple)?))
        }
    })
}

fn condition(condition: &ConditionRef<'_>) -> Option<Condition> {
    Some(match *condition {
        ConditionRef::MustNotExist => Condition::MustNotExist,
        ConditionRef::MustExist => Condition::MustExist,
        ConditionRef::VersionEquals(version) => Condition::VersionEquals(version),
        ConditionRef::ValueEquals(value) => Condition::ValueEquals(entity_value(value)?),
    })
}

fn entity_key(key: &str) -> Option<EntityKey> {
    EntityKey::new(key).ok()
}

fn entity_value(value: &[u8]) -> Option<EntityValue> {
    EntityValue::new(Bytes::copy_from_slice(value)).ok()
}

fn relationship(tuple: &RelationshipRef<'_>) -> Option<Relationship> {
    Some(Relationship {
        resource: Resource::new(tuple.resource).ok()?,
        relation: Relation::new(tuple.relation).ok()?,
        subject: Subject::new(tuple.subject).ok()?,
    })
}
