//! Nodes of the ledger under simulated time, network and disks, and the checks of what their clients saw.
//!
//! # Map
//!
//! `register` says what operations on one key mean, `history` records what clients did and saw, `linearizability`
//! decides whether the one explains the other.
//!
//! `world` moves hosts through time, each with a runtime of its own; `network` carries what they say, `disk` keeps what
//! they store. All choices come from `dice`, and `trace` folds all that happens into one number.

pub mod client_calls;
pub mod dice;
pub mod disk;
pub mod history;
pub mod linearizability;
pub mod network;
pub mod register;
pub mod trace;
pub mod world;
