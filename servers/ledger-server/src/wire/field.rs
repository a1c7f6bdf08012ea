//! What can be wrong with a field of a request.

use std::fmt;

use ledger_core::entity::{EntityKeyError, EntityValueError};
use ledger_core::names::NameError;
use ledger_core::relationship::RelationshipError;
use ledger_core::transaction::{ActorError, IdempotencyKeyError, TransactionError};

use ledger_node::peers::IdentityError;

use super::paging::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::access::ScopeError;
use crate::reason::Reason;

/// Latest expiry of an entity, unix milliseconds: the largest signed 64-bit number.
pub const EXPIRES_AT_MS_MAX: u64 = i64::MAX as u64;

/// A field was refused: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct BadField {
    /// Path of the field, such as `operations[3].set_entity.key`.
    pub field: String,
    /// What is wrong with it.
    pub fault: FieldFault,
}

impl BadField {
    /// The reason for programs.
    pub fn reason(&self) -> Reason {
        match &self.fault {
            FieldFault::Transaction(TransactionError::TooLarge { .. }) => Reason::TransactionTooLarge,
            FieldFault::PageTokenMalformed => Reason::PageTokenMalformed,
            FieldFault::PageTokenMismatch => Reason::PageTokenMismatch,
            _ => Reason::InvalidArgument,
        }
    }
}

/// Why a field was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldFault {
    /// The field, or each of a choice of fields, is absent.
    #[error("is missing")]
    Missing,
    /// A namespace or vault name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entity key.
    #[error(transparent)]
    EntityKey(#[from] EntityKeyError),
    /// An entity value.
    #[error(transparent)]
    EntityValue(#[from] EntityValueError),
    /// A part of a relationship.
    #[error(transparent)]
    Relationship(#[from] RelationshipError),
    /// An idempotency key of the right length that is no UUIDv7.
    #[error(transparent)]
    IdempotencyKey(#[from] IdempotencyKeyError),
    /// A transaction as a whole.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// An actor.
    #[error(transparent)]
    Actor(#[from] ActorError),
    /// An actor that only the ledger itself may be.
    #[error("system: actors are the ledger's own; write user:ID or client:ID")]
    ActorReserved,
    /// A token's scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// A token's id.
    #[error("a token id is 16 lower-case hex digits")]
    TokenId,
    /// The name of a node.
    #[error(transparent)]
    NodeName(#[from] IdentityError),
    /// A byte string with another length than it must have.
    #[error("has {expected} bytes, this one has {given}")]
    Length {
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// A list that is empty or too long.
    #[error("has 1 to {limit} entries, this one has {given}")]
    Entries {
        /// Most entries.
        limit: usize,
        /// Entries given.
        given: usize,
    },
    /// A page size out of range.
    #[error("is 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}; {given} is not")]
    PageSize {
        /// What was given.
        given: u32,
    },
    /// An id that names two calls at once.
    #[error("names one call at a time; {given} is under way")]
    IdUnderWay {
        /// What was given.
        given: u64,
    },
    /// A number that the enumeration does not have.
    #[error("{given} is not one of its values")]
    EnumValue {
        /// What was given.
        given: i32,
    },
    /// A condition that says the opposite of what it is called.
    #[error("must be true: leave the condition out when it need not hold, or give the opposite one")]
    NotTrue,
    /// A time beyond what signed numbers hold.
    #[error("is at most {EXPIRES_AT_MS_MAX} (unix milliseconds), 0 for never; {given} is not")]
    ExpiryTooLate {
        /// What was given.
        given: u64,
    },
    /// An index behind the last one.
    #[error("is at most {last}; {given} is not")]
    IndexAhead {
        /// The largest that is accepted.
        last: u64,
        /// What was given.
        given: u64,
    },
    /// A page token that this ledger did not make.
    #[error(
        "is not a page token of this ledger: use next_page_token of the last answer unchanged, or leave it empty"
    )]
    PageTokenMalformed,
    /// A page token of another query.
    #[error(
        "belongs to a request with other fields: keep them the same from page to page, or leave the token empty"
    )]
    PageTokenMismatch,
}

/// Names the field that an error is about. The path is written out only when there is an error.
pub(crate) trait AtField<T> {
    /// The error with the path of its field.
    fn at(self, field: impl fmt::Display) -> Result<T, BadField>;
}

impl<T, E: Into<FieldFault>> AtField<T> for Result<T, E> {
    fn at(self, field: impl fmt::Display) -> Result<T, BadField> {
        self.map_err(|fault| BadField { field: field.to_string(), fault: fault.into() })
    }
}

/// The value of a field that must be there.
pub(crate) fn required<T>(value: Option<T>, field: impl fmt::Display) -> Result<T, BadField> {
    value.ok_or(FieldFault::Missing).at(field)
}

/// A byte string of exactly `N` bytes.
pub(crate) fn exact<const N: usize>(bytes: &[u8], field: impl fmt::Display) -> Result<[u8; N], BadField> {
    let wrong_length = |_| FieldFault::Length { expected: N, given: bytes.len() };
    bytes.try_into().map_err(wrong_length).at(field)
}
