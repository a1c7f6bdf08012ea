//! Any bytes through the target `trusted_networks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("trusted_networks").run)(bytes); });
