//! The replicated ledger engine that an embedder opens: consensus, apply, checkpoints, reads.
//!
//! ```
//! # use std::sync::Arc;
//! use ledger_core::{memory::{MemoryLogStore, MemoryStateStore}, names::NamespaceName};
//! use ledger_node::{DataDirectory, Ledger, Options, Stores};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = DataDirectory::ephemeral()?;
//! let (log, state) = (Arc::new(MemoryLogStore::default()), Arc::new(MemoryStateStore::default()));
//! let ledger = Ledger::open(directory, Stores { log, state }, Options::default()).await?;
//! ledger.create_namespace(NamespaceName::new("acme")?).await?;
//! let vault = ledger.create_vault("acme/orders".parse()?).await?;
//! println!("verify {} with {}", ledger.origin(vault.id), ledger.verifier_key());
//! ledger.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Concepts
//!
//! A [`Ledger`] is one node of a replicated ledger, opened in this process on a [`DataDirectory`] and two
//! [`Stores`]. A write waits in a bounded queue, becomes part of one log entry with all others that wait,
//! is made durable by one `fsync` of the log, applied, and answered with a receipt. Applied state is
//! written to the state store in the background; until then it is in memory and, for a crash, in the log.
//!
//! # Guarantees
//!
//! - A receipt means: committed, durable and applied. A repeated idempotency key is answered with the
//!   first receipt, also after a restart.
//! - A linearizable read sees every write that was acknowledged before it began.
//! - A checkpoint is signed only over what is committed and applied, and only after its size and root are
//!   durable; a data directory that went back in time behind one is refused.
//! - A vault whose stored rows do not fit its blocks is fenced: reads and writes of it are refused, others go
//!   on, and [`Ledger::recover_vault`] makes its rows anew from its blocks.
//! - The first fault of a store stops the node ([`Ledger::failure`]); nothing is acknowledged after it.
//!
//! # Several nodes
//!
//! With [`Options::cluster`] a ledger is one of several nodes that agree on one log. Every node answers every call: what only
//! the leader may decide is sent to it. [`Ledger::cluster`] says who belongs to it and changes that;
//! [`Ledger::peer_handler`] answers the other nodes, over whatever [`PeerTransport`](peers::PeerTransport) carries.
//!
//! - A receipt means: durable on a majority of the voters. Whoever leads next has it.
//! - A linearizable read on any node asks the leader, which asks a majority.
//! - Only the leader signs checkpoints.
//! - A node that was wiped, copied or taken out is refused by name.
//!
//! # Map
//!
//! `ledger`, `reads`, `historical_reads`, `verified_lists` and `watch` are the façade. A write passes `batcher` → `raft` (the only module that names the
//! engine) → `log_writer` → `applied_state`; `flusher`, `checkpoint_signer`, `read_barrier` and
//! `garbage_collection` and `snapshots` work beside it, `maintenance` checks and recovers vaults; `node_thread` starts and
//! stops them all. `peers` is what nodes say to each other, `cluster` what they do for each other.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod access_tokens;
mod applied_state;
pub mod backup;
mod batcher;
mod blocking_work;
mod checkpoint_signer;
mod clock;
mod cluster;
mod counters;
mod directory;
#[doc(hidden)]
pub mod entry_points;
mod errors;
mod failure;
mod flusher;
pub mod forming;
mod garbage_collection;
mod historical_proofs;
mod historical_reads;
mod key_rotation;
mod ledger;
mod log_writer;
mod maintenance;
mod node_thread;
mod options;
mod ordered_watch;
pub mod peers;
mod raft;
mod randomness;
mod read_barrier;
mod reads;
mod snapshots;
mod verified_lists;
mod watch;
mod worker;
mod write_state;

pub use clock::{Clock, ManualClock, SystemClock};
pub use cluster::{
    Cluster, ClusterOptions, ClusterStatus, Divergence, DivergenceKind, DivergenceState, FindError,
    LOG_KEEP_BYTES_DEFAULT, LeaseReads, MemberRole, MemberStatus, MembershipChange, MembershipError,
    SILENT_AFTER_DEFAULT, Side, Timing, VOTERS_MAX, VOTERS_MAX_DEFAULT, read_divergences,
};
pub use counters::Counters;
pub use directory::{
    DataDirectory, DirectoryError, FIRST_MEMBERS_MAX, FORMAT as DIRECTORY_FORMAT, Formation, NodeDirectory,
    Promise, Provenance, import_key,
};
pub use errors::{AdminError, OpenError, ReadFailure, ShutdownError, WriteError};
pub use failure::{FailedPart, NodeFailure};
pub use historical_reads::{HistoricalRead, History};
pub use key_rotation::{RotatedKey, RotationError, rotate_key};
pub use ledger::{Ledger, NodeStatus, Stores};
pub use maintenance::MaintenanceError;
pub use options::{
    BATCH_DELAY_MAX, Bootstrap, GC_INTERVAL_MAX, Options, OptionsError, QUEUE_BYTES_MIN, SNAPSHOT_EVERY_MAX,
};
pub use reads::{
    ANSWER_BYTES_MAX, BATCH_KEYS_MAX, BatchGet, CheckpointAnswer, Consistency, ListRequest, Listing,
    PAGE_SIZE_DEFAULT, Read, VerifiedRead, VerifiedSubject,
};
pub use snapshots::{
    RestoreError, RestoreTarget, SnapshotFailure, SnapshotFolder, SnapshotWork, StoredSnapshot,
    restore_snapshot,
};
pub use verified_lists::{LIST_PAGE_BYTES_MAX, VerifiedListHead, VerifiedListPage, VerifiedListQuery};
pub use watch::{BlockWatch, Inclusion, WatchContent, WatchFilter, WatchProofs, WatchRequest, WatchedBlock};
pub use worker::Threads;
pub use write_state::WriteState;
