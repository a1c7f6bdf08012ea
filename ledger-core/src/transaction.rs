//! What a client asks for: operations with conditions, under one idempotency key.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entity::{EntityKey, EntityValue};
use crate::relationship::Relationship;

/// Most operations in one transaction.
pub const OPERATIONS_MAX: usize = 1_000;
/// Largest encoded transaction, in bytes (4 MiB), keys, values and framing included.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1_048_576;
/// Longest actor, in bytes.
pub const ACTOR_BYTES_MAX: usize = 128;

/// Who wrote: the authenticated caller, such as `client:ci`, or the node itself, `system:gc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Actor(Box<str>);

/// An actor was refused at construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an actor is written user:ID, client:ID or system:ID in at most {ACTOR_BYTES_MAX} visible characters; {given:?} is not"
)]
pub struct ActorError {
    /// What was given.
    pub given: String,
}

impl Actor {
    /// Checks the prefix, the length and that every character is visible ASCII.
    pub fn new(text: &str) -> Result<Self, ActorError> {
        let kind_and_id = text.split_once(':');
        let well_formed = matches!(kind_and_id, Some(("user" | "client" | "system", id)) if !id.is_empty())
            && text.len() <= ACTOR_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic());
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(ActorError { given: text.chars().take(80).collect() })
        }
    }

    /// The actor of garbage collection.
    pub fn garbage_collector() -> Self {
        Self("system:gc".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Actor {
    type Error = ActorError;
    fn try_from(text: String) -> Result<Self, ActorError> {
        Self::new(&text)
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> String {
        actor.0.into()
    }
}

/// A key that is not a UUID of version 7 (RFC 9562).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is a UUID of version 7 (RFC 9562), 16 bytes")]
pub struct IdempotencyKeyError;

/// A UUIDv7 that names one attempt to write, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 16]", into = "[u8; 16]")]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// Checks version and variant.
    pub fn new(bytes: [u8; 16]) -> Result<Self, IdempotencyKeyError> {
        let uuid = Uuid::from_bytes(bytes);
        let version_7 = uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122;
        if version_7 { Ok(Self(bytes)) } else { Err(IdempotencyKeyError) }
    }

    /// Composes a key from unix milliseconds (48 bits are kept) and 10 bytes of randomness.
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        let time = unix_ms.to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&time[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key's own time, unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl TryFrom<[u8; 16]> for IdempotencyKey {
    type Error = IdempotencyKeyError;
    fn try_from(bytes: [u8; 16]) -> Result<Self, IdempotencyKeyError> {
        Self::new(bytes)
    }
}

impl From<IdempotencyKey> for [u8; 16] {
    fn from(key: IdempotencyKey) -> [u8; 16] {
        key.0
    }
}

impl std::fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

/// What must hold for the key that an operation touches, or the whole transaction is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The key or tuple must not exist.
    MustNotExist,
    /// The key or tuple must exist.
    MustExist,
    /// The key or tuple must exist with this version.
    VersionEquals(u64),
    /// The entity must exist with exactly this value; never holds for a relationship.
    ValueEquals(EntityValue),
}

/// A key that a condition can be asserted on without writing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssertTarget {
    /// An entity key.
    Entity(EntityKey),
    /// A relationship tuple.
    Relationship(Relationship),
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Creates or replaces an entity.
    SetEntity {
        /// Its key.
        key: EntityKey,
        /// Its value.
        value: EntityValue,
        /// Unix milliseconds after which it is hidden; 0 = never.
        expires_at_ms: u64,
    },
    /// Deletes an entity.
    DeleteEntity {
        /// Its key.
        key: EntityKey,
    },
    /// Deletes an entity whose expiry has passed. Only garbage collection (`system:gc`) may ask for it.
    ExpireEntity {
        /// Its key.
        key: EntityKey,
    },
    /// Creates a tuple.
    CreateRelationship(Relationship),
    /// Deletes a tuple.
    DeleteRelationship(Relationship),
    /// Checks the condition and writes nothing.
    Assert(AssertTarget),
}

/// An action with its condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What to do.
    pub action: Action,
    /// What must hold first.
    pub condition: Option<Condition>,
}

/// A transaction was refused at construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// No operation at all.
    #[error("a transaction has at least one operation")]
    Empty,
    /// More than [`OPERATIONS_MAX`].
    #[error("a transaction has at most {OPERATIONS_MAX} operations, this one has {count}")]
    TooManyOperations {
        /// Operations given.
        count: usize,
    },
    /// More than [`TRANSACTION_BYTES_MAX`].
    #[error(
        "an encoded transaction has at most {TRANSACTION_BYTES_MAX} bytes (4 MiB), this one has {length}"
    )]
    TooLarge {
        /// Encoded bytes.
        length: usize,
    },
    /// An assertion that asserts nothing.
    #[error("operation {op_index} is an assertion without a condition")]
    AssertWithoutCondition {
        /// Index in the transaction.
        op_index: usize,
    },
}

/// A checked list of operations, all or nothing, in order, on one vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedTransaction")]
pub struct Transaction {
    idempotency_key: IdempotencyKey,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct UncheckedTransaction {
    idempotency_key: IdempotencyKey,
    operations: Vec<Operation>,
}

impl TryFrom<UncheckedTransaction> for Transaction {
    type Error = TransactionError;
    fn try_from(raw: UncheckedTransaction) -> Result<Self, TransactionError> {
        Self::new(raw.idempotency_key, raw.operations)
    }
}

impl Transaction {
    /// Checks the number of operations, their encoded size and that every assertion asserts something.
    pub fn new(
        idempotency_key: IdempotencyKey,
        operations: Vec<Operation>,
    ) -> Result<Self, TransactionError> {
        if operations.is_empty() {
            return Err(TransactionError::Empty);
        }
        if operations.len() > OPERATIONS_MAX {
            return Err(TransactionError::TooManyOperations { count: operations.len() });
        }
        let unconditional = |o: &Operation| matches!(o.action, Action::Assert(_)) && o.condition.is_none();
        if let Some(op_index) = operations.iter().position(unconditional) {
            return Err(TransactionError::AssertWithoutCondition { op_index });
        }
        let transaction = Self { idempotency_key, operations };
        let length = transaction.encoded_bytes_max();
        if length > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLarge { length });
        }
        Ok(transaction)
    }

    /// The idempotency key.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.idempotency_key
    }

    /// The operations in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Upper bound of the canonical encoding (`docs/formats.md`, transaction), the actor at its longest.
    pub fn encoded_bytes_max(&self) -> usize {
        const FRAME_BYTES: usize = 80 + ACTOR_BYTES_MAX;
        const OPERATION_BYTES: usize = 40;
        let size_of = |operation: &Operation| {
            let relationship = |r: &Relationship| {
                r.resource.as_str().len() + r.relation.as_str().len() + r.subject.as_str().len()
            };
            let action = match &operation.action {
                Action::SetEntity { key, value, .. } => key.as_str().len() + value.as_bytes().len(),
                Action::DeleteEntity { key } | Action::ExpireEntity { key } => key.as_str().len(),
                Action::CreateRelationship(r) | Action::DeleteRelationship(r) => relationship(r),
                Action::Assert(AssertTarget::Entity(key)) => key.as_str().len(),
                Action::Assert(AssertTarget::Relationship(r)) => relationship(r),
            };
            let condition = match &operation.condition {
                Some(Condition::ValueEquals(value)) => value.as_bytes().len(),
                _ => 0,
            };
            OPERATION_BYTES + action + condition
        };
        FRAME_BYTES + self.operations.iter().map(size_of).sum::<usize>()
    }
}
