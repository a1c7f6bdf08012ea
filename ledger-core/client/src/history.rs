//! The past: what a key held at a height, its versions, and ranges of blocks.

use bytes::Bytes;
use ledger_core::command::Retention;
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::ledger_state::{KeyChange, KeyVersion};
use ledger_core::names::VaultRef;
use ledger_core::relationship::Relationship;
use ledger_proto::v1;
use ledger_verify::Hash;
use ledger_verify::hash::log_leaf;
use ledger_verify::header::BlockHeader;
use ledger_verify::proof::Subject;

use crate::client::LedgerClient;
use crate::error::ClientError;
use crate::read::{Block, Consistency, PageRequest, Read, header_from, reader};
use crate::retry::Repeatable;
use crate::verified::Verified;
use crate::wire;

/// What has a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistorySubject {
    /// An entity.
    Entity(EntityKey),
    /// A relationship.
    Relationship(Relationship),
}

/// What a key held at a height. Not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoricalRead {
    /// The entity, or, with an empty value, the relationship; `None` when there was none, or its expiry had passed.
    pub record: Option<Entity>,
    /// The header of the block at that height.
    pub header: BlockHeader,
}

/// Some versions of a key. Not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Newest first.
    pub versions: Vec<KeyVersion>,
    /// For the next page; empty at the end.
    pub next_page_token: String,
    /// Set at the end when there may have been older versions that are not kept: the lowest height that is.
    pub cut_at: Option<u64>,
}

/// How much of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockContent {
    /// The header.
    #[default]
    Header,
    /// The header and the transactions.
    Transactions,
}

impl BlockContent {
    pub(crate) fn wire(self) -> i32 {
        match self {
            Self::Header => v1::BlockContent::Header.into(),
            Self::Transactions => v1::BlockContent::Transactions.into(),
        }
    }
}

/// Consecutive blocks. Each continues the one before it, and commits to its transactions: both are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRange {
    /// In order; without transactions when only headers were asked for.
    pub blocks: Vec<Block>,
    /// Where to go on; `None` = the newest block is among these.
    pub next_height: Option<u64>,
}

impl HistorySubject {
    fn proof_subject(&self) -> Subject {
        match self {
            Self::Entity(key) => Subject::Entity { key: key.as_str().to_owned() },
            Self::Relationship(tuple) => Subject::Relationship {
                resource: tuple.resource.as_str().to_owned(),
                relation: tuple.relation.as_str().to_owned(),
                subject: tuple.subject.as_str().to_owned(),
            },
        }
    }
}

