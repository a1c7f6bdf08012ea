//! Rate limits that are exact, bounded in memory and free of clocks: the engine that services and servers embed.
//!
//! ```
//! use ratelimit_core::{HashSecret, Limit, Limiter, Nanos, Rate, TableSize};
//!
//! // One a second and up to 20 at once, for each client; room for 10,000 clients at a time.
//! let limit = Limit::gcra(Rate::per_second(1), 20)?;
//! let limiter = Limiter::<u64>::new(limit, TableSize::for_keys(10_000), HashSecret([7; 16]))?;
//! let client = 42;
//! let admitted = (0..25).filter(|_| limiter.check(&client, Nanos(0)).is_allowed()).count();
//! assert_eq!(admitted, 20);
//! let wait = limiter.check(&client, Nanos(0)).retry_after();
//! assert_eq!(wait.map(|wait| wait.as_secs()), Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concepts
//!
//! A [`Limit`] says how much; its constructors refuse what cannot be kept exactly. A *cell* is what a limit counts, and a
//! request costs one or more of them. A [`Limiter`] keeps one limit for many keys, a [`LimitSet`] several at once,
//! all or nothing. The answer is a [`Decision`]: whether, how much is left, how long to wait. [`Grant`] and
//! [`Reservation`] give back what was not used. [`rules`] say which limits a request meets; [`ports`] what a store of
//! counters promises, [`memory`] is one.
//!
//! | limit | any interval `w` admits at most | state of a key |
//! |---|---|---|
//! | [`Limit::gcra`] | `burst + ⌊w / T⌋` | 8 bytes |
//! | [`Limit::fixed_window`] | `limit` in each window, `2 · limit` in a period | 8 bytes |
//! | [`Limit::sliding_window`] | `limit` by its estimate, below `2 · limit` in a period | 8 bytes |
//! | [`Limit::sliding_log`] | `limit` in any period | 8 bytes for each cell |
//! | [`Limit::strict_window`] | `limit` in any period | as a log up to 64, else 8 bytes |
//! | [`Limit::calendar`] | `limit` in each civil unit | 8 bytes |
//! | [`Limit::concurrency`] | `permits` at a time | 16 bytes for each permit |
//!
//! # Guarantees
//!
//! - Rounding never admits more: rates round down, waits round up.
//! - No call panics or overflows, whatever the numbers: what does not fit is refused when the limit or its table is built,
//!   and a time beyond the horizon stands still.
//! - Memory is fixed when a limiter is built. A live key is never evicted; keys beyond the room may be denied early, never
//!   admitted early.
//! - A denial changes nothing.
//! - Nothing here reads a clock, draws a random number, touches a file or starts a thread: time and the secret of the
//!   hashing are arguments.
//!
//! # It is not
//!
//! A server, a middleware, a queue for requests that wait, or a reader of rule files: those are built on it.
//!
//! # Map
//!
//! `limit`, `ticks`, `decision`: values. [`algorithms`]: one file each, pure. `grant`, `change`: what is given back, what
//! stays. `key`, `table/`: tags, slots, sketch. `keyed`, `limiter`, `limit_set`, `succession`, `heirs`, `census`:
//! the façade. [`rules`], [`ports`],
//! [`memory`], `conformance` (a feature).

mod ad_hoc;
pub mod algorithms;
mod census;
mod change;
#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod grant;
mod heirs;
mod key;
mod keyed;
mod limit;
mod limit_set;
mod limiter;
pub mod memory;
pub mod ports;
pub mod rules;
mod share;
mod stored;
mod succession;
mod table;
mod ticks;

pub use ad_hoc::{AdHoc, AdHocPolicy};
pub use census::Census;
pub use change::Keep;
pub use decision::{Decision, Outcome};
pub use grant::{Grant, Reservation};
pub use heirs::{CannotReplace, Carried, Heir};
pub use key::{HashSecret, Hasher, Key, KeyParts};
pub use limit::{Limit, LimitError, Rate};
pub use limit_set::{Enforcement, HITS_MAX, Hit, LimitId, LimitSet, SetGrant, TooManyHits, Verdict};
pub use limiter::Limiter;
pub use stored::{StoredLimit, StoredStep};
pub use succession::{CannotSucceed, GENERATIONS_MAX};
pub use table::{TableError, TableSize};
pub use ticks::{CellClock, HORIZON_NS, Nanos};
