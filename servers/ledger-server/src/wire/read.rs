//! What reads ask, and what they answer.

use std::collections::VecDeque;

use bytes::Bytes;
use ledger_core::command::{NamespaceInfo, VaultInfo};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::ledger_state::{Block, RelationshipFilter, Tip};
use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_node::{BatchGet, Consistency, ListRequest, Read, VerifiedSubject};
use ledger_proto::v1;
use ledger_proto::v1::list_relationships_request::By;
use ledger_proto::v1::verified_read_request::Subject as WireSubject;
use ledger_verify::Hash;
use ledger_verify::proof::Evidence;

use super::address::{self, entity_key, vault_ref_answer};
use super::field::{AtField, BadField, FieldFault, required};
use super::history;
use super::paging::{page_size, page_token};
use super::{ANSWER_CONTENT_BYTES_MAX, PAGE_SIZE_MAX};

/// How fresh a read must be; linearizable when the request does not say.
pub(crate) fn consistency(given: i32) -> Result<Consistency, BadField> {
    match v1::Consistency::try_from(given) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Eventual) => Ok(Consistency::Eventual),
        Err(_) => Err(FieldFault::EnumValue { given }).at("consistency"),
    }
}

/// The keys of a batch.
pub(crate) fn keys(given: Vec<String>) -> Result<Vec<EntityKey>, BadField> {
    let limit = PAGE_SIZE_MAX as usize;
    if given.is_empty() || given.len() > limit {
        return Err(FieldFault::Entries { limit, given: given.len() }).at("keys");
    }
    given.into_iter().enumerate().map(|(index, key)| entity_key(key, format_args!("keys[{index}]"))).collect()
}

/// The tuple of a check.
pub(crate) fn relationship(given: Option<v1::Relationship>) -> Result<Relationship, BadField> {
    address::relationship(&required(given, "relationship")?, "relationship")
}

/// A page of a vault's list.
pub(crate) fn list_request(size: u32, token: String) -> Result<ListRequest, BadField> {
    Ok(ListRequest { page_size: page_size(size)?, page_token: page_token(token)? })
}

/// Which relationships to list.
pub(crate) fn relationship_filter(by: Option<By>, relation: &str) -> Result<RelationshipFilter, BadField> {
    let relation = match relation {
        "" => None,
        relation => Some(Relation::new(relation).at("relation")?),
    };
    Ok(match required(by, "resource or subject")? {
        By::Resource(resource) => {
            RelationshipFilter::ByResource { resource: Resource::new(&resource).at("resource")?, relation }
        }
        By::Subject(subject) => {
            RelationshipFilter::BySubject { subject: Subject::new(&subject).at("subject")?, relation }
        }
    })
}

/// What to prove.
pub(crate) fn verified_subject(given: Option<WireSubject>) -> Result<VerifiedSubject, BadField> {
    Ok(match required(given, "key or relationship")? {
        WireSubject::Key(key) => VerifiedSubject::Entity(entity_key(key, "key")?),
        WireSubject::Relationship(tuple) => {
            VerifiedSubject::Relationship(address::relationship(&tuple, "relationship")?)
        }
    })
}

pub(crate) fn position<T>(read: &Read<T>) -> v1::ReadPosition {
    v1::ReadPosition { height: read.height, log_time_ms: read.log_time_ms }
}

pub(crate) fn check_answer(found: &Read<Option<u64>>) -> v1::CheckResponse {
    v1::CheckResponse {
        exists: found.value.is_some(),
        version: found.value.unwrap_or(0),
        position: Some(position(found)),
    }
}

pub(crate) fn entity_answer(key: EntityKey, entity: Entity) -> v1::Entity {
    v1::Entity {
        key: key.into(),
        value: entity.value,
        version: entity.version,
        modified_height: entity.modified_height,
        expires_at_ms: entity.expires_at_ms,
    }
}

fn content_bytes(key: &EntityKey, entity: &Entity) -> usize {
    key.as_str().len() + entity.value.len()
}

/// How many of the first rows fit one answer: at least one, no row is as large as an answer.
///
/// The engine ends a page after the row that reaches the limit; an answer ends before it.
pub(crate) fn rows_that_fit(rows: &[(EntityKey, Entity)]) -> usize {
    let mut bytes = 0;
    let fits = |(key, entity): &&(EntityKey, Entity)| {
        bytes += content_bytes(key, entity);
        bytes <= ANSWER_CONTENT_BYTES_MAX
    };
    rows.iter().take_while(fits).count().max(1)
}

/// The entities that fit one answer together with the keys that are left for another.
pub(crate) fn batch_answer(found: BatchGet, position: v1::ReadPosition) -> v1::BatchGetResponse {
    let BatchGet { mut entities, unread } = found;
    let mut bytes: usize = entities.iter().map(|(key, entity)| content_bytes(key, entity)).sum();
    bytes += unread.iter().map(|key| key.as_str().len()).sum::<usize>();
    let mut unread: VecDeque<String> = unread.into_iter().map(String::from).collect();
    while bytes > ANSWER_CONTENT_BYTES_MAX
        && entities.len() > 1
        && let Some((key, entity)) = entities.pop()
    {
        bytes -= entity.value.len();
        unread.push_front(key.into());
    }
    v1::BatchGetResponse {
        entities: entities_answer(entities),
        unread: unread.into(),
        position: Some(position),
    }
}

pub(crate) fn entities_answer(rows: Vec<(EntityKey, Entity)>) -> Vec<v1::Entity> {
    rows.into_iter().map(|(key, entity)| entity_answer(key, entity)).collect()
}

