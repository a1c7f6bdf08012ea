//! Everything that a node has applied, and how one more log entry changes it.
//!
//! [`LedgerState`] is deterministic: the same entries at the same positions give the same rows, blocks
//! and roots on every node. It knows no clock; time comes with the entry and never goes back.

mod block;
mod directory;
mod evidence;
mod fence;
mod history;
mod idempotency;
mod integrity;
mod journal;
mod lists;
mod load;
mod read;
mod recovery;
mod replay;
mod replica_digests;
mod retention;
mod rewind;
mod scan;
mod staged;
mod tokens;
mod undo;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ledger_verify::Hash;
use ledger_verify::header::{BlockHeader, HEADER_VERSION};

pub use evidence::{Block, StateEvidence, Tip};
pub use history::{HistoryCursor, HistoryLimit, HistoryPage, KeyChange, KeyVersion, LastChange};
pub use integrity::{
    ISSUES_MAX, IntegrityCheck, IntegrityDepth, IntegrityIssue, IntegrityReport, IssueKind, Progress,
};
pub use lists::{Collected, LIST_BLOCKS_MAX, LIST_MEMBERS_MAX, ListCollector, ListHead};
pub use read::{PAGE_ROWS_MAX, Page, PageRequest, ReadError, RelationshipFilter};
pub use recovery::{Recovered, RecoveryRefusal, VaultRecovery};
pub use replica_digests::{ReplicaDigests, VaultDigest};
pub use rewind::{REWIND_IN_PLACE_MAX, Rewind};

pub(crate) use lists::{ListRows, list_leaves, with_lists};
pub(crate) use replay::written;
pub(crate) use scan::from_hex;

pub use crate::overlay::FlushJob;

use crate::access_token::AccessTokens;
use crate::codec::{self, CodecError};
use crate::command::{Command, Fence, Outcome, Proposal, Retention};
use crate::list_sets::ListSets;
use crate::log_tree::LogTree;
use crate::names::{LedgerId, NamespaceName, VaultId, VaultName, VaultNumber, VaultRef};
use crate::overlay::Overlay;
use crate::ports::{AppliedState, LogId, RowChange, StateStore, StateView, StoreError, Table};
use crate::rows::{self, HorizonRow, LedgerRow, VaultRow};
use crate::state_tree::StateTree;
use idempotency::IdempotencyIndex;
use journal::Journal;
use replica_digests::RecentDigests;
use staged::StagedContent;

/// Keys (entities and relationships, of all vaults) that one node holds in its state trees.
pub const KEYS_MAX: u64 = 10_000_000;

/// The state cannot be read or continued: the node must stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Rows contradict each other or the headers: the store was changed outside the ledger.
    #[error(
        "the stored state is inconsistent: {what}. Run `strongroom ledger doctor` on a copy of the data directory"
    )]
    Inconsistent {
        /// What does not fit.
        what: String,
    },
    /// The first proposal was not [`Command::Initialise`].
    #[error("the ledger has no identity yet")]
    NotInitialised,
    /// The ledger was told to write headers that this program does not know.
    #[error(
        "the ledger writes block headers of version {version}, this program knows versions up to {known}: use a newer \
         program"
    )]
    HeaderVersionUnknown {
        /// Version that the ledger writes.
        version: u16,
        /// Newest version that is known here.
        known: u16,
    },
}

pub(crate) fn inconsistent(what: impl Into<String>) -> StateError {
    StateError::Inconsistent { what: what.into() }
}

/// Refuses a version that only a newer program knows.
fn known_header_version(version: u16) -> Result<u16, StateError> {
    if version <= HEADER_VERSION {
        Ok(version)
    } else {
        Err(StateError::HeaderVersionUnknown { version, known: HEADER_VERSION })
    }
}

/// What a node has applied: directory, trees, idempotency, and the rows that are not stored yet.
pub struct LedgerState {
    overlay: Overlay,
    applied: Option<LogId>,
    membership: Bytes,
    identity: Option<LedgerRow>,
    namespaces: BTreeMap<NamespaceName, Namespace>,
    vaults: BTreeMap<VaultId, Vault>,
    /// Ids of every vault there ever was.
    vault_ids_used: BTreeSet<VaultId>,
    idempotency: IdempotencyIndex,
    key_count: u64,
    /// Version of the headers that blocks get from now on.
    header_version: u16,
    cluster_id: Option<[u8; 16]>,
    tokens: Arc<AccessTokens>,
    journal: Journal,
    /// What other replicas are compared with beside blocks.
    digests: RecentDigests,
}

