//! Reads of a [`Ledger`]: plain ones, pages, and those that carry their proof.

use bytes::Bytes;
use ledger_core::command::{Receipt, VaultInfo};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::ledger_state::{
    Block, LedgerState, PAGE_ROWS_MAX, Page, PageRequest, ReadError, RelationshipFilter, Tip,
};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::page_token;
use ledger_core::relationship::Relationship;
use ledger_core::transaction::{Actor, IdempotencyKey};
use ledger_verify::Hash;
use ledger_verify::proof::Evidence;

use crate::checkpoint_signer::SignError;
use crate::errors::ReadFailure;
use crate::ledger::Ledger;

/// Most keys in one batch read.
pub const BATCH_KEYS_MAX: usize = 1_000;
/// An answer with many rows ends after the row that reaches this many bytes (4 MiB).
pub const ANSWER_BYTES_MAX: usize = 4 * 1_048_576;
/// Rows in a page when the caller names no size.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// What a caller waits at most for when a checkpoint cannot be signed at once.
const SIGNER_RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(20);

/// What a read may miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing: it sees every write that was acknowledged before it began.
    Linearizable,
    /// The newest writes: it sees what this node has applied.
    Eventual,
}

/// An answer and the point at which it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// The answer.
    pub value: T,
    /// Height of the vault's newest block then.
    pub height: u64,
    /// The ledger's time then, unix milliseconds: stamp idempotency keys with it.
    pub log_time_ms: u64,
}

/// The answer to a batch of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGet {
    /// The entities that exist, in the order of the keys.
    pub entities: Vec<(EntityKey, Entity)>,
    /// Keys that were not looked at because the answer reached [`ANSWER_BYTES_MAX`]: ask again for them.
    pub unread: Vec<EntityKey>,
}

/// Which page to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Rows at most; 0 = [`PAGE_SIZE_DEFAULT`], more than 1,000 counts as 1,000.
    pub page_size: u32,
    /// [`Listing::next_page_token`] of the page before; empty = the first page.
    pub page_token: String,
}

/// One page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins, valid on every node and after a restart; empty at the end.
    pub next_page_token: String,
}

/// What to read with proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifiedSubject {
    /// An entity.
    Entity(EntityKey),
    /// A relationship.
    Relationship(Relationship),
}

/// A read that proves itself: hand `evidence` to `ledger_verify::proof::verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRead {
    /// The vault.
    pub vault: VaultId,
    /// Value or absence, state proof, header, inclusion, checkpoint.
    pub evidence: Evidence,
    /// RFC 6962 consistency path from the size that the caller trusts to the checkpoint's; empty when the
    /// caller trusts none, or that one.
    pub consistency: Vec<Hash>,
    /// The ledger's time, unix milliseconds.
    pub log_time_ms: u64,
}

/// A signed checkpoint of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointAnswer {
    /// The signed note.
    pub note: String,
    /// RFC 6962 consistency path from the size that the caller trusts.
    pub consistency: Vec<Hash>,
}

impl Ledger {
    /// One entity; `None` when it does not exist or has expired.
    pub async fn get(
        &self,
        vault: &VaultRef,
        key: &EntityKey,
        consistency: Consistency,
    ) -> Result<Read<Option<Entity>>, ReadFailure> {
        let now_ms = self.shared.options.clock.now_ms();
        self.read(vault, consistency, |state, info| state.entity(info.id, key, now_ms)).await
    }

    /// Returns once this node has applied everything that was acknowledged before the call: eventual reads that begin
    /// after it are linearizable, as many as there are.
    pub async fn catch_up(&self) -> Result<(), ReadFailure> {
        self.shared.handles.barrier.pass().await
    }

    /// One entity as it is applied here, without waiting for anything.
    pub fn get_applied(
        &self,
        vault: &VaultRef,
        key: &EntityKey,
    ) -> Result<Read<Option<Entity>>, ReadFailure> {
        let now_ms = self.shared.options.clock.now_ms();
        self.read_applied(vault, |state, info| state.entity(info.id, key, now_ms))
    }

    /// Whether a tuple exists, by its version, as it is applied here, without waiting for anything.
    pub fn check_applied(
        &self,
        vault: &VaultRef,
        relationship: &Relationship,
    ) -> Result<Read<Option<u64>>, ReadFailure> {
        self.read_applied(vault, |state, info| state.relationship_version(info.id, relationship))
    }

    /// Several entities, at most [`BATCH_KEYS_MAX`], at one height.
    pub async fn batch_get(
        &self,
        vault: &VaultRef,
        keys: &[EntityKey],
        consistency: Consistency,
    ) -> Result<Read<BatchGet>, ReadFailure> {
        if keys.len() > BATCH_KEYS_MAX {
            return Err(ReadFailure::TooManyKeys { count: keys.len(), max: BATCH_KEYS_MAX });
        }
        let now_ms = self.shared.options.clock.now_ms();
        self.read(vault, consistency, |state, info| {
            let mut answer = BatchGet { entities: Vec::new(), unread: Vec::new() };
            let mut bytes = 0;
            for key in keys {
                if bytes >= ANSWER_BYTES_MAX {
                    answer.unread.push(key.clone());
                } else if let Some(entity) = state.entity(info.id, key, now_ms)? {
                    bytes += key.as_str().len() + entity.value.len();
                    answer.entities.push((key.clone(), entity));
                }
            }
            Ok(answer)
        })
        .await
    }

