//! Offline verification of Strongroom ledger proofs.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod hash;
pub mod header;
pub mod log;
pub mod note;
pub mod proof;
pub mod state;
pub mod transaction;

mod error;
mod hex;
mod layout;

pub use error::{DecodeError, ProofError};

/// A SHA-256 digest.
pub type Hash = [u8; 32];