/// The change that makes a stored ledger forget its cluster: for a node that goes on in a new one.
pub fn without_cluster() -> RowChange {
    RowChange { table: Table::Ledger, key: rows::CLUSTER_KEY.to_vec(), value: None }
}

struct Namespace {
    created_at_ms: u64,
    vaults: BTreeMap<VaultName, VaultId>,
}

struct Vault {
    number: VaultNumber,
    name: VaultRef,
    created_at_ms: u64,
    header: BlockHeader,
    block_hash: Hash,
    /// Empty while the vault is fenced, as are `lists` and `log`.
    tree: StateTree,
    /// Kept for every header version; in the tree from the first header that covers lists.
    lists: ListSets,
    log: LogTree,
    horizon: HorizonRow,
    fence: Option<Fence>,
}

impl Vault {
    fn row(&self, id: VaultId, deleted_at_ms: Option<u64>) -> Result<Bytes, CodecError> {
        let row = VaultRow {
            id,
            namespace: self.name.namespace.clone(),
            name: self.name.vault.clone(),
            created_at_ms: self.created_at_ms,
            deleted_at_ms,
            header: self.header.encode().to_vec(),
        };
        rows::encode_vault(&row, &self.horizon)
    }
}

impl LedgerState {
    /// Reads the store and rebuilds every tree; the roots are the roots before the restart, or the
    /// call fails naming the vault.
    pub fn load(store: Arc<dyn StateStore>) -> Result<Self, StateError> {
        load::load(store)
    }

    /// As [`load`](Self::load), from a content that `store` does not have yet: what [`StateInstall::view`] shows. Use
    /// the state once that content is published, and not before.
    ///
    /// [`StateInstall::view`]: crate::ports::StateInstall::view
    pub fn load_ahead(content: Box<dyn StateView>, store: Arc<dyn StateStore>) -> Result<Self, StateError> {
        let mut state = Self::load_staged(content)?;
        state.stand_on(store);
        Ok(state)
    }

    /// As [`load`](Self::load), from a content that no store has yet: entries can be applied to it, and nothing of it can be
    /// flushed before it [stands on](Self::stand_on) a store with that content.
    pub fn load_staged(content: Box<dyn StateView>) -> Result<Self, StateError> {
        load::load(Arc::new(StagedContent::new(content)))
    }

    /// The content that this was loaded from is in a store now.
    pub fn stand_on(&mut self, store: Arc<dyn StateStore>) {
        self.overlay.move_to(store);
    }

    /// The newest entry whose effects are here.
    pub fn last_applied(&self) -> Option<LogId> {
        self.applied
    }

    /// The newest membership, as the node encoded it; empty when there was none.
    pub fn membership(&self) -> &Bytes {
        &self.membership
    }

