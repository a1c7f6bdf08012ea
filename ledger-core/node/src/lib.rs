//! The replicated ledger engine that an embedder opens: consensus, apply, checkpoints, reads.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod applied_state;
mod clock;
mod counters;
mod failure;
mod flusher;
mod log_writer;
mod options;
mod raft;
