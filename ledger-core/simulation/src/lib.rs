//! Nodes of the ledger under simulated time, network and disks, and the checks of what their clients saw.
//!
//! # Map
//!
//! `register` says what operations on one key mean, `history` records what clients did and saw, `linearizability`
//! decides whether the one explains the other.
//!
//! `world` moves hosts through time, each with a runtime of its own; `network` carries what they say, `disk` keeps what
//! they store and `disk_timing` says how long that takes. All choices come from `dice`, and `trace` folds all that
//! happens into one number.
//!
//! `cluster` runs real nodes in that world, `workload` their clients, `nemesis` breaks things, `replacement` changes who
//! belongs to the cluster, `divergence` changes a disk, `evidence` compares what is seen with what must be; `run` is one
//! run of a seed with all of them.

pub mod client_calls;
pub mod clock;
pub mod cluster;
pub mod dice;
pub mod disk;
pub mod disk_timing;
pub mod divergence;
pub mod evidence;
pub mod history;
pub mod linearizability;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod register;
pub mod replacement;
pub mod run;
pub mod trace;
pub mod violation;
pub mod workload;
pub mod world;
