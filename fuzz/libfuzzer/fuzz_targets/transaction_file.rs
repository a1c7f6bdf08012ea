//! Any bytes through the target `transaction_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("transaction_file").run)(bytes); });
