//! The verifiable ledger as pure logic: data model, state machine, trees and storage ports.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod access;
pub mod access_token;
pub mod backup;
pub mod codec;
pub mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod doctor;
pub mod entity;
pub mod ledger_state;
pub mod list_sets;
pub mod list_snapshot;
pub mod log_tree;
pub mod memory;
pub mod names;
mod overlay;
pub mod page_token;
#[doc(hidden)]
pub mod planted_bugs;
pub mod ports;
pub mod relationship;
mod rows;
pub mod snapshot;
pub mod state_tree;
pub mod tlog_tiles;
pub mod transaction;