impl LedgerClient {
    /// What a key held at a height.
    pub async fn get_at(
        &self,
        vault: &VaultRef,
        subject: &HistorySubject,
        height: u64,
    ) -> Result<HistoricalRead, ClientError> {
        use v1::historical_read_request::Subject as Wire;
        let request = v1::HistoricalReadRequest {
            vault: wire::vault_ref(vault),
            subject: Some(match subject {
                HistorySubject::Entity(key) => Wire::Key(key.as_str().to_owned()),
                HistorySubject::Relationship(tuple) => Wire::Relationship(wire::relationship(tuple)),
            }),
            at_height: height,
            include_proof: false,
            trusted_size: 0,
        };
        let answer = self
            .call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).historical_read(request).await
            })
            .await?;
        self.inner.clock.learn(answer.log_time_ms);
        let header = BlockHeader::decode(&answer.header)
            .map_err(|_| ClientError::Answer { what: "the block header" })?;
        if header.height != height {
            return Err(ClientError::Answer { what: "it is about another height" });
        }
        let record = answer.record.map(|record| Entity {
            value: record.value,
            version: record.version,
            modified_height: record.modified_height,
            expires_at_ms: record.expires_at_ms,
        });
        Ok(HistoricalRead { record, header })
    }

    /// What a key held at a height, or that it held nothing, proved.
    pub async fn verified_get_at(
        &self,
        vault: &VaultRef,
        subject: &HistorySubject,
        height: u64,
    ) -> Result<Verified, ClientError> {
        let verified = self.verified_read(vault, &subject.proof_subject(), Some(height)).await?;
        if verified.claim.height != height {
            let (asked, found) = (format!("height {height}"), format!("height {}", verified.claim.height));
            return Err(ClientError::OtherSubject { asked, found });
        }
        Ok(verified)
    }

    /// One page of the versions of a key, newest first. A page may be empty and still not be the last.
    pub async fn history(
        &self,
        vault: &VaultRef,
        subject: &HistorySubject,
        page: &PageRequest,
        consistency: Consistency,
    ) -> Result<Read<History>, ClientError> {
        use v1::history_request::Subject as Wire;
        let request = v1::HistoryRequest {
            vault: wire::vault_ref(vault),
            subject: Some(match subject {
                HistorySubject::Entity(key) => Wire::Key(key.as_str().to_owned()),
                HistorySubject::Relationship(tuple) => Wire::Relationship(wire::relationship(tuple)),
            }),
            page_size: page.page_size,
            page_token: page.page_token.clone(),
            consistency: consistency.wire(),
        };
        let answer = self
            .call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).history(request).await
            })
            .await?;
        let versions = answer.versions.into_iter().map(version_from).collect::<Result<_, _>>()?;
        let history = History { versions, next_page_token: answer.next_page_token, cut_at: answer.cut_at };
        self.read(history, answer.position)
    }

    /// Up to `limit` blocks (1 to 1,000; 0 = 100) from a height on, fewer when the answer was full.
    pub async fn block_range(
        &self,
        vault: &VaultRef,
        start_height: u64,
        limit: u32,
        content: BlockContent,
    ) -> Result<Read<BlockRange>, ClientError> {
        let request = v1::GetBlockRangeRequest {
            vault: wire::vault_ref(vault),
            start_height,
            limit,
            content: content.wire(),
        };
        let answer = self
            .call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).get_block_range(request).await
            })
            .await?;
        let mut blocks: Vec<Block> = Vec::new();
        for (height, block) in (start_height..).zip(answer.blocks) {
            let left_out = block.transactions_left_out;
            let mut block = range_block(block, height, content)?;
            if blocks.last().is_some_and(|before| before.block_hash != block.header.previous) {
                return Err(ClientError::BrokenChain { height });
            }
            if left_out {
                block.transactions = self.block(vault, height).await?.transactions;
            }
            blocks.push(block);
        }
        let next_height = Some(answer.next_height).filter(|next| *next != 0);
        if blocks.is_empty() || next_height.is_some_and(|next| next != start_height + blocks.len() as u64) {
            return Err(ClientError::Answer { what: "the blocks of the range do not fit together" });
        }
        self.read(BlockRange { blocks, next_height }, answer.position)
    }
}

fn range_block(block: v1::RangeBlock, height: u64, content: BlockContent) -> Result<Block, ClientError> {
    let (header, block_hash) = header_from(&block.header, &block.block_hash)?;
    if header.height != height {
        return Err(ClientError::Answer { what: "the blocks of the range do not follow each other" });
    }
    if content == BlockContent::Transactions && !block.transactions_left_out {
        check_transactions(&header, &block.transactions)?;
    }
    Ok(Block { header, block_hash, transactions: block.transactions })
}

/// Checks that a header commits to exactly these transactions.
pub(crate) fn check_transactions(header: &BlockHeader, transactions: &[Bytes]) -> Result<(), ClientError> {
    let leaves: Vec<Hash> = transactions.iter().map(|bytes| log_leaf(bytes)).collect();
    if ledger_verify::log::root_of(&leaves) == header.tx_root {
        Ok(())
    } else {
        Err(ClientError::Answer { what: "the block's header does not commit to its transactions" })
    }
}

fn version_from(version: v1::KeyVersion) -> Result<KeyVersion, ClientError> {
    let change = match v1::KeyChange::try_from(version.change) {
        Ok(v1::KeyChange::Set) => {
            KeyChange::Set { value: version.value, expires_at_ms: version.expires_at_ms }
        }
        Ok(v1::KeyChange::Related) => KeyChange::Related,
        Ok(v1::KeyChange::Deleted) => KeyChange::Deleted,
        Ok(v1::KeyChange::Expired) => KeyChange::Expired,
        Ok(v1::KeyChange::Unspecified) | Err(_) => {
            return Err(ClientError::Answer { what: "what a version did to its key" });
        }
    };
    Ok(KeyVersion {
        height: version.height,
        version: version.version,
        index_in_block: version.index_in_block,
        time_ms: version.time_ms,
        actor: version.actor,
        change,
    })
}

/// How the protocol says how much a vault keeps.
pub(crate) fn retained_blocks(retention: Retention) -> u64 {
    match retention {
        Retention::Full => 0,
        Retention::Compacted { blocks } => blocks.get(),
    }
}

/// The reverse.
pub(crate) fn retention_from(retained_blocks: u64) -> Retention {
    std::num::NonZeroU64::new(retained_blocks)
        .map_or(Retention::Full, |blocks| Retention::Compacted { blocks })
}
