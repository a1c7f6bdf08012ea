//! What clients send to nodes, and what nodes answer.

use ledger_core::command::{Receipt, WriteRefusal};
use ledger_core::entity::EntityKey;
use ledger_core::transaction::{Actor, Transaction};

/// A request of a client. All go to the one vault of the simulation.
#[derive(Debug, Clone)]
pub enum ClientRequest {
    /// Writes a transaction.
    Write {
        /// Who writes.
        actor: Actor,
        /// What.
        transaction: Transaction,
    },
    /// Reads a key with everything that was acknowledged before.
    Get {
        /// The key.
        key: EntityKey,
    },
    /// Asks for a signed checkpoint that extends a trusted size.
    Checkpoint {
        /// The size that the client trusts; 0 = none.
        trusted_size: u64,
    },
}

impl ClientRequest {
    /// The name of what is asked.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Get { .. } => "get",
            Self::Checkpoint { .. } => "checkpoint",
        }
    }
}

/// What a node answered.
#[derive(Debug, Clone)]
pub enum ClientAnswer {
    /// The transaction is committed and applied.
    Written(Receipt),
    /// The transaction was decided: it changed nothing.
    WriteRefused(WriteRefusal),
    /// The value of the key with its version; `None` = it does not exist.
    Got(Option<(Vec<u8>, u64)>),
    /// A signed checkpoint.
    Checkpoint {
        /// The note.
        note: String,
        /// The path from the trusted size.
        consistency: Vec<[u8; 32]>,
    },
    /// Nothing was done, and nothing will be.
    Busy(String),
    /// It was not done, or it was: the node does not know.
    Unavailable(String),
}

/// No answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The host takes no connections: the request did not arrive.
    #[error("connection refused")]
    Refused,
    /// Nothing came back in time.
    #[error("no answer in time")]
    Timeout,
}
