//! Any bytes through the target `page_token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("page_token").run)(bytes); });
