//! The real program, as people and programs run it.

mod harness;
mod load;

mod bad_input;
mod bench;
mod certificates;
mod configuration;
mod crashes;
mod every_setting;
mod failing_disks;
mod help;
mod history;
mod import;
mod keys;
mod lifecycle;
mod lists;
mod proofs;
mod records;
mod snapshots;
mod tampering;
mod tokens;
mod vaults;
