//! Any bytes through the target `forwarding_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("forwarding_header").run)(bytes); });
