//! What is replicated, and what applying it answers.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::access_token::{AccessToken, TOKENS_MAX, TokenId};
use crate::names::{LedgerId, NamespaceName, VaultId, VaultName, VaultRef};
use crate::ports::LogId;
use crate::transaction::{Actor, Transaction};

/// One replicated entry: a command and the leader's time for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's clock when it proposed, unix milliseconds. Apply never lets time go back.
    pub time_ms: u64,
    /// What to do.
    pub command: Command,
}

/// A replicated command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a ledger.
    Initialise {
        /// Identity of the ledger.
        ledger_id: LedgerId,
        /// Secret that authenticates page tokens on every node of the ledger.
        page_key: [u8; 32],
    },
    /// Creates a namespace.
    CreateNamespace {
        /// Its name.
        name: NamespaceName,
    },
    /// Deletes an empty namespace.
    DeleteNamespace {
        /// Its name.
        name: NamespaceName,
    },
    /// Creates a vault with its genesis block.
    CreateVault {
        /// Its name.
        vault: VaultRef,
        /// Its identity, minted by the leader, never used again.
        id: VaultId,
    },
    /// Deletes a vault with all that it holds.
    DeleteVault {
        /// Its name.
        vault: VaultRef,
    },
    /// A batch of transactions: one block for every vault in it that changes.
    Write {
        /// The transactions in order.
        submissions: Vec<Submission>,
    },
    /// Lets every block from now on have a header of at least this version. An entry of its own, so that entries before
    /// it make the blocks that they always made, whatever program applies them.
    RaiseHeaderVersion {
        /// A version of [`ledger_verify::header`].
        version: u16,
    },
    /// Creates a vault that keeps as much of its past as is said.
    CreateVaultRetaining {
        /// Its name.
        vault: VaultRef,
        /// Its identity, minted by the leader, never used again.
        id: VaultId,
        /// What it keeps.
        retention: Retention,
    },
    /// Changes how much of its past a vault keeps. What is gone stays gone.
    SetRetention {
        /// The vault.
        vault: VaultRef,
        /// What it keeps from now on.
        retention: Retention,
    },
    /// Drops, in every vault, some of what its retention no longer covers.
    Compact,
    /// Names the cluster that goes on with this ledger. A cluster that is made anew from one node's data has a new
    /// name: nodes of the old one must not take it for theirs.
    NameCluster {
        /// Identity of the cluster.
        cluster_id: [u8; 16],
    },
    /// Makes a token valid. The same token again is answered in the same way.
    PutToken {
        /// The token without its secret.
        token: AccessToken,
    },
    /// Makes a token invalid.
    RevokeToken {
        /// Which.
        id: TokenId,
    },
    /// Makes these tokens valid when the ledger has none yet, and does nothing when it has.
    FirstTokens {
        /// At most [`TOKENS_MAX`] tokens, no id twice.
        tokens: Vec<AccessToken>,
    },
}

/// A command that changed something without a block that tells it, as the journal keeps it and a backup carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournaledCommand {
    /// Where it stood in the log.
    pub at: LogId,
    /// Log time of its entry, unix milliseconds.
    pub time_ms: u64,
    /// What it was.
    pub command: Command,
    /// The vault that it created, changed or deleted.
    pub vault: Option<VaultId>,
}

/// How much of its past a vault keeps: the bodies of its blocks, and what proofs of earlier states need.
/// Headers and the log over them are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Retention {
    /// Everything.
    #[default]
    Full,
    /// That of the newest blocks.
    Compacted {
        /// How many blocks.
        blocks: NonZeroU64,
    },
}

impl Retention {
    /// The lowest height that it covers when `tip` is the newest.
    pub fn first_height(self, tip: u64) -> u64 {
        match self {
            Self::Full => 0,
            Self::Compacted { blocks } => tip.saturating_add(1).saturating_sub(blocks.get()),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Compacted { blocks } => write!(f, "compacted:{blocks}"),
        }
    }
}

/// A text that is no retention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a retention is `full` or `compacted:N` with a number of blocks from 1; {given:?} is not")]
pub struct RetentionError {
    /// What was given.
    pub given: String,
}

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let refused = || RetentionError { given: text.chars().take(80).collect() };
        match text.split_once(':') {
            None if text == "full" => Ok(Self::Full),
            Some(("compacted", blocks)) => {
                Ok(Self::Compacted { blocks: blocks.parse().map_err(|_| refused())? })
            }
            _ => Err(refused()),
        }
    }
}

