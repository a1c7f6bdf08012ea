//! What the calls of a [`Ledger`](crate::Ledger) answer when they do not do what was asked.

use std::time::Duration;

use ledger_core::command::{AdminRefusal, Fence, WriteRefusal};
use ledger_core::ledger_state::{ReadError, StateError};
use ledger_core::names::{LedgerId, VaultId, VaultRef};
use ledger_core::page_token::PageTokenError;
use ledger_core::ports::StoreError;

use crate::applied_state::HalfApplied;
use crate::directory::DirectoryError;
use crate::failure::NodeFailure;
use crate::options::OptionsError;
use crate::peers::ClusterId;
use crate::raft::ConsensusError;
use crate::write_state::DiskFull;

/// Actors of the ledger itself.
pub(crate) const RESERVED_ACTORS: &str = "system:";
/// By then an election has a good chance to be over.
pub(crate) const NO_LEADER_RETRY_AFTER: Duration = Duration::from_millis(200);

/// A ledger could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting that the node cannot work with.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log store cannot be read.
    #[error("the log store cannot be read: {0}")]
    LogStore(#[source] StoreError),
    /// The state store cannot be read, or contradicts itself.
    #[error("the state store cannot be read: {0}")]
    StateStore(#[source] StateError),
    /// The log key is another ledger's.
    #[error(
        "log.key belongs to ledger {key}, the data to ledger {data}: put the right key back, or open another data directory"
    )]
    KeyOfAnotherLedger {
        /// Identity in the key's name.
        key: LedgerId,
        /// Identity in the state.
        data: LedgerId,
    },
    /// The cluster's leader signs with another key.
    #[error(
        "the leader of the cluster signs with {leaders}, this node holds {here}: the key was rotated while this node was no \
         part of the cluster. Start it again: it takes the present key over from the leader"
    )]
    KeyRotated {
        /// The public key here.
        here: String,
        /// The leader's.
        leaders: String,
    },
    /// The state is that of another cluster.
    #[error(
        "the directory belongs to cluster {directory}, its data to cluster {data}: files of two nodes were mixed. Put the \
         right ones back, or start with an empty directory"
    )]
    OtherCluster {
        /// The cluster in the state.
        data: ClusterId,
        /// The cluster that the directory names.
        directory: ClusterId,
    },
    /// The log ends before what the state store holds.
    #[error(
        "the log ends {}, but the state holds entries up to {applied}: files of different times were mixed. Restore \
         raft.wal, state.db and blocks.db together, all three from the same copy",
        at_entry(*log_last)
    )]
    LogOlderThanState {
        /// Index of the log's last entry, purged ones included; `None` = it never had one.
        log_last: Option<u64>,
        /// Index of the last entry in the state store.
        applied: u64,
    },
    /// The log was purged beyond what the state store holds: the entries between are gone.
    #[error(
        "the log begins after entry {purged}, but the state ends {}: the entries between are missing because files of \
         different times were mixed. Restore raft.wal, state.db and blocks.db together, all three from the same copy",
        at_entry(*applied)
    )]
    StateOlderThanLog {
        /// Index of the last entry that was purged from the log.
        purged: u64,
        /// Index of the last entry in the state store; `None` = it is empty.
        applied: Option<u64>,
    },
    /// A checkpoint was signed that the recovered log does not contain: the data went back in time.
    #[error(
        "vault {vault} has {recovered_size} blocks, but a checkpoint over {signed_size} blocks was signed here{}: \
         the data directory was restored from an older copy or lost its end. Signing on would contradict what was \
         published. Put the newest copy back, or export what is here and import it into a new ledger",
        if *recovered_size >= *signed_size { " with other content" } else { "" }
    )]
    SignedCheckpointLost {
        /// The vault, by its name or, when the name is unknown, its id.
        vault: String,
        /// Its identity.
        vault_id: VaultId,
        /// Size of the checkpoint that was signed.
        signed_size: u64,
        /// Size of the recovered log.
        recovered_size: u64,
    },
    /// The consensus engine refused to start.
    #[error("consensus cannot start: {reason}")]
    Consensus {
        /// Why.
        reason: String,
    },
    /// The folder of snapshots cannot be used.
    #[error("the folder of snapshots cannot be used: {0}. Make it readable and writable for this user")]
    Snapshots(#[source] std::io::Error),
    /// The node failed while it recovered.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
    /// A thread could not be started, or ended while the ledger opened.
    #[error("a thread of the node could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

fn at_entry(index: Option<u64>) -> String {
    index.map_or_else(|| "before the first entry".to_owned(), |index| format!("at entry {index}"))
}

/// A write was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The transaction was decided: it changed nothing.
    #[error(transparent)]
    Refused(#[from] WriteRefusal),
    /// Only the ledger itself writes as `system:`.
    #[error("{actor} is reserved for the ledger itself: write as user:ID or client:ID")]
    ReservedActor {
        /// The actor given.
        actor: String,
    },
    /// Too many writes wait. Nothing was done.
    #[error("too many writes wait: try again in {retry_after:?}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disk of the node that leads, or of this one, is nearly full: it only reads. Nothing was done.
    #[error(
        "the disk is nearly full, so the ledger only reads: nothing was written. Add room to the disk of the data \
         directory and try again"
    )]
    DiskFull,
    /// Nobody leads, or the leader did not take it. Nothing was done.
    #[error(
        "no leader has taken it{}: try again in {retry_after:?}",
        leader.map_or_else(String::new, |id| format!(" (node {id} may lead)"))
    )]
    NoLeader {
        /// Who may lead: ask that node, or try again here.
        leader: Option<u64>,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node does not lead, or no quorum answers. The write may or may not happen: repeat it with
    /// the same idempotency key.
    #[error("the ledger is not available here ({reason}): repeat the write with the same idempotency key")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The node stops. The write may or may not have happened: repeat it with the same idempotency key.
    #[error("the node stops: repeat the write with the same idempotency key once it is back")]
    Stopped,
}

