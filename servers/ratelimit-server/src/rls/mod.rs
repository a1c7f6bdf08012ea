//! The protocol of Envoy: `envoy.service.ratelimit.v3.RateLimitService`.
//!
//! Statuses have the length and the order of the descriptors. `hits_addend` of a descriptor that is 0 looks; of a request
//! that is 0 counts as 1. A limit in shadow answers `OK`. What cannot be decided is a gRPC error, never `UNKNOWN`, so that
//! the proxy's own setting for failures applies. What a client can bring about is none: text that is too long, or no UTF-8, is
//! `OVER_LIMIT`.

pub mod proto;
mod question;
mod server;
mod service;
mod status;
mod units;

pub use server::{RlsServer, RlsServerError};
pub use service::RlsService;
