//! What the verifier promises, one claim per test.
#![expect(clippy::disallowed_methods, reason = "tests read golden files and run the verifier in Python")]

mod documents;
mod encodings;
mod fixture;
mod fuzz_entry_points;
mod golden;
mod golden_json;
mod golden_lists;
mod independent;
mod list_fixture;
mod lists;
mod log_proofs;
mod notes;
mod state_oracle;
mod state_proofs;
