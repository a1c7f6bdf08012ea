//! Plain reads: fast, and as trustworthy as the server. Proofs come with verified reads.

use bytes::Bytes;
use ledger_core::command::Receipt;
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::IdempotencyKey;
use ledger_proto::v1;
use ledger_proto::v1::read_service_client::ReadServiceClient;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, LedgerClient};
use crate::error::ClientError;
use crate::nodes::Destination;
use crate::retry::Repeatable;
use crate::wire;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the call.
    #[default]
    Linearizable,
    /// Whatever the node that answers has applied.
    Eventual,
}

impl Consistency {
    pub(crate) fn destination(self) -> Destination {
        match self {
            Self::Linearizable => Destination::Leader,
            Self::Eventual => Destination::Any,
        }
    }

    pub(crate) fn wire(self) -> i32 {
        match self {
            Self::Linearizable => v1::Consistency::Linearizable.into(),
            Self::Eventual => v1::Consistency::Eventual.into(),
        }
    }
}

/// An answer, and where the vault stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// The answer.
    pub value: T,
    /// Height of the newest applied block.
    pub height: u64,
    /// The ledger's time, unix milliseconds.
    pub log_time_ms: u64,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// Rows on a page, 1 to 1,000; 0 = 100.
    pub page_size: u32,
    /// From the page before; empty = the first page.
    pub page_token: String,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// Rows in order.
    pub items: Vec<T>,
    /// For the next page; empty at the end.
    pub next_page_token: String,
}

/// Which relationships to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelationshipFilter {
    /// Those of a resource.
    ByResource {
        /// The resource.
        resource: Resource,
        /// Only this relation.
        relation: Option<Relation>,
    },
    /// Those of a subject.
    BySubject {
        /// The subject.
        subject: Subject,
        /// Only this relation.
        relation: Option<Relation>,
    },
}

/// Answer to a batch get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGet {
    /// Those that exist, in the order of the request.
    pub entities: Vec<(EntityKey, Entity)>,
    /// Keys left out because the answer was full: ask again for them.
    pub unread: Vec<EntityKey>,
}

/// The newest block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Its header.
    pub header: BlockHeader,
    /// RFC 6962 leaf hash of the header.
    pub block_hash: Hash,
    /// RFC 6962 root over all headers.
    pub log_root: Hash,
}

/// A block with all its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: BlockHeader,
    /// RFC 6962 leaf hash of the header.
    pub block_hash: Hash,
    /// Canonical transactions in order.
    pub transactions: Vec<Bytes>,
}

/// The caller's own last transaction in a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientState {
    /// Its receipt; the results per operation are not kept.
    pub last: Option<Receipt>,
    /// Its idempotency key.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The ledger's time, unix milliseconds.
    pub log_time_ms: u64,
}

impl LedgerClient {
    /// One entity.
    pub async fn get(
        &self,
        vault: &VaultRef,
        key: &EntityKey,
        consistency: Consistency,
    ) -> Result<Read<Option<Entity>>, ClientError> {
        let request = v1::GetRequest {
            vault: wire::vault_ref(vault),
            key: key.as_str().to_owned(),
            consistency: consistency.wire(),
        };
        let answer = self.streamed_call(consistency.destination(), request).await?;
        let entity = answer.entity.map(wire::entity_from).transpose()?;
        if entity.as_ref().is_some_and(|(found, _)| found != key) {
            return Err(ClientError::Answer { what: "it is about another key" });
        }
        self.read(entity.map(|(_, entity)| entity), answer.position)
    }

    /// Up to 1,000 entities at one height.
    pub async fn batch_get(
        &self,
        vault: &VaultRef,
        keys: &[EntityKey],
        consistency: Consistency,
    ) -> Result<Read<BatchGet>, ClientError> {
        let request = v1::BatchGetRequest {
            vault: wire::vault_ref(vault),
            keys: keys.iter().map(|key| key.as_str().to_owned()).collect(),
            consistency: consistency.wire(),
        };
        let answer = self
            .call_at(consistency.destination(), request, |channel, request| async move {
                reader(channel).batch_get(request).await
            })
            .await?;
        let unread =
            |key: String| EntityKey::try_from(key).map_err(|_| ClientError::Answer { what: "an entity key" });
        let batch = BatchGet {
            entities: answer.entities.into_iter().map(wire::entity_from).collect::<Result<_, _>>()?,
            unread: answer.unread.into_iter().map(unread).collect::<Result<_, _>>()?,
        };
        self.read(batch, answer.position)
    }

    /// Whether a relationship exists, exactly as given; the version when it does.
    pub async fn check(
        &self,
        vault: &VaultRef,
        relationship: &Relationship,
        consistency: Consistency,
    ) -> Result<Read<Option<u64>>, ClientError> {
        let request = v1::CheckRequest {
            vault: wire::vault_ref(vault),
            relationship: Some(wire::relationship(relationship)),
            consistency: consistency.wire(),
        };
        let answer = self.streamed_call(consistency.destination(), request).await?;
        self.read(answer.exists.then_some(answer.version), answer.position)
    }

    /// One page of entities whose keys start with `prefix`, in key order. Not verified.
    pub async fn list_entities(
        &self,
        vault: &VaultRef,
        prefix: &str,
        page: &PageRequest,
        consistency: Consistency,
    ) -> Result<Read<Listing<(EntityKey, Entity)>>, ClientError> {
        let request = v1::ListEntitiesRequest {
            vault: wire::vault_ref(vault),
            prefix: prefix.to_owned(),
            page_size: page.page_size,
            page_token: page.page_token.clone(),
            consistency: consistency.wire(),
        };
        let answer = self
            .call_at(consistency.destination(), request, |channel, request| async move {
                reader(channel).list_entities(request).await
            })
            .await?;
        let items = answer.entities.into_iter().map(wire::entity_from).collect::<Result<_, _>>()?;
        self.read(Listing { items, next_page_token: answer.next_page_token }, answer.position)
    }

