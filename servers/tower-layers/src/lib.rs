//! Middleware for any tower HTTP service: who sends a request, and how much of it is let through.
//!
//! - [`client_ip`]: the address that a limit is counted for, behind proxies that are trusted and no others.
//!
//! # It is not
//! A server, a configuration format or a store: those are in the crates around it.

pub mod client_ip;
