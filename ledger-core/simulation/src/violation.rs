//! What must never happen.

use ledger_core::command::Receipt;
use ledger_core::transaction::IdempotencyKey;

use crate::network::Endpoint;

/// A promise of the ledger that was broken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// The clients' history has no explanation.
    #[error("the history is not linearizable: {0}")]
    NotLinearizable(String),
    /// Two nodes led in one term.
    #[error("{first} and {second} both led in term {term}")]
    TwoLeaders {
        /// The term.
        term: u64,
        /// One.
        first: Endpoint,
        /// The other.
        second: Endpoint,
    },
    /// Two nodes have different blocks, or one node had two.
    #[error("block {height} of {first} is not that of {second}")]
    Fork {
        /// The height.
        height: u64,
        /// Who had the block first.
        first: Endpoint,
        /// Who has another.
        second: Endpoint,
    },
    /// Two nodes have different committed entries at one place of the log.
    #[error("entry {index} in the log of {first} is not that of {second}: {what}")]
    LogMismatch {
        /// The index.
        index: u64,
        /// One.
        first: Endpoint,
        /// The other.
        second: Endpoint,
        /// What they are.
        what: String,
    },
    /// An acknowledged write is not where its receipt says.
    #[error("the acknowledged write {idempotency_key} is not in block {}: {what}", receipt.height)]
    LostWrite {
        /// The write.
        idempotency_key: IdempotencyKey,
        /// What the client was told.
        receipt: Box<Receipt>,
        /// What is there instead.
        what: String,
    },
    /// A transaction is in the log of the vault twice.
    #[error("the write {idempotency_key} was applied as version {first} and again as {second}")]
    AppliedTwice {
        /// The write.
        idempotency_key: IdempotencyKey,
        /// The version that it made.
        first: u64,
        /// The version that it made again.
        second: u64,
    },
    /// A repeated write was answered with something else than the first time.
    #[error("the write {idempotency_key} was answered with {first:?}, and again with {again:?}")]
    OtherReceipt {
        /// The write.
        idempotency_key: IdempotencyKey,
        /// The first answer.
        first: Box<Receipt>,
        /// The second.
        again: Box<Receipt>,
    },
    /// A transaction was applied that nobody asked for, or that was refused as not done.
    #[error("version {version} was written by {idempotency_key}, which its client was told did not happen")]
    Phantom {
        /// The transaction.
        idempotency_key: IdempotencyKey,
        /// What it made.
        version: u64,
    },
    /// A write that began after another was acknowledged stands before it.
    #[error("version {later} was acknowledged before the write of version {earlier} began")]
    OutOfOrder {
        /// The lower version, which began later.
        earlier: u64,
        /// The higher version, which was answered earlier.
        later: u64,
    },
    /// Two checkpoints of one size, or a checkpoint and the log, have different roots.
    #[error("the checkpoint of size {size} conflicts with {with}")]
    CheckpointConflict {
        /// The size.
        size: u64,
        /// With what.
        with: &'static str,
    },
    /// A checkpoint was signed before the mark of it was durable.
    #[error("a checkpoint of size {size} was given out, but no node durably remembers that it was signed")]
    CheckpointUnmarked {
        /// The size.
        size: u64,
    },
    /// An answer is wrong by itself.
    #[error("a wrong answer: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: String,
    },
    /// A node stopped by itself, or refused to start.
    #[error("{node} stopped: {reason}")]
    Stopped {
        /// Which.
        node: Endpoint,
        /// Why.
        reason: String,
    },
    /// The cluster did not come back in time after everything was healed.
    #[error("no progress {what} within {limit_ms} ms of healing")]
    NoProgress {
        /// What was waited for.
        what: String,
        /// How long.
        limit_ms: u64,
    },
    /// After everything came to rest, nodes differ.
    #[error("at rest {first} and {second} differ: {what}")]
    DifferentAtRest {
        /// One.
        first: Endpoint,
        /// The other.
        second: Endpoint,
        /// In what.
        what: String,
    },
    /// A node whose disk was changed was not dealt with as it must be.
    #[error("{node}, whose disk differs, {what}")]
    Unrepaired {
        /// Which.
        node: Endpoint,
        /// What became of it.
        what: String,
    },
    /// The history was too hard to check.
    #[error("the history of key {key} was not decided after {steps} steps")]
    Undecided {
        /// The key.
        key: u32,
        /// Steps of the search.
        steps: usize,
    },
}
