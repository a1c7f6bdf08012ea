//! What members ask of each other beside consensus.

use ledger_core::command::{Command, Outcome, Receipt, WriteRefusal};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::transaction::{Actor, Transaction};
use ledger_verify::Hash;
use serde::{Deserialize, Serialize};

use crate::cluster::{MembershipChange, MembershipError};
use crate::peers::{ClusterId, LedgerKey, MemberRecord};

/// Asks the leader how far a read must wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadIndexRequest {
    /// Readers that wait for the answer: for the leader's counters.
    pub readers: u64,
}

/// Everything that was acknowledged before the question is at or before this index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadIndexAnswer {
    pub index: u64,
}

/// What a follower's callers asked for, on its way to the leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ProposeRequest {
    /// Transactions in the order in which they came.
    Writes(Vec<ForwardedWrite>),
    /// One administrative command.
    Command(Box<Command>),
}

/// A write with the author whom the follower has authenticated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ForwardedWrite {
    pub vault: VaultRef,
    pub actor: Actor,
    pub transaction: Transaction,
}

/// The leader's answer, in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    Writes(Vec<Result<Receipt, ForwardedFailure>>),
    Command(Result<Option<Box<Outcome>>, ForwardedFailure>),
}

/// Why the leader did not do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ForwardedFailure {
    /// Decided: nothing changed.
    Refused(WriteRefusal),
    /// Nothing was done.
    Overloaded { retry_after_ms: u64 },
    /// Undecided: it may or may not happen.
    Unavailable { reason: String },
    /// Nothing was done: the node does not lead.
    NotLeader { leader: Option<u64> },
    /// Nothing was done: the node's disk is nearly full.
    DiskFull,
}

/// Asks the leader for signed checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckpointRequest {
    /// Over at least so many blocks: for reads.
    Newest(Vec<(VaultId, u64)>),
    /// Over exactly these sizes with these roots: for a snapshot.
    Exact(Vec<(VaultId, u64, Hash)>),
}

/// A signed note for each vault that was asked for, in order; or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointAnswer {
    pub notes: Vec<Result<String, String>>,
}

/// The newest block of a vault on the asking node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VaultTip {
    pub vault: VaultId,
    pub height: u64,
    pub block_hash: Hash,
    pub state_root: Hash,
}

/// A replica's tips, for the leader to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TipsRequest {
    pub tips: Vec<VaultTip>,
}

/// What the leader has of the same vaults, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TipsAnswer {
    pub leader: Vec<LeaderBlock>,
}

/// The leader's block to compare a tip with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderBlock {
    /// The vault is fenced or gone there: it says nothing about the other's.
    Silent,
    /// The block at the tip's height.
    SameHeight { block_hash: Hash, state_root: Hash },
    /// The leader's newest block, below the tip's height.
    Below { height: u64, block_hash: Hash },
}

/// Asks any member what it has, leader or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompareRequest {
    /// Blocks of the asking node.
    pub tips: Vec<VaultTip>,
    /// Points at which the asking node can be compared, oldest first.
    pub points: Vec<DigestPoint>,
}

/// What a node has beside blocks once it has applied an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DigestPoint {
    /// The entry.
    pub index: u64,
    /// Over what is remembered of idempotency keys.
    pub idempotency: Hash,
    /// Of the membership.
    pub membership: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompareAnswer {
    /// What it has of the same vaults, in order.
    pub blocks: Vec<LeaderBlock>,
    /// What it has at the newest of the points that it knows too; `None` = at none of them.
    pub digests: Option<DigestAnswer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DigestAnswer {
    pub point: DigestPoint,
    /// By vault number, when the digest over all of them is another one than was asked about.
    pub vaults: Vec<(u64, Hash)>,
}

/// A member that differs asks the leader to send it a snapshot of everything, and how far that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepairRequest {
    /// Distinguishes this attempt of the member from its others: asked again, it is not begun again.
    pub attempt: u64,
    /// The snapshot must hold at least this entry.
    pub at_least: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RepairAnswer {
    /// It is being made, or sent.
    Working,
    /// The member has taken it.
    Sent,
    /// It was not made, or not taken.
    Failed(String),
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MembershipRequest {
    Add(MemberRecord),
    Remove(u64),
    Transfer(Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MembershipAnswer {
    /// To `Add` and `Remove`.
    Changed(MembershipChange),
    /// To `Transfer`: who leads now.
    Transferred {
        leader: u64,
    },
    Refused(MembershipError),
}

/// Does the member take writes?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriteStateRequest {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WriteStateAnswer {
    Open,
    /// Its disk is nearly full.
    DiskFull,
}

/// With which key does the ledger sign now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LedgerKeyRequest {
    /// Which it is is enough: it is compared.
    Public,
    /// The key itself, in place of another one that the member holds.
    Private {
        /// The public part of that one, as a C2SP verifier key.
        held: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LedgerKeyAnswer {
    /// Which it is, as a C2SP verifier key.
    Public { key: String },
    /// The private key: only ever sent to a member that has proved its name and says that it holds another one.
    Private { key: LedgerKey },
}

/// Take me in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub member: MemberRecord,
}

/// What a new member needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    pub cluster_id: ClusterId,
    /// The ledger's signing key: only ever sent to a peer that has proved its name.
    pub log_key: String,
    pub members: Vec<MemberRecord>,
}

impl std::fmt::Debug for JoinAnswer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinAnswer")
            .field("cluster_id", &self.cluster_id)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
