//! What a response tells about the limits that its request met.
//!
//! `RateLimit-Policy` and `RateLimit` follow draft-ietf-httpapi-ratelimit-headers-10, `X-RateLimit-*` the habits from before,
//! `Retry-After` is RFC 9110, and a refusal's body is a problem document (RFC 9457) of a type that the draft registers.
//!
//! ```
//! use std::time::Duration;
//! use tower_layers::headers::{HeaderStyle, Quota, QuotaPolicy};
//!
//! let burst = QuotaPolicy::new("burst".parse()?, 100).with_window(Duration::from_secs(60));
//! let quota = Quota { policy: &burst, remaining: 40, more_after: Duration::from_millis(1), reset_after: Duration::from_secs(36) };
//! let mut headers = http::HeaderMap::new();
//! HeaderStyle::DRAFT10.write(&mut headers, &[quota], 1_800_000_000);
//! assert_eq!(headers["ratelimit-policy"], r#""burst";q=100;w=60"#);
//! assert_eq!(headers["ratelimit"], r#""burst";r=40;t=1"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod policy;
mod problem;
mod retry_after;
mod structured_field;
mod style;

pub use policy::{
    PARTITION_KEY_BYTES_MAX, POLICY_NAME_BYTES_MAX, PartitionKey, PartitionKeyError, PolicyName,
    PolicyNameError, Quota, QuotaPolicy, QuotaUnit,
};
pub use problem::{Problem, ProblemKind};
pub use retry_after::retry_after_seconds;
pub use structured_field::INTEGER_MAX;
pub use style::{HeaderStyle, HeaderStyleError};
