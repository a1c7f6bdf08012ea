//! Nodes of the ledger under simulated time, network and disks, and the checks of what their clients saw.
//!
//! # Map
//!
//! `register` says what operations on one key mean, `history` records what clients did and saw, `linearizability`
//! decides whether the one explains the other.

pub mod history;
pub mod linearizability;
pub mod register;
