//! Any bytes through the entry point `list_json`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../entry_points.rs"]
#[expect(dead_code, reason = "each target runs one of the entry points")]
mod entry_points;

fuzz_target!(|bytes: &[u8]| entry_points::list_json(bytes));
