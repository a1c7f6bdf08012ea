//! Middleware for any tower HTTP service: who sends a request, and how many of them are let through.
//!
//! ```
//! use ratelimit_core::{Limit, Rate};
//! use tower::ServiceBuilder;
//! use tower_layers::client_ip::{ClientIpLayer, ClientIpPolicy, Grouping};
//! use tower_layers::keys::ClientAddress;
//! use tower_layers::rate_limit::{RateLimitLayer, RateLimitRule};
//!
//! let limit = Limit::gcra(Rate::per_minute(60), 20)?;
//! let rule = RateLimitRule::new("client".parse()?, limit, ClientAddress::new(Grouping::default()));
//! let layers = ServiceBuilder::new()
//!     .layer(ClientIpLayer::new(ClientIpPolicy::peer_only()))
//!     .layer(RateLimitLayer::new(vec![rule])?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`client_ip`]: the address that a limit is counted for, behind proxies that are trusted and no others.
//! - [`headers`]: what a response tells about limits, and the body of a refusal.
//! - [`keys`]: for whom a request is counted, and how much it costs.
//! - [`rate_limit`]: the limits themselves.
//!
//! The layers know nothing of a server: axum, hyper and tonic services are limited alike. The feature `axum` finds peers and
//! routes as axum keeps them. Waiting needs tokio's timers; nothing else needs a runtime.
//!
//! # It is not
//! A server, a configuration format or a store: those are in the crates around it.

pub mod client_ip;
pub mod headers;
pub mod keys;
pub mod rate_limit;
