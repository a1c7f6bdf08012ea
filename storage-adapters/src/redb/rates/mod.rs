//! Counters of rate limits in one file: what was admitted stays admitted, whatever ends the process.
//!
//! ```
//! use std::time::Duration;
//!
//! use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore};
//! use ratelimit_core::{Enforcement, KeyParts, Limit, Nanos};
//! use storage_adapters::redb::rates::{RateOptions, RedbRateStore};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("rates.db");
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let limit = Limit::fixed_window(3, Duration::from_secs(3_600))?;
//! let logins = || vec![Policy { name: "logins".to_owned(), limit: limit.clone(), enforcement: Enforcement::Enforced }];
//! let (options, now) = (RateOptions::counting_from(Duration::from_secs(1_700_000_000)), Nanos(60_000_000_000));
//! let client = KeyParts::new(["203.0.113.9"]);
//! let charges = [Charge { policy: PolicyId(0), key: &client, cost: 3 }];
//!
//! let store = RedbRateStore::open(&path, logins(), options, now)?;
//! assert!(store.check(&charges, now).await?.0.is_allowed());
//! drop(store); // or a crash
//! let store = RedbRateStore::open(&path, logins(), options, now)?;
//! assert!(!store.check(&charges, now).await?.0.is_allowed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - Those of [`RateStore`](ratelimit_core::ports::RateStore), durability included.
//! - What the disk holds is never behind what was answered: a charge is told when a word that covers it is durable. Whatever
//!   ends the process, who comes back has at most what was left.
//! - A word on the disk is ahead of the one in memory by up to a tenth of the limit's size, one cell at least ([`LEASE_DIVISOR`]).
//!   Charges within that need no disk. While the process lives the word in memory decides: nothing is denied for what is
//!   only written ahead. A restart wastes those cells once; [`close`](RedbRateStore::close) gives them back.
//! - All that is gathered while one commit is under way goes into the next one: one fsync for all of it.
//! - At most [`keys_max`](RateOptions::keys_max) keys are kept. Dead ones make room; a key without room is denied and counted.
//! - After a commit that failed nothing is answered until everything in memory is durable in a new file.
//!
//! # Time
//!
//! Words count from the epoch that the file keeps. Whoever opens it says what the wall clock showed at `Nanos(0)`, and what it
//! shows `now`; from then on a clock that never goes back should be asked. A wall clock that went back between two runs locks
//! nobody out for longer than a full bucket takes to refill, or a window to end; one that went ahead opens what that time
//! would have opened.
//!
//! # It is not
//!
//! a store for several processes, or for logs, permits and sliding windows. It needs no runtime, and is no runtime: one thread
//! of its own writes.
//!
//! # Map
//!
//! `store`: the façade. `request`, `book`, `counters`, `rows`, `room`, `lease`: deciding. `policies`, `moving`: what rows become
//! when limits change. `writer`: the thread. `file`, `layout`: the disk.

mod book;
mod counters;
mod failure;
mod file;
mod layout;
mod lease;
mod moving;
mod options;
mod policies;
mod request;
mod room;
mod rows;
mod store;
mod writer;

pub use failure::RedbRateError;
pub use options::{
    CACHE_BYTES, IN_PROGRESS_MAX, KEYS_MAX, LEASE_DIVISOR, MOVED_AT_ONCE, NAME_BYTES_MAX, POLICIES_MAX,
    RECOVERY_PAUSE, RateOptions,
};
pub use store::{RateGrant, RedbRateStore};
