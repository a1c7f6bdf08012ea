//! Claims about a node, each through the public façade.

mod checkpoints;
mod data_directory;
mod embedded_redb;
mod expiry;
mod failures;
mod lists;
mod history;
mod fencing;
mod format_fixture;
mod observed_stores;
mod reads;
mod restart;
mod setting;
mod watch;
mod snapshots;
mod upgrade;
mod writes;
