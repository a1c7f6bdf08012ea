//! Any bytes through the target `wal_segments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("wal_segments").run)(bytes); });
