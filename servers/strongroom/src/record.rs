//! Results as JSON: the field names that programs read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger_core::command::{NamespaceInfo, OperationResult, Receipt};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::ledger_state::{KeyChange, KeyVersion};
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::relationship::Relationship;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::proof::{Claim, Subject};
use ledger_verify::transaction::{self, ActionRef, OperationRef, RelationshipRef};
use serde_json::{Map, Value, json};

/// A committed transaction.
pub fn receipt(receipt: &Receipt) -> Value {
    json!({
        "vault_id": receipt.vault.to_string(),
        "height": receipt.height,
        "version": receipt.version,
        "index_in_block": receipt.index_in_block,
        "block_hash": hex::encode(receipt.block_hash),
        "time_ms": receipt.time_ms,
        "results": receipt.results.iter().map(|result| result_name(*result)).collect::<Vec<_>>(),
        "replayed": receipt.replayed,
    })
}

/// The name of an operation's result.
pub fn result_name(result: OperationResult) -> &'static str {
    match result {
        OperationResult::Created => "CREATED",
        OperationResult::AlreadyExists => "ALREADY_EXISTS",
        OperationResult::Updated => "UPDATED",
        OperationResult::Deleted => "DELETED",
        OperationResult::NotFound => "NOT_FOUND",
        OperationResult::Held => "HELD",
    }
}

/// An entity.
pub fn entity(key: &EntityKey, entity: &Entity) -> Value {
    let mut record = Map::new();
    record.insert("key".to_owned(), key.as_str().into());
    insert_value(&mut record, &entity.value);
    record.insert("version".to_owned(), entity.version.into());
    record.insert("modified_height".to_owned(), entity.modified_height.into());
    record.insert("expires_at_ms".to_owned(), entity.expires_at_ms.into());
    Value::Object(record)
}

/// Bytes always as base64, and as text too when they are text.
fn insert_value(record: &mut Map<String, Value>, value: &[u8]) {
    record.insert("value_base64".to_owned(), STANDARD.encode(value).into());
    if let Ok(text) = std::str::from_utf8(value) {
        record.insert("value".to_owned(), text.into());
    }
}

/// A relationship.
pub fn relationship(tuple: &Relationship) -> Value {
    json!({
        "resource": tuple.resource.as_str(),
        "relation": tuple.relation.as_str(),
        "subject": tuple.subject.as_str(),
    })
}

/// What a proof shows.
pub fn claim(claim: &Claim, now_ms: u64) -> Value {
    let mut record = Map::new();
    record.insert("ledger_id".to_owned(), LedgerId(claim.ledger_id).to_string().into());
    record.insert("vault_id".to_owned(), VaultId(claim.vault_id).to_string().into());
    match &claim.subject {
        Subject::Entity { key } => record.insert("key".to_owned(), key.as_str().into()),
        Subject::Relationship { resource, relation, subject } => record.insert(
            "relationship".to_owned(),
            json!({ "resource": resource, "relation": relation, "subject": subject }),
        ),
    };
    record.insert("present".to_owned(), claim.present.into());
    if let Some(value) = &claim.value {
        insert_value(&mut record, value);
    }
    let numbers = [
        ("version", claim.version),
        ("modified_height", claim.modified_height),
        ("expires_at_ms", claim.expires_at_ms),
        ("height", claim.height),
        ("time_ms", claim.time_ms),
        ("checkpoint_size", claim.checkpoint_size),
    ];
    record.extend(numbers.map(|(name, number)| (name.to_owned(), number.into())));
    record.insert("expired".to_owned(), claim.expired_at(now_ms).into());
    let hashes = [
        ("block_hash", claim.block_hash),
        ("state_root", claim.state_root),
        ("checkpoint_root", claim.checkpoint_root),
    ];
    record.extend(hashes.map(|(name, hash)| (name.to_owned(), hex::encode(hash).into())));
    record.insert("origin".to_owned(), claim.origin.as_str().into());
    record.insert("key_name".to_owned(), claim.key_name.as_str().into());
    Value::Object(record)
}

/// A namespace.
pub fn namespace(namespace: &NamespaceInfo) -> Value {
    json!({
        "name": namespace.name.as_str(),
        "vault_count": namespace.vault_count,
        "created_at_ms": namespace.created_at_ms,
    })
}

/// A vault.
pub fn vault(vault: &ledger_client::Vault) -> Value {
    json!({
        "vault": vault.vault.to_string(),
        "id": vault.id.to_string(),
        "height": vault.height,
        "block_hash": hex::encode(vault.block_hash),
        "state_root": hex::encode(vault.state_root),
        "version": vault.version,
        "key_count": vault.key_count,
        "created_at_ms": vault.created_at_ms,
        "origin": vault.origin,
        "retention": vault.retention.to_string(),
        "first_height": vault.first_height,
        "fence": vault.fence.as_ref().map(fence),
    })
}

/// Why a vault is fenced.
fn fence(fence: &ledger_client::VaultFence) -> Value {
    json!({
        "height": fence.height,
        "expected_root": hex::encode(fence.expected_root),
        "computed_root": fence.computed_root.map(hex::encode),
        "what": fence.what,
        "since_ms": fence.since_ms,
    })
}

