//! Any bytes through the target `configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("configuration").run)(bytes); });
