//! Policies and what is left of them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Longest name of a policy.
pub const POLICY_NAME_BYTES_MAX: usize = 64;

/// Longest partition key.
pub const PARTITION_KEY_BYTES_MAX: usize = 64;

/// The name of a policy: 1 to [`POLICY_NAME_BYTES_MAX`] printable ASCII characters, as a structured string holds them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Arc<str>);

/// A name that cannot stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy name is 1 to {POLICY_NAME_BYTES_MAX} printable ASCII characters, not {text:?}")]
pub struct PolicyNameError {
    /// The beginning of what was given.
    pub text: String,
}

impl PolicyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyName {
    type Err = PolicyNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if printable && (1..=POLICY_NAME_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(PolicyNameError { text: text.chars().take(POLICY_NAME_BYTES_MAX).collect() })
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a quota counts. These three are registered by the draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Requests: the default, and not written.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
    /// Requests at the same time.
    ConcurrentRequests,
}

impl QuotaUnit {
    /// Its registered name; `None` for the default.
    pub(super) fn written(self) -> Option<&'static str> {
        match self {
            Self::Requests => None,
            Self::ContentBytes => Some("content-bytes"),
            Self::ConcurrentRequests => Some("concurrent-requests"),
        }
    }
}

/// Names the part of a quota that a request belongs to. It is sent to the client: nothing secret, and only what the
/// request itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionKey(Arc<[u8]>);

/// A partition key that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a partition key of {bytes} bytes is longer than {PARTITION_KEY_BYTES_MAX}; send a hash of it")]
pub struct PartitionKeyError {
    /// Its length.
    pub bytes: usize,
}

impl PartitionKey {
    /// # Errors
    /// When it is longer than [`PARTITION_KEY_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self, PartitionKeyError> {
        if bytes.len() > PARTITION_KEY_BYTES_MAX {
            return Err(PartitionKeyError { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One policy, as responses announce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaPolicy {
    pub(super) name: PolicyName,
    pub(super) limit: u64,
    pub(super) window_seconds: Option<NonZeroU64>,
    pub(super) unit: QuotaUnit,
    pub(super) partition_key: Option<PartitionKey>,
}

impl QuotaPolicy {
    /// `limit` requests, without a window.
    pub fn new(name: PolicyName, limit: u64) -> Self {
        Self { name, limit, window_seconds: None, unit: QuotaUnit::Requests, partition_key: None }
    }

    /// In this time; whole seconds, rounded up. A window of 0 is none.
    #[must_use]
    pub fn with_window(self, window: Duration) -> Self {
        Self { window_seconds: NonZeroU64::new(seconds_up(window)), ..self }
    }

    /// Counted in this unit.
    #[must_use]
    pub fn with_unit(self, unit: QuotaUnit) -> Self {
        Self { unit, ..self }
    }

    /// For this part of the quota.
    #[must_use]
    pub fn with_partition_key(self, key: PartitionKey) -> Self {
        Self { partition_key: Some(key), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Whether there is anything to tell: a limit of `u64::MAX` is none.
    pub(crate) fn is_bounded(&self) -> bool {
        self.limit < u64::MAX
    }
}

/// What is left of a policy for the client of a request.
#[derive(Clone, Copy, Debug)]
pub struct Quota<'a> {
    /// The policy.
    pub policy: &'a QuotaPolicy,
    /// Whole units that are left. Written as at most the policy's limit.
    pub remaining: u64,
    /// How long until there is one more; zero when it is full.
    pub more_after: Duration,
    /// How long until it is full.
    pub reset_after: Duration,
}

impl Quota<'_> {
    pub(super) fn remaining(&self) -> u64 {
        self.remaining.min(self.policy.limit)
    }
}

/// Whole seconds, rounded up: whoever waits as long is not early.
pub(super) fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}
