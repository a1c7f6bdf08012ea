//! From the proxy's message to the engine's request.

use std::borrow::Cow;

use ratelimit_core::rules::{DESCRIPTORS_MAX, Entry};
use ratelimit_rules::{Descriptor, Epoch, LimitOverride, Request};
use tonic::Status;

use super::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use super::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use super::units::limit_of;
use crate::client_address::counted;

/// A message that was read.
pub(super) struct Question<'m> {
    message: &'m RateLimitRequest,
    limits: Vec<Option<LimitOverride>>,
    values: Vec<Vec<Cow<'m, str>>>,
}

impl<'m> Question<'m> {
    /// Reads a message. The engine's clock has that epoch.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for too many descriptors, and for a limit that cannot be kept.
    pub(super) fn read(message: &'m RateLimitRequest, epoch: Epoch) -> Result<Self, Status> {
        // Checked before anything is made of them: the message may hold as many as its bytes allow.
        if message.descriptors.len() > DESCRIPTORS_MAX {
            let count = message.descriptors.len();
            let text = format!("{count} descriptors are too many: send at most {DESCRIPTORS_MAX}");
            return Err(Status::invalid_argument(text));
        }
        let own = |descriptor| own_limit(descriptor, epoch);
        let limits = message.descriptors.iter().map(own).collect::<Result<_, _>>()?;
        Ok(Self { message, limits, values: message.descriptors.iter().map(values_of).collect() })
    }

    /// The entries of each descriptor, with the values that are counted.
    pub(super) fn entries(&self) -> Vec<Vec<Entry<'_>>> {
        let parts = self.message.descriptors.iter().zip(&self.values);
        parts
            .map(|(descriptor, values)| {
                let parts = descriptor.entries.iter().zip(values);
                parts.map(|(entry, value)| Entry { key: &entry.key, value }).collect()
            })
            .collect()
    }

    /// The descriptors of the request.
    pub(super) fn descriptors<'d>(&'d self, entries: &'d [Vec<Entry<'d>>]) -> Vec<Descriptor<'d>> {
        let parts = self.message.descriptors.iter().zip(entries).zip(&self.limits);
        parts
            .map(|((descriptor, entries), limit)| Descriptor {
                entries,
                hits: descriptor.hits_addend,
                is_negative_hits: descriptor.is_negative_hits,
                limit_override: limit.as_ref(),
            })
            .collect()
    }

    /// The request with these descriptors.
    pub(super) fn request<'r>(&'r self, descriptors: &'r [Descriptor<'r>]) -> Request<'r> {
        let hits = u64::from(self.message.hits_addend.max(1));
        Request::new(&self.message.domain, descriptors).with_hits(hits)
    }
}

fn own_limit(descriptor: &RateLimitDescriptor, epoch: Epoch) -> Result<Option<LimitOverride>, Status> {
    let limit = descriptor.limit.as_ref().map(|given| limit_of(given, epoch)).transpose();
    limit.map_err(|error| Status::invalid_argument(error.to_string()))
}

fn values_of(descriptor: &RateLimitDescriptor) -> Vec<Cow<'_, str>> {
    descriptor.entries.iter().map(|entry| counted(&entry.key, &entry.value)).collect()
}
