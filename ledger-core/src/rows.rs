//! Keys and values of the state store's rows. The layouts are frozen in `docs/formats.md`.

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::transaction::RelationshipRef;
use serde::{Deserialize, Serialize};

use crate::access_token::TokenId;
use crate::codec::{self, CodecError};
use crate::command::{OperationResult, Retention, Submission};
use crate::entity::EntityKey;
use crate::names::{LedgerId, NamespaceName, VaultId, VaultName, VaultNumber};
use crate::ports::LogId;
use crate::relationship::{Relation, Relationship, Resource, Subject};
use crate::transaction::{Actor, IdempotencyKey};

/// Separates the texts of a relationship in a row key; no text can contain it.
const SEPARATOR: u8 = 0;

/// The row of [`Table::Ledger`](crate::ports::Table::Ledger) that every ledger has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerRow {
    pub ledger_id: LedgerId,
    pub page_key: [u8; 32],
    pub log_time_ms: u64,
    /// Idempotency keys with an earlier time may have been forgotten.
    pub forgotten_before_ms: u64,
    pub next_vault_number: u64,
}

/// Key of the ledger's row.
pub(crate) const LEDGER_KEY: &[u8] = b"ledger";
/// Key of the row of the same table that holds the version of new headers (u16, big-endian); no row = 1.
pub(crate) const HEADER_VERSION_KEY: &[u8] = b"header_version";
/// Key of the row of the same table that holds the cluster's identity (16 bytes); no row = it was never in one.
pub(crate) const CLUSTER_KEY: &[u8] = b"cluster";

/// What the keys of tokens in the same table begin with; the 8 bytes of the token's id follow. The row is an
/// [`AccessToken`](crate::access_token::AccessToken).
pub(crate) const TOKEN_PREFIX: &[u8] = b"token/";

pub(crate) fn token_key(id: TokenId) -> Vec<u8> {
    [TOKEN_PREFIX, &id.0].concat()
}

/// What keys of that table begin with whose rows hold commands that made no block, by log index.
pub(crate) const JOURNAL_PREFIX: &[u8] = b"journal/";
/// Key of the row of the same table that says from which log index on (u64, big-endian) the journal is complete; no
/// row = there is none yet.
pub(crate) const JOURNAL_SINCE_KEY: &[u8] = b"journal_since";

/// A row of `Table::Namespaces`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub created_at_ms: u64,
}

/// A row of `Table::Vaults`, by number. It outlives its vault, so that the id is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VaultRow {
    pub id: VaultId,
    pub namespace: NamespaceName,
    pub name: VaultName,
    pub created_at_ms: u64,
    /// Log time of its deletion.
    pub deleted_at_ms: Option<u64>,
    /// The newest header, canonical bytes.
    pub header: Vec<u8>,
}

/// What follows a [`VaultRow`] in its row since format 2: how much of its past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HorizonRow {
    pub retention: Retention,
    /// Lowest height whose body is kept.
    pub first_body: u64,
    /// Lowest height whose undo row is kept.
    pub first_undo: u64,
}

pub(crate) fn encode_vault(row: &VaultRow, horizon: &HorizonRow) -> Result<Bytes, CodecError> {
    codec::encode("a vault row", &(row, horizon))
}

/// The reverse of [`encode_vault`]; a row of format 1 has no horizon.
pub(crate) fn decode_vault(bytes: &[u8]) -> Result<(VaultRow, Option<HorizonRow>), CodecError> {
    const WHAT: &str = "a vault row";
    match codec::decode::<(VaultRow, HorizonRow)>(WHAT, bytes) {
        Ok((row, horizon)) => Ok((row, Some(horizon))),
        Err(error) => codec::decode::<VaultRow>(WHAT, bytes).map(|row| (row, None)).map_err(|_| error),
    }
}

/// A row of `Table::Idempotency`: what one block remembers of its transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRow {
    pub height: u64,
    pub first_sequence: u64,
    pub block_hash: Hash,
    pub time_ms: u64,
    pub records: Vec<IdempotencyRecord>,
}

/// One transaction of a block, as far as a repeated key needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    /// First 16 bytes of SHA-256 over vault, actor and key.
    pub digest: [u8; 16],
    /// The key's own time, unix milliseconds.
    pub key_ms: u64,
    /// First 16 bytes of SHA-256 over the encoded operations with their results.
    pub payload: [u8; 16],
    pub results: Vec<OperationResult>,
}

/// A row of `Table::Clients`: the last transaction of an actor in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientRow {
    pub idempotency_key: IdempotencyKey,
    pub height: u64,
    pub version: u64,
    pub index_in_block: u32,
    pub block_hash: Hash,
    pub time_ms: u64,
    pub results: Vec<OperationResult>,
}