    /// Whether a tuple exists, by its version: direct existence, nothing is expanded.
    pub async fn check(
        &self,
        vault: &VaultRef,
        relationship: &Relationship,
        consistency: Consistency,
    ) -> Result<Read<Option<u64>>, ReadFailure> {
        self.read(vault, consistency, |state, info| state.relationship_version(info.id, relationship)).await
    }

    /// Entities whose key starts with `prefix`, in key order.
    pub async fn list_entities(
        &self,
        vault: &VaultRef,
        prefix: &str,
        request: ListRequest,
        consistency: Consistency,
    ) -> Result<Read<Listing<(EntityKey, Entity)>>, ReadFailure> {
        let now_ms = self.shared.options.clock.now_ms();
        let query = Query { kind: 1, texts: &[prefix] };
        self.list(vault, &query, request, consistency, |state, id, page| {
            state.entities(id, prefix, page, now_ms)
        })
        .await
    }

    /// Relationships of a resource or of a subject.
    pub async fn list_relationships(
        &self,
        vault: &VaultRef,
        filter: RelationshipFilter,
        request: ListRequest,
        consistency: Consistency,
    ) -> Result<Read<Listing<Relationship>>, ReadFailure> {
        let (kind, first, relation) = match &filter {
            RelationshipFilter::ByResource { resource, relation } => (2, resource.as_str(), relation),
            RelationshipFilter::BySubject { subject, relation } => (3, subject.as_str(), relation),
        };
        // A relation is never empty, so an empty text stands for any.
        let relation = relation.as_ref().map_or("", |relation| relation.as_str());
        let query = Query { kind, texts: &[first, relation] };
        self.list(vault, &query, request, consistency, |state, id, page| {
            state.relationships(id, &filter, page)
        })
        .await
    }

    /// The newest block of a vault.
    pub async fn tip(&self, vault: &VaultRef, consistency: Consistency) -> Result<Read<Tip>, ReadFailure> {
        self.read(vault, consistency, |state, info| state.tip(info.id)).await
    }

    /// A block by height; `None` when the vault is not that high.
    pub fn block(&self, vault: &VaultRef, height: u64) -> Result<Option<Block>, ReadFailure> {
        self.at_once(vault, |state, info| state.block(info.id, height))
    }

    /// The last transaction of an actor in a vault.
    pub fn client_state(
        &self,
        vault: &VaultRef,
        actor: &Actor,
    ) -> Result<Option<(Receipt, IdempotencyKey)>, ReadFailure> {
        self.at_once(vault, |state, info| state.last_transaction(info.id, actor))
    }

    /// A value or its absence with everything that proves it, at the newest block. `trusted_size` is the
    /// size of the last checkpoint that the caller trusts, 0 = none.
    pub async fn verified_read(
        &self,
        vault: &VaultRef,
        subject: VerifiedSubject,
        trusted_size: u64,
    ) -> Result<VerifiedRead, ReadFailure> {
        self.shared.handles.barrier.pass().await?;
        let (id, found) = self.at_once(vault, |state, info| {
            Ok((info.id, state.state_evidence(info.id, &subject.state_key())?))
        })?;
        let height = found.header.height;
        let signed = self.signed(vault, id, height + 1).await?;
        let (inclusion_path, consistency, log_time_ms) = self.of_vault(vault, |state| {
            let inclusion = state.inclusion_path(id, height, signed.size)?;
            let consistency = consistency(state, id, trusted_size, signed.size)?;
            Ok((inclusion, consistency, state.log_time_ms()))
        })?;
        let evidence = Evidence {
            leaf: found.leaf,
            state_proof: found.proof,
            header: found.header.encode().to_vec(),
            inclusion_path,
            checkpoint: signed.note.clone(),
        };
        let consistency =
            consistency.ok_or(ReadFailure::TrustedSizeAhead { trusted_size, size: signed.size })?;
        Ok(VerifiedRead { vault: id, evidence, consistency, log_time_ms })
    }

    /// A signed checkpoint over at least the newest block.
    pub async fn checkpoint(
        &self,
        vault: &VaultRef,
        trusted_size: u64,
    ) -> Result<CheckpointAnswer, ReadFailure> {
        self.shared.handles.barrier.pass().await?;
        let (id, size) = self.at_once(vault, |_, info| Ok((info.id, info.height + 1)))?;
        let signed = self.signed(vault, id, size).await?;
        let consistency = self.of_vault(vault, |state| consistency(state, id, trusted_size, signed.size))?;
        let consistency =
            consistency.ok_or(ReadFailure::TrustedSizeAhead { trusted_size, size: signed.size })?;
        Ok(CheckpointAnswer { note: signed.note.clone(), consistency })
    }

