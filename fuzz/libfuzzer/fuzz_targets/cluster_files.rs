//! Any bytes through the target `cluster_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("cluster_files").run)(bytes); });
