//! Records of the identity engine in one file: what was committed stays committed, whatever ends the process.
//!
//! ```
//! use auth_core::ports::{AuthStore, Commit, CommitId, Expect, ReadSet};
//! use auth_core::{Key, Millis, Table, Tenant};
//! use storage_adapters::redb::auth::{AuthOptions, RedbAuthStore};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("auth.db");
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let now = Millis(1_763_800_000_000);
//! let key = Key::new(Table(1), Tenant(0)).number(42);
//! let claim = Commit::new(CommitId::new(now, [7; 10])).expect(&key, Expect::Absent).put(&key, b"Ada", None);
//!
//! let store = RedbAuthStore::open(&path, AuthOptions::default())?;
//! let position = store.commit(&claim, now).await?;
//! drop(store); // or a crash
//! let store = RedbAuthStore::open(&path, AuthOptions::default())?;
//! assert!(store.read(&ReadSet::of([key]), now).await?.records[0].is_some());
//! assert_eq!(store.commit(&claim, now).await?, position, "who has missed the answer asks again");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - Those of [`AuthStore`](auth_core::ports::AuthStore), durability included: who is told of a commit, or of a conflict with
//!   one, is told after the fsync of it.
//! - All commits that come while one is written go into the next transaction together: one fsync for all of them.
//! - Reads wait for no commit. They are done by the caller: whoever may not wait for a disk asks on a thread of its own.
//! - A commit whose future is dropped may still be applied.
//! - When the disk has no room, or a write fails, the file is opened anew and says itself what was applied. When an fsync fails
//!   nothing is answered any more until the process has been restarted: the page cache may show what the disk does not have.
//!
//! # It is not
//!
//! a store for several processes. It needs no runtime, and is no runtime: one thread of its own writes.
//!
//! # Map
//!
//! `store`: the façade. `writer`: the thread. `batch`: what a transaction does. `view`: reading. `file`, `layout`: the disk.

mod batch;
mod failure;
mod file;
mod layout;
mod options;
mod store;
mod view;
mod writer;

pub use failure::RedbAuthError;
pub use options::{
    AuthOptions, BATCH_COMMITS_MAX, CACHE_BYTES, FORGOTTEN_PER_COMMIT, QUEUE_BYTES_MAX, RECOVERY_PAUSE,
};
pub use store::RedbAuthStore;
