//! The write-ahead log: its contract, its bytes, and what becomes of it when a disk misbehaves.
#![cfg(feature = "wal")]

mod conformance;
mod crash;
mod damage;
#[expect(dead_code, reason = "shared with another test program, which uses the rest")]
mod disk;
mod faults;
mod files;
mod import;
mod workload;