    pub(crate) async fn signed(
        &self,
        vault: &VaultRef,
        id: VaultId,
        size_min: u64,
    ) -> Result<std::sync::Arc<crate::checkpoint_signer::SignedTip>, ReadFailure> {
        self.shared.handles.signer.checkpoint(id, size_min).await.map_err(|error| match error {
            SignError::VaultNotFound => ReadFailure::VaultNotFound { vault: vault.clone() },
            SignError::VaultDiverged => ReadFailure::Unavailable { reason: error.to_string() },
            SignError::Overloaded => ReadFailure::Overloaded { retry_after: SIGNER_RETRY_AFTER },
            SignError::Leader(_) => ReadFailure::Unavailable { reason: error.to_string() },
            SignError::State(error) => ReadFailure::Unavailable { reason: error.to_string() },
            SignError::Stopped => ReadFailure::Stopped,
        })
    }

    async fn read<T>(
        &self,
        vault: &VaultRef,
        consistency: Consistency,
        read: impl FnOnce(&LedgerState, &VaultInfo) -> Result<T, ReadError>,
    ) -> Result<Read<T>, ReadFailure> {
        if consistency == Consistency::Linearizable {
            self.shared.handles.barrier.pass().await?;
        }
        self.read_applied(vault, read)
    }

    fn read_applied<T>(
        &self,
        vault: &VaultRef,
        read: impl FnOnce(&LedgerState, &VaultInfo) -> Result<T, ReadError>,
    ) -> Result<Read<T>, ReadFailure> {
        self.at_once(vault, |state, info| {
            let value = read(state, info)?;
            Ok(Read { value, height: info.height, log_time_ms: state.log_time_ms() })
        })
    }

    /// Reads what is applied now, in one piece.
    pub(crate) fn at_once<T>(
        &self,
        vault: &VaultRef,
        read: impl FnOnce(&LedgerState, &VaultInfo) -> Result<T, ReadError>,
    ) -> Result<T, ReadFailure> {
        self.of_vault(vault, |state| {
            let info = state.vault(vault).ok_or(ReadError::VaultNotFound)?;
            read(state, &info)
        })
    }

    pub(crate) fn of_vault<T>(
        &self,
        vault: &VaultRef,
        read: impl FnOnce(&LedgerState) -> Result<T, ReadError>,
    ) -> Result<T, ReadFailure> {
        if self.shared.failure.get().is_some() {
            return Err(ReadFailure::Stopped);
        }
        let state = self.shared.handles.ledger.read()?;
        read(&state).map_err(|error| ReadFailure::of(error, vault))
    }

    async fn list<T>(
        &self,
        vault: &VaultRef,
        query: &Query<'_>,
        request: ListRequest,
        consistency: Consistency,
        list: impl FnOnce(&LedgerState, VaultId, &PageRequest) -> Result<Page<T>, ReadError>,
    ) -> Result<Read<Listing<T>>, ReadFailure> {
        let mut refused = None;
        let read = self.read(vault, consistency, |state, info| {
            let scope = query.scope(info.id);
            // An open ledger has its identity, and with it the key.
            let page_key = state.page_key().copied().unwrap_or_default();
            let after = match request.page_token.as_str() {
                "" => None,
                token => match page_token::decode(&page_key, &scope, token) {
                    Ok(after) => Some(after),
                    Err(error) => {
                        refused = Some(error);
                        return Ok(Listing { items: Vec::new(), next_page_token: String::new() });
                    }
                },
            };
            let page = list(
                state,
                info.id,
                &PageRequest { after, limit: request.limit(), bytes_max: ANSWER_BYTES_MAX },
            )?;
            let token = |next: Vec<u8>| page_token::encode(&page_key, &scope, &next);
            Ok(Listing { items: page.items, next_page_token: page.next.map(token).unwrap_or_default() })
        });
        let listing = read.await?;
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(listing),
        }
    }
}

/// `None` when the caller trusts more than there is.
pub(crate) fn consistency(
    state: &LedgerState,
    vault: VaultId,
    trusted_size: u64,
    size: u64,
) -> Result<Option<Vec<Hash>>, ReadError> {
    if trusted_size > size {
        return Ok(None);
    }
    if trusted_size == 0 || trusted_size == size {
        return Ok(Some(Vec::new()));
    }
    state.consistency_path(vault, trusted_size, size).map(Some)
}

impl ListRequest {
    pub(crate) fn limit(&self) -> usize {
        match self.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => usize::try_from(size).unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX),
        }
    }
}

/// What a page token is bound to, beside the vault.
pub(crate) struct Query<'a> {
    pub kind: u8,
    pub texts: &'a [&'a str],
}

impl Query<'_> {
    /// Canonical bytes: kind, vault, then each text with its length.
    pub fn scope(&self, vault: VaultId) -> Bytes {
        let mut scope = vec![self.kind];
        scope.extend(vault.0);
        for text in self.texts {
            scope.extend((text.len() as u64).to_be_bytes());
            scope.extend(text.as_bytes());
        }
        scope.into()
    }
}
