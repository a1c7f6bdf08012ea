//! The write-ahead log: its contract, its bytes, and what becomes of it when a disk misbehaves.
#![cfg(feature = "wal")]

mod conformance;
mod crash;
mod damage;
mod disk;
mod faults;
mod files;
mod import;
mod workload;
