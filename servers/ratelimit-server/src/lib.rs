//! Rate limits as a service: decisions for proxies and programs, over the protocols that they speak already.
//!
//! # Concepts
//!
//! - [`resp`]: `CL.THROTTLE` for any client of Redis, whose policies come with each request.
//! - [`http`]: JSON for programs, a query for proxies that ask before they forward; decided by rules.
//! - [`rls`]: Envoy's protocol, for the proxy itself and others that speak it; decided by rules.
//! - [`access`]: who may ask, and who may change things.
//! - [`rule_trial`]: what a server would make of rules, without one.
//! - [`RateLimitServers`]: all of them on ports of their own, from [`settings`] and [`rule_files`].
//!
//! # Guarantees
//!
//! - A request that is not understood changes nothing.
//! - Every buffer, connection and wait is bounded by a named constant or a setting.

pub mod access;
mod client_address;
mod durable_store;
mod grants;
pub mod http;
mod limit_service;
mod meter;
pub mod resp;
pub mod rls;
mod rule_engine;
pub mod rule_files;
mod rule_metrics;
mod rule_series;
pub mod rule_trial;
mod servers;
pub mod settings;

pub use durable_store::{DurableStore, EPOCH_AGE_MAX, WallClock};
pub use limit_service::LimitService;
pub use rule_engine::{RuleEngine, RuleGrant, STORE_TIMEOUT};
pub use rule_metrics::RuleMetrics;
pub use rule_series::{OTHER_RULES, RULES_LABELLED_MAX};
pub use servers::{RateLimitServers, ServersError, TakenPort};