/// A block header.
pub fn header(header: &BlockHeader, block_hash: &Hash) -> Value {
    json!({
        "height": header.height,
        "block_hash": hex::encode(block_hash),
        "previous": hex::encode(header.previous),
        "time_ms": header.time_ms,
        "transaction_count": header.tx_count,
        "tx_root": hex::encode(header.tx_root),
        "state_root": hex::encode(header.state_root),
        "first_version": header.first_sequence,
        "last_version": header.last_sequence,
        "term": header.term,
        "log_index": header.index,
        "ledger_id": LedgerId(header.ledger_id).to_string(),
        "vault_id": VaultId(header.vault_id).to_string(),
    })
}

/// A canonical transaction: its bytes, and what they say.
pub fn transaction(index_in_block: u32, bytes: &[u8]) -> Value {
    let mut record = Map::new();
    record.insert("index_in_block".to_owned(), index_in_block.into());
    if let Ok(view) = transaction::decode(bytes) {
        record.insert("version".to_owned(), view.header.sequence.into());
        record.insert("time_ms".to_owned(), view.header.time_ms.into());
        record.insert("actor".to_owned(), view.header.actor.into());
        // Both are UUIDs, printed in the same way.
        let key = VaultId(view.header.idempotency_key).to_string();
        record.insert("idempotency_key".to_owned(), key.into());
        let operations: Vec<Value> = view.operations.iter().map(operation).collect();
        record.insert("operations".to_owned(), operations.into());
    }
    record.insert("transaction_base64".to_owned(), STANDARD.encode(bytes).into());
    Value::Object(record)
}

/// An operation of a committed transaction, in the words of transaction files.
fn operation(operation: &OperationRef<'_>) -> Value {
    let mut record = Map::new();
    let mut op = |name: &str| record.insert("op".to_owned(), name.into());
    match operation.action {
        ActionRef::SetEntity { key, value, expires_at_ms } => {
            op("put");
            record.insert("key".to_owned(), key.into());
            insert_value(&mut record, value);
            record.insert("expires_at_ms".to_owned(), expires_at_ms.into());
        }
        ActionRef::DeleteEntity { key } => {
            op("delete");
            record.insert("key".to_owned(), key.into());
        }
        ActionRef::ExpireEntity { key } => {
            op("expire");
            record.insert("key".to_owned(), key.into());
        }
        ActionRef::CreateRelationship(tuple) => {
            op("relate");
            insert_tuple(&mut record, tuple);
        }
        ActionRef::DeleteRelationship(tuple) => {
            op("unrelate");
            insert_tuple(&mut record, tuple);
        }
        ActionRef::AssertEntity { key } => {
            op("assert");
            record.insert("key".to_owned(), key.into());
        }
        ActionRef::AssertRelationship(tuple) => {
            op("assert");
            insert_tuple(&mut record, tuple);
        }
    }
    let result = match operation.result {
        transaction::RESULT_CREATED => "CREATED",
        transaction::RESULT_ALREADY_EXISTS => "ALREADY_EXISTS",
        transaction::RESULT_UPDATED => "UPDATED",
        transaction::RESULT_DELETED => "DELETED",
        transaction::RESULT_NOT_FOUND => "NOT_FOUND",
        _ => "HELD",
    };
    record.insert("result".to_owned(), result.into());
    Value::Object(record)
}

fn insert_tuple(record: &mut Map<String, Value>, tuple: RelationshipRef<'_>) {
    let texts = [("resource", tuple.resource), ("relation", tuple.relation), ("subject", tuple.subject)];
    record.extend(texts.map(|(name, text)| (name.to_owned(), text.into())));
}

/// One version of a key.
pub fn version(version: &KeyVersion) -> Value {
    let mut record = Map::new();
    let numbers = [
        ("height", version.height),
        ("version", version.version),
        ("index_in_block", version.index_in_block.into()),
        ("time_ms", version.time_ms),
    ];
    record.extend(numbers.map(|(name, number)| (name.to_owned(), number.into())));
    record.insert("actor".to_owned(), version.actor.as_str().into());
    record.insert("change".to_owned(), change_name(&version.change).into());
    if let KeyChange::Set { value, expires_at_ms } = &version.change {
        insert_value(&mut record, value);
        record.insert("expires_at_ms".to_owned(), (*expires_at_ms).into());
    }
    Value::Object(record)
}

/// The name of what a version did.
pub fn change_name(change: &KeyChange) -> &'static str {
    match change {
        KeyChange::Set { .. } => "SET",
        KeyChange::Related => "RELATED",
        KeyChange::Expired => "EXPIRED",
        _ => "DELETED",
    }
}

/// A token without its secret.
pub fn token(token: &ledger_client::TokenInfo) -> Value {
    json!({
        "id": token.id,
        "role": token.role.as_str(),
        "scope": token.scope,
        "actor": token.actor,
        "created_at_ms": token.created_at_ms,
    })
}
