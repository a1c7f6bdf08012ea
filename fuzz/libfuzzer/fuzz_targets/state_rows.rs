//! Any bytes through the target `state_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("state_rows").run)(bytes); });
