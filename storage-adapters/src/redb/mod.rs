//! The embedded engine: [redb](https://docs.rs/redb), copy-on-write B-trees in three files.
//!
//! | file | content | durable by |
//! |---|---|---|
//! | `raft.db` | log, vote, signing marks | one fsync a batch; two with a vote or a membership in it |
//! | `blocks.db` | append-only tables of the state | two fsyncs, before `state.db` |
//! | `state.db` | all other tables, how far they go | two fsyncs |
//!
//! redb does not check pages against their checksums when it reads them, so every row carries a
//! CRC-32C of its own over the table, the key and the value, which every read checks. redb may also
//! panic on a damaged file: such a panic is caught and becomes a
//! [`StoreError`](ledger_core::ports::StoreError) like any other.

#[cfg(feature = "auth")]
pub mod auth;
mod backend;
mod blocks_removal;
mod failure;
mod file;
mod format;
mod log_row;
mod log_store;
#[cfg(any(feature = "rates", feature = "auth"))]
mod one_file;
mod options;
#[cfg(feature = "rates")]
pub mod rates;
mod row;
mod state_files;
mod state_install;
mod state_store;
mod state_view;
mod stores;
mod unwritten;

pub use failure::OpenError;
pub use log_store::RedbLogStore;
pub use options::{
    BLOCKS_CACHE_BYTES, LOG_CACHE_BYTES, OlderFormat, OpenCheck, RedbOptions, STATE_CACHE_BYTES,
};
pub use state_files::StateFiles;
pub use state_store::RedbStateStore;
pub use stores::RedbStores;
