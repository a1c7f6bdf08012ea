//! What calls about the past ask, and what they answer.

use std::num::NonZeroU64;

use bytes::Bytes;
use ledger_core::command::Retention;
use ledger_core::entity::Entity;
use ledger_core::ledger_state::{KeyChange, KeyVersion};
use ledger_core::relationship::Resource;
use ledger_node::{WatchContent, WatchFilter, WatchProofs, WatchRequest, WatchedBlock};
use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_request::Filter;
use ledger_verify::header::BlockHeader;

use super::ANSWER_CONTENT_BYTES_MAX;
use super::address::key_prefix;
use super::field::{AtField, BadField, FieldFault};
use super::read::{hash_answer, hashes_answer};

/// Bytes of a transaction's message around the transaction.
const INDEX_BYTES: usize = 16;

/// How much of a vault is kept; 0 = all.
pub(crate) fn retention(retained_blocks: u64) -> Retention {
    match NonZeroU64::new(retained_blocks) {
        None => Retention::Full,
        Some(blocks) => Retention::Compacted { blocks },
    }
}

pub(crate) fn retained_blocks_answer(retention: Retention) -> u64 {
    match retention {
        Retention::Full => 0,
        Retention::Compacted { blocks } => blocks.get(),
    }
}

/// How much of each block; the header when the request does not say.
pub(crate) fn content(given: i32) -> Result<WatchContent, BadField> {
    match v1::BlockContent::try_from(given) {
        Ok(v1::BlockContent::Unspecified | v1::BlockContent::Header) => Ok(WatchContent::Header),
        Ok(v1::BlockContent::Transactions) => Ok(WatchContent::Transactions),
        Err(_) => Err(FieldFault::EnumValue { given }).at("content"),
    }
}

/// What to watch, apart from the vault.
pub(crate) fn watch_request(request: v1::WatchBlocksRequest) -> Result<WatchRequest, BadField> {
    let filter = match request.filter {
        None => WatchFilter::All,
        Some(Filter::Entities(v1::EntityChanges { prefix })) => {
            WatchFilter::Entities { prefix: key_prefix(prefix, "entities.prefix")? }
        }
        Some(Filter::Relationships(v1::RelationshipChanges { resource })) => {
            let resource = match resource.as_str() {
                "" => None,
                resource => Some(Resource::new(resource).at("relationships.resource")?),
            };
            WatchFilter::Relationships { resource }
        }
    };
    let proofs = if request.inclusion_proofs {
        WatchProofs::Inclusion { trusted_size: request.trusted_size }
    } else {
        WatchProofs::Without
    };
    Ok(WatchRequest { from: request.start_height, filter, content: content(request.content)?, proofs })
}

/// The messages of one block: each with at least one transaction when there is one, then as many as fit.
pub(crate) fn watched_answers(block: WatchedBlock) -> Vec<v1::WatchedBlock> {
    let mut answers = Vec::new();
    let message = || v1::WatchedBlock {
        header: Bytes::copy_from_slice(&block.header.encode()),
        block_hash: hash_answer(&block.block_hash),
        ..v1::WatchedBlock::default()
    };
    let mut open = message();
    if let Some(inclusion) = &block.inclusion {
        open.checkpoint = inclusion.checkpoint.clone();
        open.inclusion = hashes_answer(&inclusion.path);
        open.consistency = hashes_answer(&inclusion.consistency);
    }
    let mut room = ANSWER_CONTENT_BYTES_MAX;
    for (index, transaction) in block.transactions {
        let weight = transaction.len() + INDEX_BYTES;
        if !open.transactions.is_empty() && weight > room {
            open.more = true;
            answers.push(std::mem::replace(&mut open, message()));
            room = ANSWER_CONTENT_BYTES_MAX;
        }
        room = room.saturating_sub(weight);
        open.transactions.push(v1::IndexedTransaction { index, transaction });
    }
    answers.push(open);
    answers
}

/// A block of a range, with as much of its content as was asked for.
pub(crate) fn range_block(header: &BlockHeader, transactions: Vec<Bytes>) -> v1::RangeBlock {
    v1::RangeBlock {
        header: Bytes::copy_from_slice(&header.encode()),
        block_hash: hash_answer(&header.leaf_hash()),
        transactions,
        transactions_left_out: false,
    }
}

/// What a block of a range weighs.
pub(crate) fn range_block_bytes(block: &v1::RangeBlock) -> usize {
    block.header.len()
        + block.block_hash.len()
        + INDEX_BYTES
        + block.transactions.iter().map(|transaction| transaction.len() + INDEX_BYTES).sum::<usize>()
}

pub(crate) fn record_answer(key: &str, record: Entity) -> v1::Entity {
    v1::Entity {
        key: key.to_owned(),
        value: record.value,
        version: record.version,
        modified_height: record.modified_height,
        expires_at_ms: record.expires_at_ms,
    }
}

/// How many of the first versions fit one answer: at least one.
pub(crate) fn versions_that_fit(versions: &[KeyVersion]) -> usize {
    let mut bytes = 0;
    let fits = |version: &&KeyVersion| {
        bytes += version.content_bytes();
        bytes <= ANSWER_CONTENT_BYTES_MAX
    };
    versions.iter().take_while(fits).count().max(1)
}

pub(crate) fn version_answer(version: KeyVersion) -> v1::KeyVersion {
    let (change, value, expires_at_ms) = match version.change {
        KeyChange::Set { value, expires_at_ms } => (v1::KeyChange::Set, value, expires_at_ms),
        KeyChange::Related => (v1::KeyChange::Related, Bytes::new(), 0),
        KeyChange::Expired => (v1::KeyChange::Expired, Bytes::new(), 0),
        _ => (v1::KeyChange::Deleted, Bytes::new(), 0),
    };
    v1::KeyVersion {
        height: version.height,
        version: version.version,
        index_in_block: version.index_in_block,
        time_ms: version.time_ms,
        actor: version.actor,
        change: change.into(),
        value,
        expires_at_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(sizes: &[usize]) -> WatchedBlock {
        let header = BlockHeader {
            version: ledger_verify::header::HEADER_VERSION,
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
        let transactions =
            (0..).zip(sizes).map(|(index, size)| (index, Bytes::from(vec![0; *size]))).collect();
        WatchedBlock { header, block_hash: header.leaf_hash(), transactions, inclusion: None }
    }

    #[test]
    fn a_large_block_comes_in_messages_of_4_mib_of_which_all_but_the_last_say_more() {
        const MIB: usize = 1_048_576;
        for (sizes, expected) in [
            (&[][..], &[0][..]),
            (&[10, 20, 30], &[3]),
            (&[MIB; 9], &[3, 3, 3]),
            (&[4 * MIB - 16, 1, 4 * MIB - 16], &[1, 1, 1]),
        ] {
            let answers = watched_answers(block(sizes));
            let counts: Vec<_> = answers.iter().map(|answer| answer.transactions.len()).collect();
            assert_eq!(counts, expected);
            let more: Vec<_> = answers.iter().map(|answer| answer.more).collect();
            assert_eq!(more.iter().filter(|more| **more).count(), answers.len() - 1);
            assert!(!more[more.len() - 1]);
            let indexes = answers.iter().flat_map(|answer| answer.transactions.iter().map(|t| t.index));
            assert!(indexes.eq(0..sizes.len() as u32), "in order, each once");
        }
    }
}
