//! Records of the identity engine in a file: the contract, and what a disk can do to it.
#![cfg(all(feature = "auth", feature = "wal"))]

mod conformance;
#[expect(dead_code, reason = "shared with another test program, which uses the rest")]
#[path = "../wal/disk.rs"]
mod disk;
mod faults;
mod file;
#[path = "../state_install/files.rs"]
mod files;
mod group_commit;
mod power_cuts;
mod world;
