//! What the verifier promises, one claim per test.

mod documents;
mod encodings;
mod fixture;
mod fuzz_entry_points;
mod golden;
mod golden_json;
mod independent;
mod log_proofs;
mod notes;
mod state_oracle;
mod state_proofs;