    /// Identity of the ledger; `None` before its first entry.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.identity.as_ref().map(|row| row.ledger_id)
    }

    /// The key of page tokens; `None` before the first entry.
    pub fn page_key(&self) -> Option<&[u8; 32]> {
        self.identity.as_ref().map(|row| &row.page_key)
    }

    /// Time of the newest entry, unix milliseconds.
    pub fn log_time_ms(&self) -> u64 {
        self.identity.as_ref().map_or(0, |row| row.log_time_ms)
    }

    /// Applies a proposal. A refusal is an [`Outcome`]; an error means that the node must stop.
    pub fn apply(&mut self, at: LogId, proposal: &Proposal) -> Result<Outcome, StateError> {
        if let Command::Initialise { ledger_id, page_key } = &proposal.command {
            let outcome = self.initialise(*ledger_id, *page_key, proposal.time_ms)?;
            self.journal.begin(&mut self.overlay, at.index);
            self.applied = Some(at);
            return Ok(outcome);
        }
        let time_ms = self.advance_time(proposal.time_ms)?;
        let outcome = match &proposal.command {
            Command::Initialise { .. } => Outcome::Initialised(false),
            Command::CreateNamespace { name } => Outcome::Namespace(self.create_namespace(name, time_ms)?),
            Command::DeleteNamespace { name } => Outcome::Namespace(self.delete_namespace(name)),
            Command::CreateVault { vault, id } => {
                Outcome::Vault(self.create_vault(at, vault, *id, Retention::Full, time_ms)?)
            }
            Command::CreateVaultRetaining { vault, id, retention } => {
                Outcome::Vault(self.create_vault(at, vault, *id, *retention, time_ms)?)
            }
            Command::SetRetention { vault, retention } => {
                Outcome::Vault(self.set_retention(vault, *retention)?)
            }
            Command::Compact => Outcome::Compacted(self.compact()?),
            Command::DeleteVault { vault } => Outcome::Vault(self.delete_vault(vault, time_ms)?),
            Command::RaiseHeaderVersion { version } => {
                Outcome::HeaderVersion(self.raise_header_version(*version)?)
            }
            Command::PutToken { token } => Outcome::Token(self.put_token(token)?),
            Command::RevokeToken { id } => Outcome::Token(self.revoke_token(*id)?),
            Command::FirstTokens { tokens } => Outcome::FirstTokens(self.first_tokens(tokens)?),
            Command::Write { submissions } => Outcome::Writes(self.write(at, time_ms, submissions)?),
            Command::NameCluster { cluster_id } => Outcome::Cluster(self.name_cluster(*cluster_id)),
        };
        self.journal.record(&mut self.overlay, at, time_ms, &proposal.command, &outcome)?;
        self.store_identity()?;
        self.applied = Some(at);
        Ok(outcome)
    }

    /// Version of the headers that blocks get: see [`Command::RaiseHeaderVersion`].
    pub fn header_version(&self) -> u16 {
        self.header_version
    }

    /// Identity of the cluster: see [`Command::NameCluster`]; `None` before the ledger was in one.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.cluster_id
    }

    /// Applies an entry that carries nothing.
    pub fn apply_blank(&mut self, at: LogId) {
        self.applied = Some(at);
    }

    /// Applies a membership change.
    pub fn apply_membership(&mut self, at: LogId, membership: Bytes) {
        self.membership = membership;
        self.applied = Some(at);
    }

    /// Weight of what is applied but not stored, in bytes.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Freezes what is not stored yet; `None` when there is nothing or a flush is under way. Commit
    /// [`FlushJob::batch`] outside the lock, then call [`finish_flush`](Self::finish_flush).
    pub fn start_flush(&mut self) -> Option<FlushJob> {
        let last_applied = self.applied?;
        self.overlay.start_flush(AppliedState { last_applied, membership: self.membership.clone() })
    }

    /// The batch of [`start_flush`](Self::start_flush) is durable.
    pub fn finish_flush(&mut self) {
        self.overlay.finish_flush();
    }

    fn initialise(
        &mut self,
        ledger_id: LedgerId,
        page_key: [u8; 32],
        time_ms: u64,
    ) -> Result<Outcome, StateError> {
        if self.identity.is_some() {
            return Ok(Outcome::Initialised(false));
        }
        self.identity = Some(LedgerRow {
            ledger_id,
            page_key,
            log_time_ms: time_ms,
            forgotten_before_ms: 0,
            next_vault_number: 1,
        });
        self.store_identity()?;
        Ok(Outcome::Initialised(true))
    }

    fn raise_header_version(&mut self, version: u16) -> Result<u16, StateError> {
        if version > self.header_version {
            self.header_version = known_header_version(version)?;
            let row = version.to_be_bytes().to_vec();
            self.overlay.put(Table::Ledger, rows::HEADER_VERSION_KEY.to_vec(), row);
        }
        Ok(self.header_version)
    }

    fn name_cluster(&mut self, cluster_id: [u8; 16]) -> [u8; 16] {
        if self.cluster_id != Some(cluster_id) {
            self.cluster_id = Some(cluster_id);
            self.overlay.put(Table::Ledger, rows::CLUSTER_KEY.to_vec(), cluster_id.to_vec());
        }
        cluster_id
    }

    fn advance_time(&mut self, time_ms: u64) -> Result<u64, StateError> {
        self.note_digests(time_ms);
        let identity = self.identity.as_mut().ok_or(StateError::NotInitialised)?;
        identity.log_time_ms = identity.log_time_ms.max(time_ms);
        Ok(identity.log_time_ms)
    }

    fn store_identity(&mut self) -> Result<(), StateError> {
        if let Some(identity) = &self.identity {
            let row = codec::encode("the ledger row", identity)?;
            self.overlay.put(Table::Ledger, rows::LEDGER_KEY.to_vec(), row);
        }
        Ok(())
    }
}
