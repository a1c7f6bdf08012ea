//! A client of a Strongroom ledger: it retries safely and believes only what it verified.
//!
//! ```no_run
//! use std::sync::Arc;
//! use ledger_client::{ClientOptions, DirectoryPins, LedgerClient};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pins = Arc::new(DirectoryPins::in_state_home()?);
//! let options = ClientOptions::new("http://127.0.0.1:50051").with_token("sr_0011223344556677_secret".to_owned());
//! let client = LedgerClient::connect(options, pins)?;
//! let answer = client.verified_get(&"acme/prod".parse()?, &ledger_core::entity::EntityKey::new("door")?).await?;
//! println!("present: {}, trust: {}", answer.claim.present, answer.trust);
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - **Retries.** A write is sent again under the *same* idempotency key when the outcome is unknown, so it
//!   happens at most once. Keys are UUIDv7 stamped with the ledger's own time, learned from its answers.
//! - **Proofs.** [`LedgerClient::verified_get`], [`LedgerClient::verified_check`] and
//!   [`LedgerClient::verified_list`] check the whole chain:
//!   leaf, state root, header, inclusion, signed checkpoint, and that the checkpoint extends the last one seen.
//! - **Pins.** The last checkpoint and the key that signed it are kept per ledger and vault ([`PinStore`]). The
//!   first one is trusted on first use, and the answer says so ([`Trust`]).
//!
//! - **Nodes.** Several URLs name the nodes of one ledger. Writes and fresh reads go to the leader, which answers name
//!   ([`LedgerClient::nodes`]); when a node fails, the others are asked at once, under the same idempotency key, and
//!   the failed one is passed over for a while ([`RetryPolicy`]).
//! - **Watches.** [`LedgerClient::watch`] returns every block from a height on, checks that none is missing and
//!   that each continues the one before, and goes on by itself after a broken connection, on another node if need be.
//!
//! # It is not
//! a cache: every call asks the ledger. Plain reads and lists and receipts are not verified.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod error;
mod options;

mod admin;
mod backup;
mod call_line;
mod client;
mod cluster;
mod connector;
mod history;
mod maintenance;
mod read;
mod verified;
mod verified_list;
mod watch;
mod write;

mod endpoint;
mod idempotency;
mod leader_hint;
mod nodes;
mod pins;
mod retry;
mod streamed;
mod wire;

pub use admin::{AdminPage, MintedToken, NodeInfo, SnapshotInfo, Snapshots, TokenInfo, TokenRole, Vault};
pub use backup::{BackupPart, BackupPieces};
pub use client::LedgerClient;
pub use cluster::{
    ClusterInfo, ClusterMember, ClusterNode, MemberRole, MembershipChange, MembershipKind, ReplicaDivergence,
};
pub use error::{ClientError, ErrorCode, Fork, Refusal, tls_hint};
pub use history::{BlockContent, BlockRange, HistoricalRead, History, HistorySubject};
pub use maintenance::{IntegrityDepth, IntegrityIssue, IntegrityReport, RecoveredVault, VaultFence};
pub use nodes::{NODES_MAX, NodeHealth};
pub use options::{CallPath, ClientOptions, RetryPolicy, TlsOptions, UnlistedNodes};
pub use pins::{
    DirectoryPins, FORKS_MAX, ForkEvidence, MemoryPins, Pin, PinError, PinId, PinOutcome, PinStore,
};
pub use read::{
    BatchGet, Block, ClientState, Consistency, Listing, PageRequest, Read, RelationshipFilter, Tip,
};
pub use verified::{Trust, Verified, VerifiedCheckpoint};
pub use verified_list::VerifiedList;
pub use watch::{BlockStream, WatchFilter, WatchProofs, WatchRequest, WatchedBlock};
