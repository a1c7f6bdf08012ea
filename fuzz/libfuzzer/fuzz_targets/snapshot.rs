//! Any bytes through the target `snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("snapshot").run)(bytes); });