/// A row of `Table::Fenced` by vault and log index: what an entry wants to write to a vault that is fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostponedRow {
    pub at: LogId,
    pub time_ms: u64,
    /// Version of the headers that blocks got then.
    pub header_version: u16,
    pub submissions: Vec<Submission>,
}

/// The prefix of every row of a vault; also the key of its row in `Table::Vaults` and of its fence.
pub(crate) fn vault_prefix(vault: VaultNumber) -> Vec<u8> {
    vault.0.to_be_bytes().to_vec()
}

pub(crate) fn journal_key(log_index: u64) -> Vec<u8> {
    [JOURNAL_PREFIX, &log_index.to_be_bytes()].concat()
}

/// The log index in a row key of the journal.
pub(crate) fn journal_index(row_key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(row_key.strip_prefix(JOURNAL_PREFIX)?.try_into().ok()?))
}

pub(crate) fn entity_key(vault: VaultNumber, key: &str) -> Vec<u8> {
    with_texts(vault, &[key])
}

/// The entity key in a row key of `Table::Entities`.
pub(crate) fn entity_of(row_key: &[u8]) -> Option<EntityKey> {
    EntityKey::new(std::str::from_utf8(row_key.get(8..)?).ok()?).ok()
}

pub(crate) fn relationship_key(vault: VaultNumber, tuple: &Relationship) -> Vec<u8> {
    with_texts(vault, &[tuple.resource.as_str(), tuple.relation.as_str(), tuple.subject.as_str()])
}

/// As [`relationship_key`], for the borrowed form of a tuple.
pub(crate) fn relationship_ref_key(vault: VaultNumber, tuple: &RelationshipRef<'_>) -> Vec<u8> {
    with_texts(vault, &[tuple.resource, tuple.relation, tuple.subject])
}

pub(crate) fn by_subject_key(vault: VaultNumber, tuple: &Relationship) -> Vec<u8> {
    with_texts(vault, &[tuple.subject.as_str(), tuple.relation.as_str(), tuple.resource.as_str()])
}

/// The prefix of all rows whose first texts are these.
pub(crate) fn texts_prefix(vault: VaultNumber, texts: &[&str]) -> Vec<u8> {
    let mut key = with_texts(vault, texts);
    key.push(SEPARATOR);
    key
}

/// The tuple in a row key of `Table::Relationships`.
pub(crate) fn relationship_of(row_key: &[u8]) -> Option<Relationship> {
    let [resource, relation, subject] = three_texts(row_key)?;
    tuple(resource, relation, subject)
}

/// The tuple in a row key of `Table::RelationshipsBySubject`.
pub(crate) fn relationship_by_subject_of(row_key: &[u8]) -> Option<Relationship> {
    let [subject, relation, resource] = three_texts(row_key)?;
    tuple(resource, relation, subject)
}

pub(crate) fn expiry_key(vault: VaultNumber, expires_at_ms: u64, key: &EntityKey) -> Vec<u8> {
    let mut row_key = vault_prefix(vault);
    row_key.extend_from_slice(&expires_at_ms.to_be_bytes());
    row_key.extend_from_slice(key.as_str().as_bytes());
    row_key
}

/// Time and entity key in a row key of `Table::Expiries`.
pub(crate) fn expiry_of(row_key: &[u8]) -> Option<(u64, EntityKey)> {
    let time = u64_at(row_key, 8)?;
    let key = std::str::from_utf8(row_key.get(16..)?).ok()?;
    Some((time, EntityKey::new(key).ok()?))
}

pub(crate) fn idempotency_key(log_index: u64, vault: VaultNumber) -> Vec<u8> {
    two_numbers(log_index, vault.0)
}

/// Log index and vault in a row key of `Table::Idempotency`.
pub(crate) fn idempotency_of(row_key: &[u8]) -> Option<(u64, VaultNumber)> {
    Some((u64_at(row_key, 0)?, VaultNumber(u64_at(row_key, 8)?)))
}

pub(crate) fn postponed_key(vault: VaultNumber, log_index: u64) -> Vec<u8> {
    two_numbers(vault.0, log_index)
}

pub(crate) fn client_key(vault: VaultNumber, actor: &Actor) -> Vec<u8> {
    with_texts(vault, &[actor.as_str()])
}

pub(crate) fn header_key(vault: VaultNumber, height: u64) -> Vec<u8> {
    let mut key = two_numbers(vault.0, height);
    key.push(0);
    key
}

pub(crate) fn body_key(vault: VaultNumber, height: u64) -> Vec<u8> {
    let mut key = two_numbers(vault.0, height);
    key.push(1);
    key
}