/// A transaction with its vault and its authenticated author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The vault.
    pub vault: VaultId,
    /// The authenticated caller.
    pub actor: Actor,
    /// What it asks for.
    pub transaction: Transaction,
}

/// The answer to a command, in the same shape on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// To [`Command::Initialise`]; `false` when the ledger had an identity already.
    Initialised(bool),
    /// To the namespace commands.
    Namespace(Result<NamespaceInfo, AdminRefusal>),
    /// To the vault commands.
    Vault(Result<VaultInfo, AdminRefusal>),
    /// To [`Command::Write`]: one answer per submission, in order.
    Writes(Vec<Result<Receipt, WriteRefusal>>),
    /// To [`Command::RaiseHeaderVersion`]: the version of headers from now on.
    HeaderVersion(u16),
    /// To [`Command::Compact`].
    Compacted(CompactionProgress),
    /// To [`Command::NameCluster`]: the cluster from now on.
    Cluster([u8; 16]),
    /// To [`Command::PutToken`] and [`Command::RevokeToken`].
    Token(Result<AccessToken, AdminRefusal>),
    /// To [`Command::FirstTokens`]; `false` when the ledger had tokens already.
    FirstTokens(bool),
}

/// What a round of compaction did, over all vaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompactionProgress {
    /// Blocks whose bodies were dropped.
    pub dropped: u64,
    /// Blocks that are left to drop.
    pub left: u64,
}

/// A namespace as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: NamespaceName,
    /// Vaults in it.
    pub vault_count: u64,
    /// Log time of its creation, unix milliseconds.
    pub created_at_ms: u64,
}

/// A vault as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultInfo {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: VaultName,
    /// Its identity.
    pub id: VaultId,
    /// Height of its newest block; the genesis block is 0.
    pub height: u64,
    /// RFC 6962 leaf hash of the newest header.
    pub block_hash: [u8; 32],
    /// State root of the newest header.
    pub state_root: [u8; 32],
    /// Sequence number of the last transaction; 0 = none.
    pub version: u64,
    /// Entities and relationships in its state; 0 while it is fenced.
    pub key_count: u64,
    /// Log time of its creation, unix milliseconds.
    pub created_at_ms: u64,
    /// How much of its past it keeps.
    pub retention: Retention,
    /// Lowest height at which values and transactions can be read; headers can be read from 0.
    pub first_height: u64,
    /// Why it is fenced; `None` = it is not.
    pub fence: Option<Box<Fence>>,
}

/// Why a vault is fenced: what is stored of it does not fit its blocks, so nothing is read from it or
/// written to it until it is recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Height of the newest block then.
    pub height: u64,
    /// State root in the header of that block.
    pub expected_root: [u8; 32],
    /// State root over the rows as they are stored; `None` = they cannot be read.
    pub computed_root: Option<[u8; 32]>,
    /// What does not fit, for people.
    pub what: String,
    /// Log time when it was noticed, unix milliseconds.
    pub since_ms: u64,
}

/// Why an administrative command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AdminRefusal {
    /// The namespace exists.
    #[error("namespace {0} exists already")]
    NamespaceExists(NamespaceName),
    /// The namespace does not exist.
    #[error("there is no namespace {0}")]
    NamespaceNotFound(NamespaceName),
    /// The namespace has vaults.
    #[error("namespace {name} still has {vault_count} vaults: delete them first")]
    NamespaceNotEmpty {
        /// The namespace.
        name: NamespaceName,
        /// Vaults in it.
        vault_count: u64,
    },
    /// The vault exists.
    #[error("vault {0} exists already")]
    VaultExists(VaultRef),
    /// The vault does not exist.
    #[error("there is no vault {0}")]
    VaultNotFound(VaultRef),
    /// The proposed identity belongs to another vault, alive or deleted.
    #[error("the vault id {0} was used before")]
    VaultIdUsed(VaultId),
    /// A ledger holds at most [`VAULTS_MAX`] vaults.
    #[error("a ledger holds at most {VAULTS_MAX} vaults")]
    TooManyVaults,
    /// A ledger holds at most [`NAMESPACES_MAX`] namespaces.
    #[error("a ledger holds at most {NAMESPACES_MAX} namespaces")]
    TooManyNamespaces,
    /// There is no such token.
    #[error("there is no token {0}: it was revoked, or belongs to another ledger")]
    TokenNotFound(TokenId),
    /// Nobody would be left who may administer the ledger.
    #[error("the token {0} is the last one with the role admin on *: create another one before revoking it")]
    LastAdminToken(TokenId),
    /// The proposed id belongs to another token.
    #[error("the token id {0} belongs to another token")]
    TokenIdUsed(TokenId),
    /// A ledger holds at most [`TOKENS_MAX`] tokens.
    #[error("a ledger holds at most {TOKENS_MAX} tokens: revoke those that are no longer used")]
    TooManyTokens,
}