/// An administrative command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The command was decided: it changed nothing.
    #[error(transparent)]
    Refused(#[from] AdminRefusal),
    /// Too many commands wait. Nothing was done.
    #[error("too many commands wait: try again in {retry_after:?}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disk of the node that leads, or of this one, is nearly full: it only reads. Nothing was done.
    #[error(
        "the disk is nearly full, so the ledger only reads: nothing was written. Add room to the disk of the data \
         directory and try again"
    )]
    DiskFull,
    /// Nobody leads, or the leader did not take it. Nothing was done.
    #[error(
        "no leader has taken it{}: try again in {retry_after:?}",
        leader.map_or_else(String::new, |id| format!(" (node {id} may lead)"))
    )]
    NoLeader {
        /// Who may lead: ask that node, or try again here.
        leader: Option<u64>,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node does not lead, or no quorum answers. The command may or may not happen.
    #[error(
        "the ledger is not available here ({reason}): look whether the command took effect, then repeat it"
    )]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The node stops. The command may or may not have happened.
    #[error("the node stops: look whether the command took effect once it is back")]
    Stopped,
}

/// A read gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// There is no such vault.
    #[error("there is no vault {vault}")]
    VaultNotFound {
        /// The vault.
        vault: VaultRef,
    },
    /// The vault is fenced.
    #[error("vault {vault} is fenced at block {}: {}", fence.height, fence.what)]
    VaultDiverged {
        /// The vault.
        vault: VaultRef,
        /// Why.
        fence: Box<Fence>,
    },
    /// The log is not that long.
    #[error("height or size {asked} is not available: the newest block of the vault is {height}")]
    HeightUnavailable {
        /// What was asked for.
        asked: u64,
        /// The newest height.
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
    /// The caller trusts a longer log than this one: it was cut, or the checkpoint is another ledger's.
    #[error(
        "you trust a checkpoint over {trusted_size} blocks, this log has {size}: it was restored from an older copy, \
         or the checkpoint belongs to another ledger. Do not trust its answers before you know which"
    )]
    TrustedSizeAhead {
        /// Size that the caller trusts.
        trusted_size: u64,
        /// Size of the log.
        size: u64,
    },
    /// The newest block of the vault was made by an older program: it commits to no lists.
    #[error(
        "lists of this vault cannot be proved yet: its newest block {height} was made by an older program. Write once to \
         the vault, then ask again"
    )]
    ListsNotCovered {
        /// Height of that block.
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
    /// A list cannot be continued as of its height any more.
    #[error(
        "the list as of block {height} is no longer available, the newest block is {tip}: ask for its first page again"
    )]
    ListHeightGone {
        /// Height of the list.
        height: u64,
        /// Height of the newest block.
        tip: u64,
    },
    /// The rows do not have the list that a header commits to: nothing is served from them.
    #[error("the rows of the list are not those that block {height} commits to")]
    ListDiffers {
        /// Height of the list.
        height: u64,
    },
    /// The page token was refused.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// More keys than one call may ask for.
    #[error("a batch has at most {max} keys, this one has {count}")]
    TooManyKeys {
        /// Keys given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Too many reads wait. Nothing was done.
    #[error("too many reads wait: try again in {retry_after:?}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// Nobody leads, or the leader did not take it. Nothing was done.
    #[error(
        "no leader has taken it{}: try again in {retry_after:?}",
        leader.map_or_else(String::new, |id| format!(" (node {id} may lead)"))
    )]
    NoLeader {
        /// Who may lead: ask that node, or try again here.
        leader: Option<u64>,
        /// When to try again.
        retry_after: Duration,
    },
    /// This node does not lead, or no quorum answers.
    #[error("the ledger is not available here ({reason}): try again, or read with eventual consistency")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The state cannot be read.
    #[error(transparent)]
    State(StateError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// A node did not stop in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The node had failed before.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
}

