//! Claims about a node, each through the public façade.

mod checkpoints;
mod cluster;
mod cluster_identity;
mod cluster_membership;
mod cluster_serving;
mod cluster_setting;
mod cluster_snapshots;
mod data_directory;
mod embedded;
mod expiry;
mod failures;
mod fencing;
mod format_fixture;
mod history;
mod lists;
mod observed_stores;
mod peer_network;
mod reads;
mod restart;
mod setting;
mod snapshots;
mod upgrade;
mod watch;
mod writes;
