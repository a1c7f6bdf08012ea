//! The façade: one ledger, opened in this process.

use std::fmt;
use std::sync::{Arc, RwLockReadGuard};
use std::time::Duration;

use ledger_core::command::{Command, NamespaceInfo, Outcome, Receipt, Retention, VaultInfo};
use ledger_core::ledger_state::LedgerState;
use ledger_core::names::{LedgerId, NamespaceName, VaultId, VaultRef};
use ledger_core::ports::{LogStore, StateStore};
use ledger_core::transaction::{Actor, Transaction};
use ledger_verify::note::{SigningKey, VerifierKey};
use tokio::sync::Semaphore;

use crate::backup::BACKUPS_AT_ONCE;
use crate::batcher::{Write, WriteTarget};
use crate::cluster::{AloneHandler, Cluster, NodeHandler, forward_command};
use crate::counters::{CounterCells, Counters, add};
use crate::directory::DataDirectory;
use crate::errors::{AdminError, OpenError, RESERVED_ACTORS, ShutdownError, WriteError};
use crate::failure::{FailureCell, NodeFailure};
use crate::historical_proofs::HistoricalProofs;
use crate::node_thread::{self, NodeHandles, NodeParts, NodeThread};
use crate::options::Options;
use crate::peers::PeerHandler;
use crate::randomness::Randomness;
use crate::snapshots::{SnapshotFailure, SnapshotFolder, SnapshotWork, StoredSnapshot};
use crate::verified_lists::KeptLists;
use crate::write_state::WriteState;

/// Administrative commands on their way at once; more are refused with a retry time.
const ADMIN_COMMANDS_MAX: usize = 64;
const ADMIN_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a node that stops tries to hand the lead over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The storage of one node.
#[derive(Clone)]
pub struct Stores {
    /// The replicated log.
    pub log: Arc<dyn LogStore>,
    /// The materialised state.
    pub state: Arc<dyn StateStore>,
}

/// What a node knows about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Identity of the node.
    pub node_id: u64,
    /// Raft term.
    pub term: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// Index of the last log entry.
    pub last_log_index: u64,
    /// Index of the last entry that is applied.
    pub last_applied: u64,
    /// Index of the last entry whose effects are durable in the state store; 0 also when there is none.
    pub durable_applied: u64,
    /// Index of the last entry that was purged from the log; `None` = none was.
    pub purged: Option<u64>,
    /// Applied bytes that are not in the state store yet.
    pub overlay_bytes: u64,
    /// Namespaces.
    pub namespace_count: u64,
    /// Vaults.
    pub vault_count: u64,
    /// Index of the last entry in the newest snapshot; `None` = there is no snapshot.
    pub snapshot_index: Option<u64>,
    /// When the newest snapshot was begun, unix milliseconds; `None` = there is no snapshot.
    pub snapshot_created_at_ms: Option<u64>,
    /// Vaults that are fenced because what is stored of them does not fit their blocks.
    pub fenced_vault_count: u64,
}

