//! Any bytes through the target `proposal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("proposal").run)(bytes); });
