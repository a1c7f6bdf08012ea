//! The identity engine, pure: what is decided about people is a function of what a store holds, of the time and of fresh
//! random bytes, which all are arguments.
//!
//! ```
//! use auth_core::ports::{AuthStore, Commit, CommitId, Expect, ReadSet};
//! use auth_core::{Key, Millis, Table, Tenant, memory::MemoryStore};
//! # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
//! # fn run<T>(future: impl Future<Output = T>) -> T {
//! #     let Poll::Ready(output) = pin!(future).poll(&mut Context::from_waker(Waker::noop())) else { unreachable!() };
//! #     output
//! # }
//!
//! let (store, now) = (MemoryStore::default(), Millis(1_763_800_000_000));
//! let key = Key::new(Table(1), Tenant(0)).number(42);
//! let claim = |random| Commit::new(CommitId::new(now, random)).expect(&key, Expect::Absent).put(&key, b"Ada", None);
//! run(store.commit(&claim([1; 10]), now))?;
//! assert!(run(store.commit(&claim([2; 10]), now)).is_err());
//! assert!(run(store.read(&ReadSet::of([key]), now))?.records[0].is_some());
//! # Ok::<(), auth_core::ports::AuthStoreError>(())
//! ```
//!
//! # Concepts
//!
//! A *record* is a value under a [`Key`], with a version and perhaps an end. Whoever decides reads what it needs as one
//! [snapshot](ports::Snapshot), and commits what follows from it under the condition that it still holds. A commit has
//! an id, so that one whose reply was lost can be sent again.
//!
//! # Guarantees
//!
//! Those of [`AuthStore`](ports::AuthStore), A1 to A13. Nothing here reads a clock, draws a random number, touches a file
//! or starts a thread.
//!
//! # It is not
//!
//! A server, a database, or a place for secrets in clear: what is stored of a secret is its keyed hash or is sealed.
//!
//! # Map
//!
//! `millis`, `key`, [`ids`], [`tokens`], [`settings`], [`refusal`]: values. [`ports`]: what a store promises. [`memory`]: one that
//! keeps it. `conformance` (a feature): the suite that holds every store to it. [`records`]: what is stored. [`people`], [`outbox`],
//! [`sessions`], [`audit`] and `refresh`: what is decided. `secrets`, [`email_address`], `personal`: what hides people's fields. [`auth`]: the engine over a store, which loads, decides and commits.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod audit;
pub mod auth;
#[cfg(feature = "conformance")]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a guarantee that does not hold is a panic"
)]
pub mod conformance;
pub mod email_address;
mod fresh;
pub mod ids;
mod key;
pub mod memory;
mod millis;
pub mod outbox;
pub mod people;
mod personal;
mod plan;
pub mod ports;
pub mod records;
mod refresh;
pub mod refusal;
mod secrets;
pub mod sessions;
pub mod settings;
pub mod tokens;

pub use auth::{Auth, AuthError};
pub use fresh::FreshBytes;
pub use key::{KEY_BYTES_MAX, Key, KeyRange, Table, Tenant};
pub use millis::Millis;
pub use secrets::AuthSecrets;