impl ReadFailure {
    pub(crate) fn of(error: ReadError, vault: &VaultRef) -> Self {
        match error {
            ReadError::VaultNotFound => Self::VaultNotFound { vault: vault.clone() },
            ReadError::HeightUnavailable { asked, height } => Self::HeightUnavailable { asked, height },
            ReadError::ListsNotCovered { height } => Self::ListsNotCovered { height },
            ReadError::ListTooLong { count, max } => Self::ListTooLong { count, max },
            ReadError::ListHeightGone { height, tip } => Self::ListHeightGone { height, tip },
            ReadError::ListDiffers { height } => Self::ListDiffers { height },
            ReadError::Compacted { asked, first } => Self::Compacted { asked, first },
            ReadError::VaultDiverged(fence) => Self::VaultDiverged { vault: vault.clone(), fence },
            ReadError::State(error) => Self::State(error),
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<HalfApplied> for ReadFailure {
    fn from(_: HalfApplied) -> Self {
        Self::Stopped
    }
}

impl From<&ConsensusError> for ReadFailure {
    fn from(error: &ConsensusError) -> Self {
        match error {
            ConsensusError::Stopped => Self::Stopped,
            ConsensusError::NotLeader { leader } => {
                Self::NoLeader { leader: *leader, retry_after: NO_LEADER_RETRY_AFTER }
            }
            ConsensusError::Starting => Self::NoLeader { leader: None, retry_after: NO_LEADER_RETRY_AFTER },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<&ConsensusError> for WriteError {
    fn from(error: &ConsensusError) -> Self {
        match error {
            ConsensusError::Stopped => Self::Stopped,
            ConsensusError::LeaderDiskFull => Self::DiskFull,
            ConsensusError::NotLeader { leader } => {
                Self::NoLeader { leader: *leader, retry_after: NO_LEADER_RETRY_AFTER }
            }
            ConsensusError::Starting => Self::NoLeader { leader: None, retry_after: NO_LEADER_RETRY_AFTER },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<&ConsensusError> for AdminError {
    fn from(error: &ConsensusError) -> Self {
        match error {
            ConsensusError::Stopped => Self::Stopped,
            ConsensusError::LeaderDiskFull => Self::DiskFull,
            ConsensusError::NotLeader { leader } => {
                Self::NoLeader { leader: *leader, retry_after: NO_LEADER_RETRY_AFTER }
            }
            ConsensusError::Starting => Self::NoLeader { leader: None, retry_after: NO_LEADER_RETRY_AFTER },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<DiskFull> for WriteError {
    fn from(_: DiskFull) -> Self {
        Self::DiskFull
    }
}

impl From<DiskFull> for AdminError {
    fn from(_: DiskFull) -> Self {
        Self::DiskFull
    }
}
