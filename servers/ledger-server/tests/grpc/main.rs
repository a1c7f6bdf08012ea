//! The server through its own protocol: a real listener, real clients, a real store.

mod access;
mod bad_input;
mod call_stream;
mod calls;
mod cluster;
mod cluster_setting;
mod discovery;
mod disk;
mod documentation;
mod history;
mod limits;
mod lists;
mod maintenance;
mod metrics;
mod paging;
mod settings;
mod snapshots;
mod support;
mod tokens;
mod transport;
mod watch;