pub(crate) fn tip_answer(tip: &Tip, position: v1::ReadPosition) -> v1::GetTipResponse {
    v1::GetTipResponse {
        header: Bytes::copy_from_slice(&tip.header.encode()),
        block_hash: hash_answer(&tip.block_hash),
        log_root: hash_answer(&tip.log_root),
        position: Some(position),
    }
}

/// The transactions of a block from `first` on: at least one when there is one, then as many as fit one answer.
pub(crate) fn block_answer(block: &Block, first: u32) -> Result<v1::GetBlockResponse, BadField> {
    let count = block.transactions.len();
    let skipped = usize::try_from(first).unwrap_or(usize::MAX);
    // 0 is right for a block without transactions too.
    if skipped > 0 && skipped >= count {
        let last = count.saturating_sub(1) as u64;
        return Err(FieldFault::IndexAhead { last, given: first.into() }).at("first_transaction");
    }
    let mut room = ANSWER_CONTENT_BYTES_MAX;
    let mut transactions = Vec::new();
    for transaction in block.transactions.iter().skip(skipped) {
        if !transactions.is_empty() && transaction.len() > room {
            break;
        }
        room = room.saturating_sub(transaction.len());
        transactions.push(transaction.clone());
    }
    let next = skipped.saturating_add(transactions.len());
    // A block never has more transactions than its header's 32-bit count.
    let next_transaction = if next < count { u32::try_from(next).unwrap_or(0) } else { 0 };
    Ok(v1::GetBlockResponse {
        header: Bytes::copy_from_slice(&block.header.encode()),
        block_hash: hash_answer(&block.header.leaf_hash()),
        transactions,
        first_transaction: first,
        next_transaction,
    })
}

pub(crate) fn verified_answer(
    evidence: Evidence,
    consistency: &[Hash],
    log_time_ms: u64,
) -> v1::VerifiedReadResponse {
    let other_leaf = evidence.state_proof.other_leaf.map(|(key_hash, value_hash)| v1::OtherLeaf {
        key_hash: hash_answer(&key_hash),
        value_hash: hash_answer(&value_hash),
    });
    v1::VerifiedReadResponse {
        leaf: evidence.leaf.map(Bytes::from),
        siblings: hashes_answer(&evidence.state_proof.siblings),
        other_leaf,
        header: Bytes::copy_from_slice(&evidence.header),
        inclusion: hashes_answer(&evidence.inclusion_path),
        checkpoint: evidence.checkpoint,
        consistency: hashes_answer(consistency),
        log_time_ms,
    }
}

pub(crate) fn namespace_answer(namespace: NamespaceInfo) -> v1::Namespace {
    v1::Namespace {
        name: namespace.name.into(),
        vault_count: namespace.vault_count,
        created_at_ms: namespace.created_at_ms,
    }
}

pub(crate) fn vault_answer(vault: VaultInfo, origin: String) -> v1::Vault {
    let name = VaultRef { namespace: vault.namespace, vault: vault.name };
    v1::Vault {
        vault: Some(vault_ref_answer(&name)),
        id: Bytes::copy_from_slice(&vault.id.0),
        height: vault.height,
        block_hash: hash_answer(&vault.block_hash),
        state_root: hash_answer(&vault.state_root),
        version: vault.version,
        key_count: vault.key_count,
        created_at_ms: vault.created_at_ms,
        origin,
        retained_blocks: history::retained_blocks_answer(vault.retention),
        first_height: vault.first_height,
        fence: vault.fence.map(|fence| super::maintenance::fence_answer(*fence)),
    }
}

pub(crate) fn hash_answer(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(hash)
}

pub(crate) fn hashes_answer(hashes: &[Hash]) -> Vec<Bytes> {
    hashes.iter().map(hash_answer).collect()
}

#[cfg(test)]
mod tests {
    use ledger_verify::header::BlockHeader;

    use super::*;

    fn block(sizes: &[usize]) -> Block {
        let header = BlockHeader {
            version: 1,
            ledger_id: [1; 16],
            vault_id: [2; 16],
            height: 1,
            previous: [0; 32],
            tx_root: [0; 32],
            tx_count: sizes.len() as u32,
            state_root: [0; 32],
            time_ms: 0,
            term: 1,
            index: 1,
            first_sequence: 1,
            last_sequence: sizes.len() as u64,
        };
        Block { header, transactions: sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect() }
    }

    /// Follows the pages of a block; answers how many transactions each has.
    fn pages(block: &Block) -> Vec<usize> {
        let mut pages = Vec::new();
        let mut first = 0;
        loop {
            let answer = block_answer(block, first).unwrap();
            assert_eq!(answer.first_transaction, first);
            let content: usize = answer.transactions.iter().map(Bytes::len).sum();
            assert!(content <= ANSWER_CONTENT_BYTES_MAX);
            pages.push(answer.transactions.len());
            match answer.next_transaction {
                0 => return pages,
                next => first = next,
            }
        }
    }

    #[test]
    fn blocks_are_paged_at_4_mib() {
        const MIB: usize = 1_048_576;
        assert_eq!(pages(&block(&[])), [0]);
        assert_eq!(pages(&block(&[10, 20, 30])), [3]);
        assert_eq!(pages(&block(&[MIB; 9])), [4, 4, 1]);
        assert_eq!(pages(&block(&[4 * MIB, 1, 4 * MIB])), [1, 1, 1]);
    }
}
