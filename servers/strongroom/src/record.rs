//! Results as JSON: the field names that programs read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger_core::command::{NamespaceInfo, OperationResult, Receipt};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::relationship::Relationship;
use ledger_verify::proof::{Claim, Subject};
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
