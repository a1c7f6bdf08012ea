//! The real program, as people and programs run it.

mod harness;
mod load;
mod name_server;

mod backups;
mod bad_input;
mod bench;
mod certificates;
mod cluster;
mod cluster_care;
mod cluster_settings;
mod configuration;
mod crashes;
mod dev_cluster;
mod every_setting;
mod export;
mod failing_disks;
mod forced_clusters;
mod forming;
mod help;
mod history;
mod import;
mod keys;
mod lifecycle;
mod lists;
mod old_copies;
mod proofs;
mod records;
mod snapshots;
mod tampering;
mod tokens;
mod unready;
mod vaults;
mod watches;
