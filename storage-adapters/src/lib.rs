//! Storage engines behind the ports of the cores.
//!
//! ```
//! # #[cfg(feature = "redb")] {
//! use ledger_core::ports::{LogChange, LogStore, StoredVote};
//! use storage_adapters::redb::{RedbOptions, RedbStores};
//!
//! let dir = tempfile::tempdir()?;
//! let stores = RedbStores::open(dir.path(), RedbOptions::default())?;
//! let vote = StoredVote { term: 1, node: Some(7), committed: false };
//! stores.log.commit(&[LogChange::SaveVote(vote)])?;
//! assert_eq!(stores.log.snapshot()?.vote, Some(vote));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! Each adapter upholds the numbered contracts of [`ledger_core::ports`] and passes their suites in
//! `ledger_core::conformance` under tests of the guarantees' own names.
//!
//! # It is not
//!
//! asynchronous: every call may wait for a disk, so run it on a thread of its own. It does not decide
//! what a row means: keys and values are the cores'.
//!
//! # Map
//!
//! - [`embedded`]: what a node opens: the log in [`wal`], the state in [`redb`].
//! - [`redb`]: the embedded engine, three files in the data directory.
//! - [`wal`]: the replicated log alone, as a segmented write-ahead log.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(all(feature = "redb", feature = "wal"))]
pub mod embedded;
#[cfg(feature = "redb")]
pub mod redb;

#[cfg(feature = "wal")]
pub mod wal;
