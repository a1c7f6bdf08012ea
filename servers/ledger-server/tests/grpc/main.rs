//! The server through its own protocol: a real listener, real clients, a real store.

mod access;
mod bad_input;
mod calls;
mod disk;
mod documentation;
mod limits;
mod maintenance;
mod metrics;
mod paging;
mod settings;
mod support;
mod tokens;
mod transport;
