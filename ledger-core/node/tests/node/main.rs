//! Claims about a node, each through the public façade.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod checkpoints;
mod data_directory;
mod embedded_redb;
mod expiry;
mod failures;
mod observed_stores;
mod reads;
mod restart;
mod setting;
mod writes;