pub(crate) fn undo_key(vault: VaultNumber, height: u64) -> Vec<u8> {
    two_numbers(vault.0, height)
}

/// Deletions of one key sort newest first.
pub(crate) fn tombstone_key(vault: VaultNumber, key_hash: &Hash, height: u64) -> Vec<u8> {
    let mut key = tombstones_prefix(vault, key_hash);
    key.extend_from_slice(&(!height).to_be_bytes());
    key
}

/// The prefix of every deletion of a key.
pub(crate) fn tombstones_prefix(vault: VaultNumber, key_hash: &Hash) -> Vec<u8> {
    let mut key = Vec::with_capacity(48);
    key.extend_from_slice(&vault.0.to_be_bytes());
    key.extend_from_slice(key_hash);
    key
}

/// Key hash and height in a row key of `Table::Tombstones`.
pub(crate) fn tombstone_of(row_key: &[u8]) -> Option<(Hash, u64)> {
    let (key_hash, height) = row_key.get(8..)?.split_first_chunk::<32>()?;
    Some((*key_hash, !u64::from_be_bytes(height.try_into().ok()?)))
}

/// The height in a row key of `Table::Tombstones`.
pub(crate) fn tombstone_height(row_key: &[u8]) -> Option<u64> {
    Some(!u64_at(row_key, 40)?)
}

pub(crate) fn tile_key(vault: VaultNumber, level: u8, number: u64) -> Vec<u8> {
    let mut key = vault_prefix(vault);
    key.push(level);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// A block body: for every transaction its length (u32, big-endian) and its bytes.
pub(crate) fn encode_body(transactions: &[Bytes]) -> Bytes {
    let length = transactions.iter().map(|t| 4 + t.len()).sum();
    let mut body = Vec::with_capacity(length);
    for transaction in transactions {
        body.extend_from_slice(&(transaction.len() as u32).to_be_bytes());
        body.extend_from_slice(transaction);
    }
    body.into()
}

/// The reverse of [`encode_body`]; `None` when the bytes are not a body.
pub(crate) fn decode_body(body: &Bytes) -> Option<Vec<Bytes>> {
    let mut transactions = Vec::new();
    let mut at = 0_usize;
    while at < body.len() {
        let length = u32::from_be_bytes(body.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize;
        let start = at + 4;
        let end = start.checked_add(length)?;
        body.get(start..end)?;
        transactions.push(body.slice(start..end));
        at = end;
    }
    Some(transactions)
}

/// A tile: 256 hashes one after the other.
pub(crate) fn decode_tile(row: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = row.as_chunks::<32>();
    (rest.is_empty() && hashes.len() == crate::log_tree::TILE_WIDTH).then(|| hashes.to_vec())
}

fn with_texts(vault: VaultNumber, texts: &[&str]) -> Vec<u8> {
    let length = 8 + texts.iter().map(|t| t.len() + 1).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(&vault.0.to_be_bytes());
    for (position, text) in texts.iter().enumerate() {
        if position > 0 {
            key.push(SEPARATOR);
        }
        key.extend_from_slice(text.as_bytes());
    }
    key
}

fn three_texts(row_key: &[u8]) -> Option<[&str; 3]> {
    let mut texts = std::str::from_utf8(row_key.get(8..)?).ok()?.split(char::from(SEPARATOR));
    let found = [texts.next()?, texts.next()?, texts.next()?];
    texts.next().is_none().then_some(found)
}

fn tuple(resource: &str, relation: &str, subject: &str) -> Option<Relationship> {
    Some(Relationship {
        resource: Resource::new(resource).ok()?,
        relation: Relation::new(relation).ok()?,
        subject: Subject::new(subject).ok()?,
    })
}

fn two_numbers(first: u64, second: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.extend_from_slice(&first.to_be_bytes());
    key.extend_from_slice(&second.to_be_bytes());
    key
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_vault_row_of_format_1_is_read_and_has_no_horizon() {
        let row = VaultRow {
            id: VaultId([1; 16]),
            namespace: NamespaceName::new("acme").unwrap(),
            name: VaultName::new("main").unwrap(),
            created_at_ms: 5,
            deleted_at_ms: None,
            header: vec![9; 188],
        };
        let old = codec::encode("a vault row", &row).unwrap();
        assert_eq!(decode_vault(&old).unwrap(), (row.clone(), None));
        let horizon = HorizonRow { retention: Retention::Full, first_body: 7, first_undo: 8 };
        let new = encode_vault(&row, &horizon).unwrap();
        assert_eq!(decode_vault(&new).unwrap(), (row, Some(horizon)));
        assert!(decode_vault(&new[..new.len() - 1]).is_err());
    }
}
