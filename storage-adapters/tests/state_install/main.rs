//! New content for a state store on a disk that forgets, tears and fails: the old content or the new one, whole.
#![cfg(all(feature = "redb", feature = "wal"))]

mod crash;
#[expect(dead_code, reason = "shared with another test program, which uses the rest")]
#[path = "../wal/disk.rs"]
mod disk;
mod files;
mod large;
mod steps;
