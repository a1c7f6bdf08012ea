//! Any bytes through the target `redb_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("redb_rows").run)(bytes); });
