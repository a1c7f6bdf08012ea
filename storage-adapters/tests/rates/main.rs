//! Counters of rate limits in a file: exact while the process lives, and never more permissive afterwards.
#![cfg(all(feature = "rates", feature = "wal"))]

mod clocks;
mod conformance;
#[expect(dead_code, reason = "shared with another test program, which uses the rest")]
#[path = "../wal/disk.rs"]
mod disk;
mod faults;
mod file;
#[path = "../state_install/files.rs"]
mod files;
mod policies;
mod power_cuts;
mod reloads;
mod restarts;
mod room;
mod world;