/// A ledger that is open in this process. Clones share it; the last one that goes stops the node.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub handles: NodeHandles,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
    pub options: Options,
    randomness: Randomness,
    node_id: u64,
    ledger_id: LedgerId,
    verifier_key: VerifierKey,
    signing_key: SigningKey,
    pub lists: KeptLists,
    admin: Semaphore,
    pub historical_proofs: HistoricalProofs,
    pub maintenance: Arc<Semaphore>,
    pub backups: Arc<Semaphore>,
    pub thread: NodeThread,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("ledger_id", &self.shared.ledger_id)
            .field("node_id", &self.shared.node_id)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger of a data directory, or makes a new one. Returns once this node leads and
    /// everything that was ever acknowledged is applied.
    pub async fn open(
        mut directory: DataDirectory,
        stores: Stores,
        options: Options,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        // The stores are open, so they have the present format.
        directory.finish_upgrade()?;
        let counters = Arc::new(CounterCells::default());
        let failure = FailureCell::default();
        let (node_id, ledger_id) = (directory.node_id(), directory.ledger_id());
        let verifier_key = directory.signing_key().verifier_key();
        let signing_key = directory.signing_key().clone();
        let seed = options.threads.seed_of(directory.node_id());
        let randomness = seed.map_or_else(Randomness::system, Randomness::seeded);
        let parts = NodeParts {
            directory,
            stores,
            options: options.clone(),
            counters: Arc::clone(&counters),
            failure: failure.clone(),
            randomness: randomness.clone(),
        };
        let (handles, thread) = node_thread::start(parts).await?;
        let admin = Semaphore::new(ADMIN_COMMANDS_MAX);
        let lists = KeptLists::default();
        let historical_proofs = HistoricalProofs::new();
        let maintenance = Arc::new(Semaphore::new(1));
        let backups = Arc::new(Semaphore::new(BACKUPS_AT_ONCE));
        let shared = Shared {
            handles,
            counters,
            failure,
            options,
            randomness,
            node_id,
            ledger_id,
            verifier_key,
            signing_key,
            lists,
            admin,
            historical_proofs,
            maintenance,
            backups,
            thread,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Identity of the ledger.
    pub fn ledger_id(&self) -> LedgerId {
        self.shared.ledger_id
    }

    /// The public key of the ledger's checkpoints.
    pub fn verifier_key(&self) -> VerifierKey {
        self.shared.verifier_key.clone()
    }

    /// The origin line of a vault's checkpoints.
    pub fn origin(&self, vault: VaultId) -> String {
        self.shared.handles.signer.origin(vault)
    }

    /// Time of the newest log entry, unix milliseconds.
    pub fn log_time_ms(&self) -> u64 {
        self.directory().log_time_ms()
    }

    /// What the node knows about itself.
    pub fn node_info(&self) -> NodeStatus {
        let handles = &self.shared.handles;
        let consensus = handles.consensus.status();
        let state = self.directory();
        let snapshot = handles.snapshots.newest();
        NodeStatus {
            node_id: self.shared.node_id,
            term: consensus.term,
            is_leader: consensus.is_leader,
            last_log_index: consensus.last_log_index.unwrap_or(0),
            last_applied: handles.ledger.applied_index().unwrap_or(0),
            durable_applied: handles.flusher.durable_index().unwrap_or(0),
            purged: consensus.purged_index,
            overlay_bytes: state.overlay_bytes() as u64,
            namespace_count: state.namespace_count(),
            vault_count: state.vault_count(),
            snapshot_index: snapshot.map(|newest| newest.index),
            snapshot_created_at_ms: snapshot.map(|newest| newest.created_at_ms),
            fenced_vault_count: state.fenced_count(),
        }
    }

    /// The first of the fenced vaults, at most so many; [`NodeStatus::fenced_vault_count`] counts them all.
    pub fn fenced_vaults(&self, max: usize) -> Vec<VaultRef> {
        self.directory().fenced_vaults().take(max).map(|(vault, _)| vault.clone()).collect()
    }

    /// What the node has done since it opened.
    pub fn counters(&self) -> Counters {
        self.shared.counters.read()
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, name: NamespaceName) -> Result<NamespaceInfo, AdminError> {
        self.namespace_command(Command::CreateNamespace { name }).await
    }

    /// Deletes an empty namespace; answers what it was.
    pub async fn delete_namespace(&self, name: NamespaceName) -> Result<NamespaceInfo, AdminError> {
        self.namespace_command(Command::DeleteNamespace { name }).await
    }

    /// Creates a vault with its genesis block.
    pub async fn create_vault(&self, vault: VaultRef) -> Result<VaultInfo, AdminError> {
        let id = self.mint_vault_id()?;
        self.vault_command(Command::CreateVault { vault, id }).await
    }

    /// Creates a vault that keeps as much of its past as is said.
    pub async fn create_vault_retaining(
        &self,
        vault: VaultRef,
        retention: Retention,
    ) -> Result<VaultInfo, AdminError> {
        let id = self.mint_vault_id()?;
        self.vault_command(Command::CreateVaultRetaining { vault, id, retention }).await
    }

    /// Changes how much of its past a vault keeps. What is no longer covered is dropped in the background,
    /// a first part before this returns; what is gone stays gone.
    pub async fn set_retention(
        &self,
        vault: VaultRef,
        retention: Retention,
    ) -> Result<VaultInfo, AdminError> {
        let info = self.vault_command(Command::SetRetention { vault: vault.clone(), retention }).await?;
        if self.directory().compaction_backlog() > 0 {
            self.admin_command(Command::Compact).await?;
        }
        // It may have been deleted meanwhile.
        Ok(self.vault(&vault).unwrap_or(info))
    }

    /// Deletes a vault with all that it holds; answers what it was.
    pub async fn delete_vault(&self, vault: VaultRef) -> Result<VaultInfo, AdminError> {
        let info = self.vault_command(Command::DeleteVault { vault }).await?;
        self.shared.handles.signer.forget(info.id);
        self.shared.historical_proofs.forget(info.id);
        Ok(info)
    }

    /// One namespace.
    pub fn namespace(&self, name: &NamespaceName) -> Option<NamespaceInfo> {
        self.directory().namespace(name)
    }

    /// Namespaces in name order, at most `limit` of them, after a name.
    pub fn namespaces(&self, after: Option<&NamespaceName>, limit: usize) -> Vec<NamespaceInfo> {
        self.directory().namespaces(after, limit)
    }

    /// One vault.
    pub fn vault(&self, vault: &VaultRef) -> Option<VaultInfo> {
        self.directory().vault(vault)
    }

    /// Vaults of one namespace or of all, in name order, at most `limit` of them, after a name.
    pub fn vaults(
        &self,
        namespace: Option<&NamespaceName>,
        after: Option<&VaultRef>,
        limit: usize,
    ) -> Vec<VaultInfo> {
        self.directory().vaults(namespace, after, limit)
    }

    /// Writes a transaction. The receipt means: committed, durable, applied. After an error without a
    /// decision, write again with the same idempotency key: the transaction happens once.
    pub async fn write(
        &self,
        vault: &VaultRef,
        actor: &Actor,
        transaction: Transaction,
    ) -> Result<Receipt, WriteError> {
        if actor.as_str().starts_with(RESERVED_ACTORS) {
            return Err(WriteError::ReservedActor { actor: actor.as_str().to_owned() });
        }
        let target = WriteTarget::Named(vault.clone());
        self.shared.handles.queue.write(Write { target, actor: actor.clone(), transaction }).await
    }

    /// Takes writes and commands, or refuses them: those of this node's callers and those that other members send because
    /// it leads. What waits already is still written.
    pub fn set_write_state(&self, state: WriteState) {
        self.shared.handles.queue.switch().set(state);
    }

    /// Writes a snapshot of all that is applied now, in the background; answers when it is durable. When nothing
    /// changed since the newest one, answers that one.
    pub async fn create_snapshot(&self) -> Result<StoredSnapshot, SnapshotFailure> {
        self.hear_of_the_newest().await;
        self.shared.handles.snapshots.create().await
    }

    /// What this node is doing about snapshots.
    pub fn snapshot_work(&self) -> SnapshotWork {
        self.shared.handles.snapshots.work()
    }

    /// Breaks off the snapshot that is being written, and writes none until
    /// [`release_snapshots`](Self::release_snapshots): for a disk that is nearly full.
    pub fn hold_back_snapshots(&self) {
        self.shared.handles.snapshots.hold_back();
    }

    /// Lets snapshots be written again.
    pub fn release_snapshots(&self) {
        self.shared.handles.snapshots.release();
    }

    /// The folder of this node's snapshots. Listing it reads files: call it where waiting for a disk is allowed.
    pub fn snapshots(&self) -> SnapshotFolder {
        self.shared.handles.snapshots.folder().clone()
    }

    /// Looks for expired entities now, as the node does by itself at its interval; answers how many were expired.
    pub async fn collect_garbage(&self) -> u64 {
        self.shared.handles.collector.collect().await
    }

    /// Resolves when the node has stopped by itself because a store or the engine failed: end the
    /// process then.
    pub async fn failure(&self) -> NodeFailure {
        self.shared.failure.wait().await
    }

    /// Hands the lead over, takes no more writes, finishes those that wait, flushes, and releases the data directory.
    /// The state store stays open for as long as a clone of this handle lives: drop them before opening it again.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let cluster = &self.shared.handles.cluster;
        let leads_others =
            cluster.consensus.status().is_leader && cluster.consensus.members().voters.len() > 1;
        if leads_others && self.shared.failure.get().is_none() {
            // Without a successor the others elect one a little later.
            let _ = tokio::time::timeout(HAND_OVER_TIMEOUT, cluster.steward.transfer(None)).await;
        }
        // The thread may have ended before, or stop already: both are what is asked for.
        let _ = self.shared.thread.stop.try_send(());
        let mut ended = self.shared.thread.ended.clone();
        while ended.changed().await.is_ok() {}
        match self.shared.failure.get() {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> Cluster {
        Cluster(Arc::clone(&self.shared.handles.cluster))
    }

    /// Whether a leader is known, and this node has caught up with it since it began to lead.
    pub fn ready(&self) -> bool {
        *self.shared.handles.cluster.ready.borrow()
    }

    /// Resolves when the node is [`ready`](Self::ready), or has stopped.
    pub async fn wait_ready(&self) {
        let mut ready = self.shared.handles.cluster.ready.clone();
        // An error: the node has stopped.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Answers what peers ask of this node. Hand it every request that arrives while the ledger is open.
    pub fn peer_handler(&self) -> Arc<dyn PeerHandler> {
        let Some(options) = self.shared.options.cluster.as_ref() else { return Arc::new(AloneHandler) };
        let key = self.shared.signing_key.clone();
        Arc::new(NodeHandler {
            cluster: Arc::clone(&self.shared.handles.cluster),
            cluster_id: options.cluster_id,
            member: options.member.clone(),
            queue: self.shared.handles.queue.clone(),
            snapshots: self.shared.handles.receiver.clone(),
            ledger: Arc::clone(&self.shared.handles.ledger),
            signer: self.shared.handles.signer.clone(),
            checkpoints: self.shared.handles.checkpoints.clone(),
            repairs: Arc::clone(&self.shared.handles.repairs),
            public_key: key.verifier_key(),
            log_key: Arc::new(move || key.to_secret_text().to_string()),
        })
    }

    /// A UUIDv7 that no other vault has.
    fn mint_vault_id(&self) -> Result<VaultId, AdminError> {
        let random = self.shared.randomness.bytes();
        let random = random.map_err(|error| AdminError::Unavailable { reason: error.to_string() })?;
        let now_ms = self.shared.options.clock.now_ms();
        let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid();
        Ok(VaultId(id.into_bytes()))
    }

    fn directory(&self) -> RwLockReadGuard<'_, LedgerState> {
        self.shared.handles.ledger.read_directory()
    }

    async fn namespace_command(&self, command: Command) -> Result<NamespaceInfo, AdminError> {
        match self.admin_command(command).await? {
            Some(Outcome::Namespace(outcome)) => Ok(outcome?),
            other => Err(unexpected(other.as_ref())),
        }
    }

    async fn vault_command(&self, command: Command) -> Result<VaultInfo, AdminError> {
        match self.admin_command(command).await? {
            Some(Outcome::Vault(outcome)) => Ok(outcome?),
            other => Err(unexpected(other.as_ref())),
        }
    }

    pub(crate) async fn admin_command(&self, command: Command) -> Result<Option<Outcome>, AdminError> {
        let Ok(_permit) = self.shared.admin.try_acquire() else {
            add(&self.shared.counters.overloads, 1);
            return Err(AdminError::Overloaded { retry_after: ADMIN_RETRY_AFTER });
        };
        let handles = &self.shared.handles;
        handles.queue.switch().admit_command(&command)?;
        let leads = handles.consensus.status().is_leader;
        let outcome = if leads || handles.cluster.cluster_id.is_none() {
            handles.consensus.propose(command).await
        } else {
            forward_command(&handles.cluster.leader_calls, command).await
        };
        outcome.map_err(|error| (&error).into())
    }
}

/// Cannot happen while outcomes match their commands; an error is still better than a wrong answer.
pub(crate) fn unexpected(outcome: Option<&Outcome>) -> AdminError {
    AdminError::Unavailable { reason: format!("the command was answered with {outcome:?}") }
}
