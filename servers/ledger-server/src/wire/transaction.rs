//! Transactions and receipts.

use std::fmt::Display;

use bytes::Bytes;
use ledger_core::command::{OperationResult, Receipt};
use ledger_core::entity::EntityValue;
use ledger_core::transaction::{
    Action, AssertTarget, Condition, IdempotencyKey, OPERATIONS_MAX, Operation, Transaction,
};
use ledger_proto::v1;
use ledger_proto::v1::assert::Target;
use ledger_proto::v1::condition::Kind;
use ledger_proto::v1::operation::Action as WireAction;

use super::address::{entity_key, relationship};
use super::field::{AtField, BadField, EXPIRES_AT_MS_MAX, FieldFault, exact, required};

/// A transaction, every limit checked.
pub(crate) fn transaction(
    idempotency_key: &[u8],
    operations: Vec<v1::Operation>,
) -> Result<Transaction, BadField> {
    let key = IdempotencyKey::new(exact(idempotency_key, "idempotency_key")?).at("idempotency_key")?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        return Err(FieldFault::Entries { limit: OPERATIONS_MAX, given: operations.len() }).at("operations");
    }
    let operations = operations
        .into_iter()
        .enumerate()
        .map(|(index, operation)| self::operation(operation, format_args!("operations[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    Transaction::new(key, operations).at("operations")
}

fn operation(operation: v1::Operation, field: impl Display + Copy) -> Result<Operation, BadField> {
    let action = required(operation.action, format_args!("{field}.action"))?;
    let condition =
        operation.condition.map(|given| condition(given, format_args!("{field}.condition"))).transpose()?;
    Ok(Operation { action: self::action(action, field)?, condition })
}

fn action(action: WireAction, field: impl Display + Copy) -> Result<Action, BadField> {
    Ok(match action {
        WireAction::SetEntity(set) => Action::SetEntity {
            key: entity_key(set.key, format_args!("{field}.set_entity.key"))?,
            value: entity_value(set.value, format_args!("{field}.set_entity.value"))?,
            expires_at_ms: expiry(set.expires_at_ms, format_args!("{field}.set_entity.expires_at_ms"))?,
        },
        WireAction::DeleteEntity(delete) => {
            Action::DeleteEntity { key: entity_key(delete.key, format_args!("{field}.delete_entity.key"))? }
        }
        WireAction::CreateRelationship(tuple) => {
            Action::CreateRelationship(relationship(&tuple, format_args!("{field}.create_relationship"))?)
        }
        WireAction::DeleteRelationship(tuple) => {
            Action::DeleteRelationship(relationship(&tuple, format_args!("{field}.delete_relationship"))?)
        }
        WireAction::Assert(assert) => {
            Action::Assert(match required(assert.target, format_args!("{field}.assert.target"))? {
                Target::Key(key) => {
                    AssertTarget::Entity(entity_key(key, format_args!("{field}.assert.key"))?)
                }
                Target::Relationship(tuple) => AssertTarget::Relationship(relationship(
                    &tuple,
                    format_args!("{field}.assert.relationship"),
                )?),
            })
        }
    })
}

fn condition(condition: v1::Condition, field: impl Display + Copy) -> Result<Condition, BadField> {
    Ok(match required(condition.kind, format_args!("{field}.kind"))? {
        Kind::MustNotExist(true) => Condition::MustNotExist,
        Kind::MustNotExist(false) => {
            return Err(FieldFault::NotTrue).at(format_args!("{field}.must_not_exist"));
        }
        Kind::MustExist(true) => Condition::MustExist,
        Kind::MustExist(false) => return Err(FieldFault::NotTrue).at(format_args!("{field}.must_exist")),
        Kind::VersionEquals(version) => Condition::VersionEquals(version),
        Kind::ValueEquals(value) => {
            Condition::ValueEquals(entity_value(value, format_args!("{field}.value_equals"))?)
        }
    })
}

/// Times beyond the signed range are slips of a unit or a sign, and some languages cannot read them back.
fn expiry(expires_at_ms: u64, field: impl Display) -> Result<u64, BadField> {
    if expires_at_ms > EXPIRES_AT_MS_MAX {
        return Err(FieldFault::ExpiryTooLate { given: expires_at_ms }).at(field);
    }
    Ok(expires_at_ms)
}

fn entity_value(value: Bytes, field: impl Display) -> Result<EntityValue, BadField> {
    EntityValue::try_from(value).at(field)
}

/// The answer to a write.
pub(crate) fn write_answer(receipt: &Receipt) -> v1::WriteResponse {
    v1::WriteResponse {
        receipt: Some(receipt_answer(receipt)),
        results: receipt.results.iter().map(|result| result_answer(*result).into()).collect(),
        replayed: receipt.replayed,
    }
}

/// A receipt without its results.
pub(crate) fn receipt_answer(receipt: &Receipt) -> v1::Receipt {
    v1::Receipt {
        vault_id: Bytes::copy_from_slice(&receipt.vault.0),
        height: receipt.height,
        version: receipt.version,
        index_in_block: receipt.index_in_block,
        block_hash: Bytes::copy_from_slice(&receipt.block_hash),
        time_ms: receipt.time_ms,
    }
}

/// The caller's last transaction, when there is one.
pub(crate) fn client_state_answer(
    last: Option<(Receipt, IdempotencyKey)>,
    log_time_ms: u64,
) -> v1::GetClientStateResponse {
    let idempotency_key = match &last {
        Some((_, key)) => Bytes::copy_from_slice(key.as_bytes()),
        None => Bytes::new(),
    };
    let last = last.map(|(receipt, _)| receipt_answer(&receipt));
    v1::GetClientStateResponse { last, idempotency_key, log_time_ms }
}

fn result_answer(result: OperationResult) -> v1::OperationResult {
    match result {
        OperationResult::Created => v1::OperationResult::Created,
        OperationResult::AlreadyExists => v1::OperationResult::AlreadyExists,
        OperationResult::Updated => v1::OperationResult::Updated,
        OperationResult::Deleted => v1::OperationResult::Deleted,
        OperationResult::NotFound => v1::OperationResult::NotFound,
        OperationResult::Held => v1::OperationResult::Held,
    }
}
