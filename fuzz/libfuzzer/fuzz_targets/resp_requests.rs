//! Any bytes through the target `resp_requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("resp_requests").run)(bytes); });
