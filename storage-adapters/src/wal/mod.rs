//! A segmented write-ahead log: the replicated log in plain files, one write and one fsync a batch.
//!
//! `raft.wal/` holds segments named by their number. A segment is filled with zeros and synced before it
//! is used, so that a commit neither grows a file nor allocates a block. Every byte is described in
//! `docs/formats.md`.
//!
//! - A **batch** is one frame: a head, the encoded changes, checksums over the log's id, the place and
//!   the content. It is written by one write and made durable by one `fdatasync`.
//! - A **seal** follows a batch once that is durable. It is not synced (except when the log is closed): it
//!   lets an open tell a damaged batch from one that was never finished. The next batch overwrites it.
//! - A **state** frame begins every segment: all that is not a record. So a segment goes as soon as the
//!   records in it are purged.
//! - An **end** mark closes a segment once the next one is in use.
//!
//! An open walks all frames. Where one does not verify, anything behind it that says the place was
//! durable makes the open fail and name segment and offset, with nothing changed. Only what nothing
//! vouches for, the write that the power cut interrupted, is dropped.

mod change;
mod directory;
mod failure;
mod files;
mod frame;
mod import;
mod index;
mod log_store;
mod options;
mod recovery;
mod segment;
mod upkeep;

pub use directory::{DIRECTORY, WalDirectory};
pub use failure::WalError;
pub use files::{WalFile, WalFiles};
pub use import::import;
pub use log_store::WalLogStore;
pub use options::{SEGMENT_BYTES, SEGMENT_BYTES_MIN, Upkeep, WalOptions};
