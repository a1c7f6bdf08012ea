//! Reads: single rows and pages, each at the newest applied entry.

use ledger_verify::state::LeafValue;

use super::{LedgerState, StateError, inconsistent};
use crate::codec::{self, CodecError};
use crate::command::{Fence, Receipt};
use crate::entity::{Entity, EntityKey};
use crate::names::VaultId;
use crate::ports::{ScanRange, StoreError, Table};
use crate::relationship::{Relation, Relationship, Resource, Subject};
use crate::rows::{self, ClientRow};
use crate::transaction::{Actor, IdempotencyKey};

/// Most rows in one page.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// A read found nothing to read, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The vault does not exist (any more).
    #[error("there is no such vault")]
    VaultNotFound,
    /// The log is not that long, or the heights do not fit each other.
    #[error("height or size {asked} is not available: the vault's newest block is {height}")]
    HeightUnavailable {
        /// What was asked for.
        asked: u64,
        /// The newest height.
        height: u64,
    },
    /// The newest header does not cover lists yet.
    #[error(
        "lists of this vault cannot be proved yet: its newest block {height} was made by an older program. Write once to \
         the vault, then ask again"
    )]
    ListsNotCovered {
        /// Height of the newest block.
        height: u64,
    },
    /// A list is longer than what is proved at once.
    #[error(
        "the resource has {count} relationships, lists of at most {max} are proved: list it without proof"
    )]
    ListTooLong {
        /// Relationships, at least.
        count: u64,
        /// The limit.
        max: u64,
    },
    /// A list cannot be rebuilt as it was any more.
    #[error(
        "the list as of block {height} is no longer available, the newest block is {tip}: ask for its first page again"
    )]
    ListHeightGone {
        /// Height of the list.
        height: u64,
        /// Height of the newest block.
        tip: u64,
    },
    /// The rows do not have the list that a header commits to.
    #[error("the rows of the list are not those that block {height} commits to")]
    ListDiffers {
        /// Height of the list.
        height: u64,
    },
    /// The vault's retention dropped it.
    #[error("height {asked} is not kept any more: the first that can be read is {first}")]
    Compacted {
        /// The height.
        asked: u64,
        /// The lowest height that is kept.
        first: u64,
    },
    /// The vault is fenced.
    #[error("the vault is fenced at block {}: {}", .0.height, .0.what)]
    VaultDiverged(Box<Fence>),
    /// The state cannot be read: the node must stop.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::State(error.into())
    }
}

impl From<CodecError> for ReadError {
    fn from(error: CodecError) -> Self {
        Self::State(error.into())
    }
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

/// How much to return, and after which row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// [`Page::next`] of the page before.
    pub after: Option<Vec<u8>>,
    /// Rows at most; more than [`PAGE_ROWS_MAX`] counts as that.
    pub limit: usize,
    /// Stop after the row that reaches this many bytes.
    pub bytes_max: usize,
}

