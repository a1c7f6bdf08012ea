//! The canonical bytes of a transaction as a block's transaction tree hashes them.

use crate::error::DecodeError;
use crate::hash::SUITE_SHA256;
use crate::layout::{Reader, put_text, put_value};

/// Version of the layout.
pub const TRANSACTION_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"SRTX";
const WHAT: &str = "a transaction";

/// Result byte: the record did not exist and was written.
pub const RESULT_CREATED: u8 = 1;
/// Result byte: the relationship existed already; nothing changed.
pub const RESULT_ALREADY_EXISTS: u8 = 2;
/// Result byte: the entity existed and was overwritten.
pub const RESULT_UPDATED: u8 = 3;
/// Result byte: the record was removed.
pub const RESULT_DELETED: u8 = 4;
/// Result byte: there was nothing to remove.
pub const RESULT_NOT_FOUND: u8 = 5;
/// Result byte: the asserted condition held.
pub const RESULT_HELD: u8 = 6;

const SET_ENTITY: u8 = 1;
const DELETE_ENTITY: u8 = 2;
const EXPIRE_ENTITY: u8 = 3;
const CREATE_RELATIONSHIP: u8 = 4;
const DELETE_RELATIONSHIP: u8 = 5;
const ASSERT_ENTITY: u8 = 6;
const ASSERT_RELATIONSHIP: u8 = 7;

const NO_CONDITION: u8 = 0;
const MUST_NOT_EXIST: u8 = 1;
const MUST_EXIST: u8 = 2;
const VERSION_EQUALS: u8 = 3;
const VALUE_EQUALS: u8 = 4;

/// What stands before the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionHeader<'a> {
    /// The vault that the transaction writes.
    pub vault_id: [u8; 16],
    /// The transaction's number in its vault, from 1; the `version` of everything it writes.
    pub sequence: u64,
    /// Unix time in milliseconds at which it was proposed.
    pub time_ms: u64,
    /// The client's idempotency key, a UUIDv7.
    pub idempotency_key: [u8; 16],
    /// The authenticated caller.
    pub actor: &'a str,
    /// How many operations follow.
    pub operation_count: u16,
}

/// A resource, a relation and a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationshipRef<'a> {
    /// `type:id`.
    pub resource: &'a str,
    /// The relation.
    pub relation: &'a str,
    /// `type:id` or `type:id#relation`.
    pub subject: &'a str,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionRef<'a> {
    /// Writes an entity.
    SetEntity {
        /// Key of the entity.
        key: &'a str,
        /// The new value.
        value: &'a [u8],
        /// Unix time in milliseconds after which it is hidden; 0 = never.
        expires_at_ms: u64,
    },
    /// Removes an entity.
    DeleteEntity {
        /// Key of the entity.
        key: &'a str,
    },
    /// Removes an entity whose time is over; only the ledger itself writes this.
    ExpireEntity {
        /// Key of the entity.
        key: &'a str,
    },
    /// Writes a relationship.
    CreateRelationship(RelationshipRef<'a>),
    /// Removes a relationship.
    DeleteRelationship(RelationshipRef<'a>),
    /// Writes nothing: its condition must hold on the entity.
    AssertEntity {
        /// Key of the entity.
        key: &'a str,
    },
    /// Writes nothing: its condition must hold on the relationship.
    AssertRelationship(RelationshipRef<'a>),
}

/// What must hold for the whole transaction to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionRef<'a> {
    /// The record does not exist.
    MustNotExist,
    /// The record exists.
    MustExist,
    /// The record was last written by the transaction of this sequence number.
    VersionEquals(u64),
    /// The entity has exactly this value.
    ValueEquals(&'a [u8]),
}

/// One operation with the result it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRef<'a> {
    /// What it does.
    pub action: ActionRef<'a>,
    /// Its condition, if any.
    pub condition: Option<ConditionRef<'a>>,
    /// One of the `RESULT_` bytes.
    pub result: u8,
}

/// A decoded transaction that borrows from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionView<'a> {
    /// What stands before the operations.
    pub header: TransactionHeader<'a>,
    /// The operations in order.
    pub operations: Vec<OperationRef<'a>>,
}

/// Appends the canonical bytes of the header; `operation_count` operations must follow.
///
/// # Panics
/// When the actor is longer than its length field can say (65,535 bytes; the limit of actors is 128).
pub fn encode_header(out: &mut Vec<u8>, header: &TransactionHeader<'_>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&TRANSACTION_VERSION.to_be_bytes());
    out.extend_from_slice(&SUITE_SHA256.to_be_bytes());
    out.extend_from_slice(&header.vault_id);
    out.extend_from_slice(&header.sequence.to_be_bytes());
    out.extend_from_slice(&header.time_ms.to_be_bytes());
    out.extend_from_slice(&header.idempotency_key);
    put_text(out, header.actor);
    out.extend_from_slice(&header.operation_count.to_be_bytes());
}

/// Appends the canonical bytes of one operation.
///
/// # Panics
/// When a field is longer than its length field can say (65,535 bytes of text, 4 GiB of value; the limits of
/// the ledger lie far below).
pub fn encode_operation(out: &mut Vec<u8>, operation: &OperationRef<'_>) {
    match operation.action {
        ActionRef::SetEntity { key, value, expires_at_ms } => {
            out.push(SET_ENTITY);
            put_text(out, key);
            put_value(out, value);
            out.extend_from_slice(&expires_at_ms.to_be_bytes());
        }
        ActionRef::DeleteEntity { key } => put_keyed(out, DELETE_ENTITY, key),
        ActionRef::ExpireEntity { key } => put_keyed(out, EXPIRE_ENTITY, key),
        ActionRef::CreateRelationship(tuple) => put_tuple(out, CREATE_RELATIONSHIP, &tuple),
        ActionRef::DeleteRelationship(tuple) => put_tuple(out, DELETE_RELATIONSHIP, &tuple),
        ActionRef::AssertEntity { key } => put_keyed(out, ASSERT_ENTITY, key),
        ActionRef::AssertRelationship(tuple) => put_tuple(out, ASSERT_RELATIONSHIP, &tuple),
    }
    match operation.condition {
        None => out.push(NO_CONDITION),
        Some(ConditionRef::MustNotExist) => out.push(MUST_NOT_EXIST),
        Some(ConditionRef::MustExist) => out.push(MUST_EXIST),
        Some(ConditionRef::VersionEquals(version)) => {
            out.push(VERSION_EQUALS);
            out.extend_from_slice(&version.to_be_bytes());
        }
        Some(ConditionRef::ValueEquals(value)) => {
            out.push(VALUE_EQUALS);
            put_value(out, value);
        }
    }
    out.push(operation.result);
}

fn put_keyed(out: &mut Vec<u8>, kind: u8, key: &str) {
    out.push(kind);
    put_text(out, key);
}

fn put_tuple(out: &mut Vec<u8>, kind: u8, tuple: &RelationshipRef<'_>) {
    out.push(kind);
    put_text(out, tuple.resource);
    put_text(out, tuple.relation);
    put_text(out, tuple.subject);
}

/// Reads the canonical bytes; refuses unknown numbers, wrong lengths, text that is not UTF-8 and trailing bytes.
pub fn decode(bytes: &[u8]) -> Result<TransactionView<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.expect_magic(WHAT, MAGIC)?;
    reader.expect_u16("the transaction version", TRANSACTION_VERSION)?;
    reader.expect_u16("the transaction's hash suite", SUITE_SHA256)?;
    let header = TransactionHeader {
        vault_id: reader.array("the vault id")?,
        sequence: reader.u64("the sequence")?,
        time_ms: reader.u64("the time")?,
        idempotency_key: reader.array("the idempotency key")?,
        actor: reader.text("the actor")?,
        operation_count: reader.u16("the operation count")?,
    };
    // Not reserved ahead: the count is the input's claim, the bytes that follow are the fact.
    let mut operations = Vec::new();
    for _ in 0..header.operation_count {
        operations.push(decode_operation(&mut reader)?);
    }
    reader.finish(WHAT)?;
    Ok(TransactionView { header, operations })
}

