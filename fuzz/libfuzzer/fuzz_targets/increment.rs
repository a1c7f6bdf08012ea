//! Any bytes through the target `increment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("increment").run)(bytes); });