/// Some rows of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in key order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl LedgerState {
    /// An entity, unless it has expired before the later of log time and `now_ms`.
    pub fn entity(&self, id: VaultId, key: &EntityKey, now_ms: u64) -> Result<Option<Entity>, ReadError> {
        let vault = self.existing(id)?;
        let row = self.overlay.get(Table::Entities, &rows::entity_key(vault.number, key.as_str()))?;
        let Some(row) = row else { return Ok(None) };
        let entity = decode_entity(&row)?;
        Ok(self.is_visible(&entity, now_ms).then_some(entity))
    }

    /// The version of a relationship; `None` when it does not exist.
    pub fn relationship_version(&self, id: VaultId, tuple: &Relationship) -> Result<Option<u64>, ReadError> {
        let vault = self.existing(id)?;
        let row = self.overlay.get(Table::Relationships, &rows::relationship_key(vault.number, tuple))?;
        row.map(|row| Ok(decode_leaf(&row)?.version)).transpose()
    }

    /// Entities whose key starts with `prefix`, in key order, expired ones left out.
    pub fn entities(
        &self,
        id: VaultId,
        prefix: &str,
        page: &PageRequest,
        now_ms: u64,
    ) -> Result<Page<(EntityKey, Entity)>, ReadError> {
        let prefix = rows::entity_key(self.existing(id)?.number, prefix);
        self.page(Table::Entities, prefix, page, |key, row| {
            let entity = decode_entity(row)?;
            let key = rows::entity_of(key).ok_or_else(|| inconsistent("an entity row has no valid key"))?;
            Ok(self.is_visible(&entity, now_ms).then_some((key, entity)))
        })
    }

    /// Relationships of a resource (by relation, subject) or of a subject (by relation, resource).
    pub fn relationships(
        &self,
        id: VaultId,
        by: &RelationshipFilter,
        page: &PageRequest,
    ) -> Result<Page<Relationship>, ReadError> {
        let number = self.existing(id)?.number;
        let prefix = |first: &str, relation: &Option<Relation>| match relation {
            Some(relation) => rows::texts_prefix(number, &[first, relation.as_str()]),
            None => rows::texts_prefix(number, &[first]),
        };
        let unreadable = || inconsistent("a relationship row has no valid key");
        match by {
            RelationshipFilter::ByResource { resource, relation } => {
                self.page(Table::Relationships, prefix(resource.as_str(), relation), page, |key, _| {
                    Ok(Some(rows::relationship_of(key).ok_or_else(unreadable)?))
                })
            }
            RelationshipFilter::BySubject { subject, relation } => self.page(
                Table::RelationshipsBySubject,
                prefix(subject.as_str(), relation),
                page,
                |key, _| Ok(Some(rows::relationship_by_subject_of(key).ok_or_else(unreadable)?)),
            ),
        }
    }

    /// The last transaction of an actor in a vault.
    pub fn last_transaction(
        &self,
        id: VaultId,
        actor: &Actor,
    ) -> Result<Option<(Receipt, IdempotencyKey)>, ReadError> {
        let vault = self.existing(id)?;
        let row = self.overlay.get(Table::Clients, &rows::client_key(vault.number, actor))?;
        let Some(row) = row else { return Ok(None) };
        let row: ClientRow = codec::decode("a client row", &row)?;
        let receipt = Receipt {
            vault: id,
            height: row.height,
            version: row.version,
            index_in_block: row.index_in_block,
            block_hash: row.block_hash,
            time_ms: row.time_ms,
            results: row.results,
            replayed: true,
        };
        Ok(Some((receipt, row.idempotency_key)))
    }

    /// Entities whose expiry is before `time_ms`, for garbage collection, at most `limit`.
    pub fn expired(&self, time_ms: u64, limit: usize) -> Result<Vec<(VaultId, EntityKey)>, ReadError> {
        let mut found = Vec::new();
        for (id, vault) in self.vaults.iter().filter(|(_, vault)| vault.fence.is_none()) {
            let range = ScanRange { prefix: rows::vault_prefix(vault.number), start: Vec::new() };
            self.overlay.scan(Table::Expiries, &range, &mut |key, _| match rows::expiry_of(key) {
                Some((expires_at_ms, entity)) if expires_at_ms < time_ms && found.len() < limit => {
                    found.push((*id, entity));
                    true
                }
                _ => false,
            })?;
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    fn is_visible(&self, entity: &Entity, now_ms: u64) -> bool {
        entity.expires_at_ms == 0 || entity.expires_at_ms >= self.log_time_ms().max(now_ms)
    }

    fn page<T>(
        &self,
        table: Table,
        prefix: Vec<u8>,
        page: &PageRequest,
        mut item: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, ReadError>,
    ) -> Result<Page<T>, ReadError> {
        let limit = page.limit.min(PAGE_ROWS_MAX);
        let prefix_bytes = prefix.len();
        let start = page.after.as_ref().map_or_else(Vec::new, |after| {
            // The smallest key after `after`, which is relative to the prefix.
            let mut start = prefix.clone();
            start.extend_from_slice(after);
            start.push(0);
            start
        });
        let (mut items, mut bytes, mut last, mut more, mut failure) = (Vec::new(), 0, None, false, None);
        self.overlay.scan(table, &ScanRange { prefix, start }, &mut |key, row| {
            if items.len() >= limit || bytes >= page.bytes_max {
                more = true;
                return false;
            }
            match item(key, row) {
                Ok(Some(found)) => items.push(found),
                Ok(None) => return true,
                Err(error) => {
                    failure = Some(error);
                    return false;
                }
            }
            bytes += key.len() + row.len();
            last = key.get(prefix_bytes..).map(<[u8]>::to_vec);
            true
        })?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Page { items, next: if more { last } else { None } }),
        }
    }
}

fn decode_leaf(row: &[u8]) -> Result<LeafValue<'_>, StateError> {
    LeafValue::decode(row).map_err(|error| inconsistent(format!("a stored leaf does not decode: {error}")))
}

fn decode_entity(row: &[u8]) -> Result<Entity, StateError> {
    let leaf = decode_leaf(row)?;
    Ok(Entity {
        value: leaf.value.to_vec().into(),
        version: leaf.version,
        modified_height: leaf.modified_height,
        expires_at_ms: leaf.expires_at_ms,
    })
}
