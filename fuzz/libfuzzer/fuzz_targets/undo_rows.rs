//! Any bytes through the target `undo_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("undo_rows").run)(bytes); });