/// Most vaults in one ledger, deleted ones not counted.
pub const VAULTS_MAX: usize = 10_000;
/// Most namespaces in one ledger.
pub const NAMESPACES_MAX: usize = 10_000;

/// What happened to one operation of a committed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum OperationResult {
    /// The key or tuple is new.
    Created = 1,
    /// The tuple was there; nothing changed.
    AlreadyExists = 2,
    /// The entity was replaced.
    Updated = 3,
    /// The key or tuple was deleted (or expired).
    Deleted = 4,
    /// There was nothing to delete; nothing changed.
    NotFound = 5,
    /// The assertion held.
    Held = 6,
}

/// Where a committed transaction stands. Unsigned: proofs come with verified reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The vault.
    pub vault: VaultId,
    /// Height of the block.
    pub height: u64,
    /// Sequence number of the transaction in the vault: the `version` of every key it wrote.
    pub version: u64,
    /// Index of the transaction in its block.
    pub index_in_block: u32,
    /// RFC 6962 leaf hash of the block's header.
    pub block_hash: [u8; 32],
    /// Log time of the block, unix milliseconds.
    pub time_ms: u64,
    /// One result per operation.
    pub results: Vec<OperationResult>,
    /// Whether this answers a repeated idempotency key: the first result again, nothing new.
    pub replayed: bool,
}

/// Largest current value that a failed condition carries, in bytes.
pub const REFUSAL_VALUE_BYTES_MAX: usize = 1_024;

/// Why a transaction changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum WriteRefusal {
    /// The vault does not exist (any more).
    #[error("there is no such vault")]
    VaultNotFound,
    /// A condition did not hold.
    #[error("the condition of operation {op_index} does not hold: {failure}")]
    ConditionFailed {
        /// Index of the operation.
        op_index: u32,
        /// What was found instead.
        failure: ConditionFailure,
        /// Version of the key now; `None` when it does not exist.
        current_version: Option<u64>,
        /// Value of the entity now, when it has at most [`REFUSAL_VALUE_BYTES_MAX`] bytes.
        current_value: Option<Bytes>,
    },
    /// The idempotency key is older than the floor of what is remembered.
    #[error(
        "the idempotency key is older than what the ledger remembers ({floor_ms} ms): read the state, then write with a new key"
    )]
    IdempotencyKeyExpired {
        /// Keys with an earlier time are refused, unix milliseconds.
        floor_ms: u64,
    },
    /// The idempotency key lies more than five minutes ahead of log time.
    #[error(
        "the idempotency key is more than 5 minutes ahead of the ledger's time ({log_time_ms} ms): check the clock"
    )]
    IdempotencyKeyInFuture {
        /// The ledger's time, unix milliseconds.
        log_time_ms: u64,
    },
    /// The idempotency key was used with another payload.
    #[error("the idempotency key was used before with another transaction")]
    IdempotencyMismatch,
    /// Only garbage collection expires entities.
    #[error("operation {op_index} expires an entity: only the ledger itself may")]
    ExpireForbidden {
        /// Index of the operation.
        op_index: u32,
    },
    /// The vault holds as many keys as a node keeps in memory.
    #[error("the vault is full: {limit} keys")]
    VaultFull {
        /// The limit.
        limit: u64,
    },
    /// The vault is fenced. Nothing was decided: repeat the write with the same idempotency key once the
    /// vault is recovered.
    #[error(
        "the vault is fenced because what is stored of it does not fit its block {height}: have an administrator \
         recover it, then repeat the write with the same idempotency key"
    )]
    VaultDiverged {
        /// Height of its newest block.
        height: u64,
        /// State root in the header of that block.
        expected_root: [u8; 32],
        /// State root over the stored rows; `None` = they cannot be read.
        computed_root: Option<[u8; 32]>,
    },
}

/// How a condition failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionFailure {
    /// It must not exist, but does.
    #[error("it exists")]
    Exists,
    /// It must exist, but does not.
    #[error("it does not exist")]
    DoesNotExist,
    /// Its version is another.
    #[error("its version is another")]
    VersionDiffers,
    /// Its value is another.
    #[error("its value is another")]
    ValueDiffers,
}