fn decode_operation<'a>(reader: &mut Reader<'a>) -> Result<OperationRef<'a>, DecodeError> {
    let kind = reader.u8("the operation kind")?;
    let action = match kind {
        SET_ENTITY => ActionRef::SetEntity {
            key: reader.text("the key")?,
            value: reader.value("the value")?,
            expires_at_ms: reader.u64("the expiry")?,
        },
        DELETE_ENTITY => ActionRef::DeleteEntity { key: reader.text("the key")? },
        EXPIRE_ENTITY => ActionRef::ExpireEntity { key: reader.text("the key")? },
        CREATE_RELATIONSHIP => ActionRef::CreateRelationship(decode_tuple(reader)?),
        DELETE_RELATIONSHIP => ActionRef::DeleteRelationship(decode_tuple(reader)?),
        ASSERT_ENTITY => ActionRef::AssertEntity { key: reader.text("the key")? },
        ASSERT_RELATIONSHIP => ActionRef::AssertRelationship(decode_tuple(reader)?),
        given => return Err(DecodeError::Unknown { field: "the operation kind", given: given.into() }),
    };
    let condition = match reader.u8("the condition")? {
        NO_CONDITION => None,
        MUST_NOT_EXIST => Some(ConditionRef::MustNotExist),
        MUST_EXIST => Some(ConditionRef::MustExist),
        VERSION_EQUALS => Some(ConditionRef::VersionEquals(reader.u64("the condition's version")?)),
        VALUE_EQUALS => Some(ConditionRef::ValueEquals(reader.value("the condition's value")?)),
        given => return Err(DecodeError::Unknown { field: "the condition", given: given.into() }),
    };
    let result = reader.u8("the result")?;
    if !(RESULT_CREATED..=RESULT_HELD).contains(&result) {
        return Err(DecodeError::Unknown { field: "the result", given: result.into() });
    }
    Ok(OperationRef { action, condition, result })
}

fn decode_tuple<'a>(reader: &mut Reader<'a>) -> Result<RelationshipRef<'a>, DecodeError> {
    Ok(RelationshipRef {
        resource: reader.text("the resource")?,
        relation: reader.text("the relation")?,
        subject: reader.text("the subject")?,
    })
}