    /// One page of relationships. Not verified.
    pub async fn list_relationships(
        &self,
        vault: &VaultRef,
        filter: &RelationshipFilter,
        page: &PageRequest,
        consistency: Consistency,
    ) -> Result<Read<Listing<Relationship>>, ClientError> {
        use v1::list_relationships_request::By;
        let (by, relation) = match filter {
            RelationshipFilter::ByResource { resource, relation } => {
                (By::Resource(resource.as_str().to_owned()), relation)
            }
            RelationshipFilter::BySubject { subject, relation } => {
                (By::Subject(subject.as_str().to_owned()), relation)
            }
        };
        let request = v1::ListRelationshipsRequest {
            vault: wire::vault_ref(vault),
            by: Some(by),
            relation: relation.as_ref().map(|relation| relation.as_str().to_owned()).unwrap_or_default(),
            page_size: page.page_size,
            page_token: page.page_token.clone(),
            consistency: consistency.wire(),
        };
        let answer = self
            .call_at(consistency.destination(), request, |channel, request| async move {
                reader(channel).list_relationships(request).await
            })
            .await?;
        let items = answer.relationships.iter().map(wire::relationship_from).collect::<Result<_, _>>()?;
        self.read(Listing { items, next_page_token: answer.next_page_token }, answer.position)
    }

    /// The newest block. Its hash is checked against the header, its root is not: ask for a checkpoint.
    pub async fn tip(&self, vault: &VaultRef, consistency: Consistency) -> Result<Read<Tip>, ClientError> {
        let request = v1::GetTipRequest { vault: wire::vault_ref(vault), consistency: consistency.wire() };
        let answer = self
            .call_at(consistency.destination(), request, |channel, request| async move {
                reader(channel).get_tip(request).await
            })
            .await?;
        let (header, block_hash) = header_from(&answer.header, &answer.block_hash)?;
        let log_root = wire::hash_from(&answer.log_root, "the log root")?;
        self.read(Tip { header, block_hash, log_root }, answer.position)
    }

    /// One block with all its transactions, collected over as many answers as it takes. The hashes of header
    /// and transactions are checked against each other.
    pub async fn block(&self, vault: &VaultRef, height: u64) -> Result<Block, ClientError> {
        let mut transactions: Vec<Bytes> = Vec::new();
        loop {
            let request = v1::GetBlockRequest {
                vault: wire::vault_ref(vault),
                height,
                first_transaction: transactions.len() as u32,
            };
            let answer = self
                .call(Repeatable::Always, request, |channel, request| async move {
                    reader(channel).get_block(request).await
                })
                .await?;
            let (header, block_hash) = header_from(&answer.header, &answer.block_hash)?;
            let grew = !answer.transactions.is_empty();
            transactions.extend(answer.transactions);
            if answer.next_transaction != 0 {
                if !grew || answer.next_transaction as usize != transactions.len() {
                    return Err(ClientError::Answer { what: "the pages of the block do not fit together" });
                }
                continue;
            }
            let leaves: Vec<Hash> =
                transactions.iter().map(|bytes| ledger_verify::hash::log_leaf(bytes)).collect();
            if header.height != height || ledger_verify::log::root_of(&leaves) != header.tx_root {
                return Err(ClientError::Answer {
                    what: "the block's header does not commit to its transactions",
                });
            }
            return Ok(Block { header, block_hash, transactions });
        }
    }

    /// The caller's own last transaction in a vault.
    pub async fn client_state(&self, vault: &VaultRef) -> Result<ClientState, ClientError> {
        let request = v1::GetClientStateRequest { vault: wire::vault_ref(vault) };
        let answer = self
            .call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).get_client_state(request).await
            })
            .await?;
        self.inner.clock.learn(answer.log_time_ms);
        let last = match answer.last {
            None => {
                return Ok(ClientState {
                    last: None,
                    idempotency_key: None,
                    log_time_ms: answer.log_time_ms,
                });
            }
            receipt => wire::receipt_from(receipt, &[], false)?,
        };
        let key = wire::id_from(&answer.idempotency_key, "the idempotency key")?;
        let key =
            IdempotencyKey::new(key).map_err(|_| ClientError::Answer { what: "the idempotency key" })?;
        Ok(ClientState { last: Some(last), idempotency_key: Some(key), log_time_ms: answer.log_time_ms })
    }

    pub(crate) fn read<T>(
        &self,
        value: T,
        position: Option<v1::ReadPosition>,
    ) -> Result<Read<T>, ClientError> {
        let position = position.ok_or(ClientError::Answer { what: "a read without its position" })?;
        self.inner.clock.learn(position.log_time_ms);
        Ok(Read { value, height: position.height, log_time_ms: position.log_time_ms })
    }
}

pub(crate) fn reader(channel: Channel) -> ReadServiceClient<Channel> {
    ReadServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(crate) fn header_from(header: &[u8], block_hash: &[u8]) -> Result<(BlockHeader, Hash), ClientError> {
    let header = BlockHeader::decode(header).map_err(|_| ClientError::Answer { what: "the block header" })?;
    let block_hash = wire::hash_from(block_hash, "the block hash")?;
    if header.leaf_hash() != block_hash {
        return Err(ClientError::Answer { what: "the block hash is not that of the header" });
    }
    Ok((header, block_hash))
}
