//! Which headers are written.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::policy::{Quota, seconds_up};
use super::structured_field::{INTEGER_MAX, StringList, push_string};

static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What `X-RateLimit-*` means: it is one set of names with two meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Legacy {
    /// The reset in seconds from now; the limit followed by all policies (draft 03, Envoy).
    Draft03,
    /// The reset in seconds of Unix time (GitHub).
    Github,
}

/// Which headers tell about limits: `draft10`, `draft03`, `github`, `none`, or `draft10` with one of the older two joined by
/// `+`. Existing rate limit headers of the response are replaced by those that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderStyle {
    structured: Option<Draft10>,
    legacy: Option<Legacy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draft10;

/// Not a style.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no style of headers; use none, draft10, draft03, github, draft10+draft03 or draft10+github"
)]
pub struct HeaderStyleError {
    /// The beginning of what was given.
    pub text: String,
}

impl HeaderStyle {
    /// None. `Retry-After` is written all the same.
    pub const NONE: Self = Self { structured: None, legacy: None };
    /// `RateLimit` and `RateLimit-Policy`.
    pub const DRAFT10: Self = Self { structured: Some(Draft10), legacy: None };
    /// `X-RateLimit-*` with the reset in seconds from now.
    pub const DRAFT03: Self = Self { structured: None, legacy: Some(Legacy::Draft03) };
    /// `X-RateLimit-*` with the reset in seconds of Unix time.
    pub const GITHUB: Self = Self { structured: None, legacy: Some(Legacy::Github) };
    /// The two of them: for clients old and new.
    pub const DRAFT10_AND_DRAFT03: Self = Self { structured: Some(Draft10), legacy: Some(Legacy::Draft03) };
    /// The two of them: for clients old and new.
    pub const DRAFT10_AND_GITHUB: Self = Self { structured: Some(Draft10), legacy: Some(Legacy::Github) };

    const NAMED: [(&'static str, Self); 6] = [
        ("none", Self::NONE),
        ("draft10", Self::DRAFT10),
        ("draft03", Self::DRAFT03),
        ("github", Self::GITHUB),
        ("draft10+draft03", Self::DRAFT10_AND_DRAFT03),
        ("draft10+github", Self::DRAFT10_AND_GITHUB),
    ];

    /// Writes what is left of `quotas`, in their order. `unix_seconds` is the time now. Without quotas nothing is written.
    pub fn write(&self, headers: &mut HeaderMap, quotas: &[Quota<'_>], unix_seconds: u64) {
        let Some(closest) = quotas.iter().min_by_key(|quota| closeness(quota)) else { return };
        if self.structured.is_some() {
            set(headers, &RATELIMIT_POLICY, policies(quotas));
            set(headers, &RATELIMIT, service_limits(quotas));
        }
        let Some(legacy) = self.legacy else { return };
        let reset_seconds = seconds_up(closest.reset_after);
        let (limit, reset) = match legacy {
            Legacy::Draft03 => (limit_and_policies(closest, quotas), reset_seconds),
            Legacy::Github => (integer(closest.policy.limit), unix_seconds.saturating_add(reset_seconds)),
        };
        set(headers, &X_LIMIT, limit);
        set(headers, &X_REMAINING, integer(closest.remaining()));
        set(headers, &X_RESET, integer(reset));
    }
}

/// Fewest left first; of equals the one that takes longest to fill.
fn closeness(quota: &Quota<'_>) -> (u64, std::cmp::Reverse<std::time::Duration>) {
    (quota.remaining(), std::cmp::Reverse(quota.reset_after))
}

fn policies(quotas: &[Quota<'_>]) -> String {
    let mut list = StringList::default();
    for Quota { policy, .. } in quotas {
        list.item(policy.name.as_str());
        list.integer("q", policy.limit);
        if let Some(unit) = policy.unit.written() {
            list.string("qu", unit);
        }
        if let Some(window) = policy.window_seconds {
            list.integer("w", window.get());
        }
        if let Some(key) = &policy.partition_key {
            list.bytes("pk", key.as_bytes());
        }
    }
    list.into_text()
}

fn service_limits(quotas: &[Quota<'_>]) -> String {
    let mut list = StringList::default();
    for quota in quotas {
        list.item(quota.policy.name.as_str());
        list.integer("r", quota.remaining());
        if !quota.more_after.is_zero() {
            list.integer("t", seconds_up(quota.more_after));
        }
        if let Some(key) = &quota.policy.partition_key {
            list.bytes("pk", key.as_bytes());
        }
    }
    list.into_text()
}

/// As draft 03 and Envoy write it: the limit that is closest, then all of them.
fn limit_and_policies(closest: &Quota<'_>, quotas: &[Quota<'_>]) -> String {
    let mut text = integer(closest.policy.limit);
    for Quota { policy, .. } in quotas {
        text.push_str(", ");
        text.push_str(&integer(policy.limit));
        if let Some(window) = policy.window_seconds {
            text.push_str(";w=");
            text.push_str(&integer(window.get()));
        }
        text.push_str(";name=");
        push_string(&mut text, policy.name.as_str());
    }
    text
}

fn integer(value: u64) -> String {
    value.min(INTEGER_MAX).to_string()
}

fn set(headers: &mut HeaderMap, name: &HeaderName, text: String) {
    // Names are printable ASCII by their type, the rest is digits: a value for certain.
    if let Ok(mut value) = HeaderValue::try_from(text) {
        // Not a secret, but new in every answer: an HPACK table (RFC 7541, 7.1) is no place for it.
        value.set_sensitive(name != RATELIMIT_POLICY);
        headers.insert(name.clone(), value);
    }
}

impl FromStr for HeaderStyle {
    type Err = HeaderStyleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMED.into_iter().find(|(name, _)| *name == text);
        named
            .map(|(_, style)| style)
            .ok_or_else(|| HeaderStyleError { text: text.chars().take(64).collect() })
    }
}

impl fmt::Display for HeaderStyle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.into_iter().find(|(_, style)| style == self);
        formatter.write_str(named.map_or("none", |(name, _)| name))
    }
}
