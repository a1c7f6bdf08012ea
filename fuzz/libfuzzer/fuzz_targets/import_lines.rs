//! Any bytes through the target `import_lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { (strongroom_fuzz::Target::named("import_lines").run)(bytes); });
