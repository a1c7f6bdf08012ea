//! Middleware for any tower HTTP service: who sends a request, and how much of it is let through.
//!
//! - [`client_ip`]: the address that a limit is counted for, behind proxies that are trusted and no others.
//! - [`headers`]: what a response tells about limits, and the body of a refusal.
//! - [`keys`]: for whom a request is counted, and how much it costs.
//!
//! # It is not
//! A server, a configuration format or a store: those are in the crates around it.

pub mod client_ip;
pub mod headers;
pub mod keys;
