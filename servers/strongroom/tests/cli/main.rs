//! The real program, as people and programs run it.

mod harness;

mod bad_input;
mod bench;
mod configuration;
mod crashes;
mod every_setting;
mod help;
mod import;
mod keys;
mod lifecycle;
mod proofs;
mod records;
mod snapshots;
mod tampering;
mod tokens;
mod vaults;
