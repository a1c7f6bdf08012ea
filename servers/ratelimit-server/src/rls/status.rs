//! From the engine's answer to the proxy's message.

use std::time::Duration;

use http::HeaderMap;
use ratelimit_core::{Decision, Enforcement, Limit};
use ratelimit_rules::{Answer, Status};

use super::proto::envoy::config::core::v3::HeaderValue;
use super::proto::envoy::service::ratelimit::v3::RateLimitResponse;
use super::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use super::units::told;

/// The message of an answer, with these headers for the client's response.
pub(super) fn response(answer: &Answer, headers: &HeaderMap) -> RateLimitResponse {
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some(HeaderValue { key: name.as_str().to_owned(), value: value.to_str().ok()?.to_owned() })
    };
    RateLimitResponse {
        overall_code: code(answer.allowed).into(),
        statuses: answer.statuses.iter().map(descriptor_status).collect(),
        response_headers_to_add: headers.iter().filter_map(header).collect(),
    }
}

/// That of so many descriptors that were not looked at.
pub(super) fn over_limit(descriptors: usize) -> RateLimitResponse {
    let status = DescriptorStatus { code: Code::OverLimit.into(), ..DescriptorStatus::default() };
    RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        statuses: vec![status; descriptors],
        response_headers_to_add: Vec::new(),
    }
}

fn code(is_allowed: bool) -> Code {
    if is_allowed { Code::Ok } else { Code::OverLimit }
}

fn descriptor_status(status: &Status) -> DescriptorStatus {
    let (Some(rule), Some(decision)) = (&status.rule, &status.decision) else {
        return DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() };
    };
    if rule.limit == Limit::Unlimited {
        let (code, limit_remaining) = (Code::Ok.into(), u32::MAX);
        return DescriptorStatus { code, limit_remaining, ..DescriptorStatus::default() };
    }
    let is_over = !decision.is_allowed() && status.enforcement != Enforcement::Shadow;
    DescriptorStatus {
        code: code(!is_over).into(),
        current_limit: told(rule),
        limit_remaining: u32::try_from(decision.remaining()).unwrap_or(u32::MAX),
        duration_until_reset: prost_types::Duration::try_from(until_reset(decision)).ok(),
    }
}

/// The proxy makes `Retry-After` of it when the limit was exceeded: then it is the wait, else the time until all is left.
fn until_reset(decision: &Decision) -> Duration {
    decision.retry_after().unwrap_or_else(|| decision.reset_after())
}
