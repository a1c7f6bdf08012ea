//! What a request asks, and the bounds that it has to keep.

use ratelimit_core::TableError;
use ratelimit_core::rules::{DESCRIPTORS_MAX, Entry};

use crate::limit_override::LimitOverride;

/// Entries of a descriptor.
pub const ENTRIES_MAX: usize = 16;
/// Bytes of the domain and all keys and values of a request together. Clients choose values: a proxy takes headers of 60 KiB
/// (Envoy unless told otherwise) and may name one in several descriptors. Below that, length must decide nothing.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;

/// What one request asks of the limits of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'r> {
    /// The domain.
    pub domain: &'r str,
    /// Each of them may meet one rule.
    pub descriptors: &'r [Descriptor<'r>],
    /// What each descriptor costs that does not say so itself.
    pub hits: u64,
}

/// One description of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor<'r> {
    /// The entries, in the order of the rules.
    pub entries: &'r [Entry<'r>],
    /// What it costs, if not what the request says. 0 asks whether anything is left, and takes nothing.
    pub hits: Option<u64>,
    /// Whether the hits are to be given back. They carry no grant, so they are ignored and counted.
    pub is_negative_hits: bool,
    /// The limit in place of the one that the rules have for this descriptor, if they have one. The domain has to be known.
    pub limit_override: Option<&'r LimitOverride>,
}

impl<'r> Request<'r> {
    /// A request that costs one of each.
    pub fn new(domain: &'r str, descriptors: &'r [Descriptor<'r>]) -> Self {
        Self { domain, descriptors, hits: 1 }
    }

    /// The request at another cost.
    #[must_use]
    pub fn with_hits(self, hits: u64) -> Self {
        Self { hits, ..self }
    }

    /// What the descriptor takes: `None` when it gives back.
    pub(crate) fn cost(&self, descriptor: &Descriptor<'_>) -> Option<u64> {
        (!descriptor.is_negative_hits).then_some(descriptor.hits.unwrap_or(self.hits))
    }

    /// Checks the bounds.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        if self.domain.is_empty() {
            return Err(RequestError::NoDomain);
        }
        match self.descriptors.len() {
            0 => return Err(RequestError::NoDescriptors),
            1..=DESCRIPTORS_MAX => {}
            descriptors => return Err(RequestError::TooManyDescriptors { descriptors }),
        }
        let mut bytes = self.domain.len();
        for (index, descriptor) in self.descriptors.iter().enumerate() {
            match descriptor.entries.len() {
                0 => return Err(RequestError::NoEntries { descriptor: index }),
                1..=ENTRIES_MAX => {}
                entries => return Err(RequestError::TooManyEntries { descriptor: index, entries }),
            }
            for entry in descriptor.entries {
                if entry.key.is_empty() {
                    return Err(RequestError::EmptyKey { descriptor: index });
                }
                bytes = bytes.saturating_add(entry.key.len()).saturating_add(entry.value.len());
            }
        }
        if bytes > REQUEST_BYTES_MAX { Err(RequestError::TooLong { bytes }) } else { Ok(()) }
    }
}

impl<'r> Descriptor<'r> {
    /// A descriptor that costs what the request says.
    pub fn new(entries: &'r [Entry<'r>]) -> Self {
        Self { entries, hits: None, is_negative_hits: false, limit_override: None }
    }

    /// The descriptor at a cost of its own.
    #[must_use]
    pub fn with_hits(self, hits: u64) -> Self {
        Self { hits: Some(hits), ..self }
    }

    /// The descriptor under another limit.
    #[must_use]
    pub fn limited(self, limit: &'r LimitOverride) -> Self {
        Self { limit_override: Some(limit), ..self }
    }
}

/// A request was not decided, and nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The domain is empty.
    #[error("the domain is empty: name one")]
    NoDomain,
    /// There is nothing to decide about.
    #[error("there are no descriptors: send at least one")]
    NoDescriptors,
    /// More descriptors than a request may have.
    #[error("{descriptors} descriptors are too many: send at most {DESCRIPTORS_MAX}")]
    TooManyDescriptors {
        /// How many.
        descriptors: usize,
    },
    /// A descriptor is empty.
    #[error("descriptor {descriptor} has no entries: send at least one")]
    NoEntries {
        /// Which, from 0.
        descriptor: usize,
    },
    /// More entries than a descriptor may have.
    #[error("descriptor {descriptor} has {entries} entries: send at most {ENTRIES_MAX}")]
    TooManyEntries {
        /// Which, from 0.
        descriptor: usize,
        /// How many.
        entries: usize,
    },
    /// An entry without a key.
    #[error("descriptor {descriptor} has an entry without a key: name it")]
    EmptyKey {
        /// Which, from 0.
        descriptor: usize,
    },
    /// Domain, keys and values are too long.
    #[error("domain, keys and values have {bytes} bytes together: send at most {REQUEST_BYTES_MAX}")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Requests brought limits of their own with more different windows than there are tables for: of several epochs.
    #[error("requests have brought limits with {overrides_max} different windows: make all of one epoch")]
    TooManyOverrides {
        /// The most.
        overrides_max: usize,
    },
    /// The limit that a request brought needs a table that cannot be had.
    #[error("there is no room for the limit that the request brings: {0}")]
    NoTable(#[from] TableError),
}
