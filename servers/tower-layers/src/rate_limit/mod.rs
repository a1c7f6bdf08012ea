//! Limits in front of a service.
//!
//! A [`RateLimitLayer`] checks every request against its rules, all or nothing: what one rule denies costs nothing on the
//! others. A request that is denied is answered with 429, `Retry-After` and a problem document (a gRPC call with
//! `RESOURCE_EXHAUSTED`), or waits for its turn when a [`WaitPolicy`] says so. Shadow rules are counted and refuse nobody.
//!
//! ```
//! use ratelimit_core::{Limit, Rate};
//! use tower_layers::keys::{Everyone, HeaderValueKey};
//! use tower_layers::rate_limit::{RateLimitLayer, RateLimitRule};
//!
//! let tenant = HeaderValueKey::new("x-tenant".try_into()?);
//! let layer = RateLimitLayer::new(vec![
//!     RateLimitRule::new("tenant".parse()?, Limit::gcra(Rate::per_minute(60), 20)?, tenant),
//!     RateLimitRule::new("all".parse()?, Limit::gcra(Rate::per_second(500), 1_000)?, Everyone),
//! ])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - The service is called only after every enforced rule has admitted the request.
//! - Who waits is served in the order of arrival, per key of the rule that denies, and never waits beyond its deadline. Who
//!   goes away while waiting has consumed nothing; what was charged for a request that then was not served is given back.
//! - A permit of a concurrency limit is held until the response's body is read to its end, or dropped, or its expiry.
//! - What is queued is bounded ([`WaitPolicy::waiting_max`]), and so is what is known of keys
//!   ([`RateLimitRule::with_table`]).
//!
//! # Metrics
//! `rate_limit_decisions_total{rule,outcome}` (`allowed`, `denied`, `never_fits`, `shadow_allowed`, `shadow_denied`),
//! `rate_limits_exceeded_total{rule}`, `rate_limit_waiting`.

mod admission;
mod body;
mod clock;
mod counters;
mod future;
mod layer;
mod refusal;
mod rule;
mod service;
mod waiting;

pub use body::LimitedBody;
pub use clock::{Clock, SystemClock};
pub use future::RateLimitFuture;
pub use layer::{RULES_MAX, RateLimitConfigError, RateLimitLayer};
pub use rule::{KEYS_DEFAULT, RateLimitRule};
pub use service::RateLimit;
pub use waiting::{WAITING_MAX, WaitPolicy};
