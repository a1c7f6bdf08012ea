//! Any bytes through the target `rule_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("rule_file").run)(bytes); });
