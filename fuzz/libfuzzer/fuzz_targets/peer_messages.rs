//! Any bytes through the target `peer_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("peer_messages").run)(bytes); });
