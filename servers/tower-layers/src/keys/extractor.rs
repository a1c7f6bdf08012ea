//! What finds a key, and what it sees.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri, Version};

use super::combined::{And, Or};
use super::request_key::{KeyWriter, PartKind, RequestKey};

/// A request without its body.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a http::Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its version.
    pub version: Version,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What layers have left for each other.
    pub extensions: &'a Extensions,
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// A response without its body.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What the service has left for us.
    pub extensions: &'a Extensions,
}

impl<'a, B> From<&'a Response<B>> for ResponseHead<'a> {
    fn from(response: &'a Response<B>) -> Self {
        Self { status: response.status(), headers: response.headers(), extensions: response.extensions() }
    }
}

/// Why a request has no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The client did not send it.
    #[error("the request has no {what}")]
    Absent {
        /// What is missing.
        what: String,
    },
    /// A layer that should have found it is missing, or comes later.
    #[error("no {what} was found before the limit; put the layer that finds it outside of the limit's")]
    NotWired {
        /// What is missing.
        what: String,
    },
    /// Longer than [`KEY_BYTES_MAX`](super::KEY_BYTES_MAX).
    #[error("what the request is counted by is too long")]
    TooLong,
}

/// Finds the key that a request is counted by.
pub trait KeyExtractor: Send + Sync {
    /// Writes the parts of the key.
    ///
    /// # Errors
    /// When the request has none; what was written until then is dropped.
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError>;
}

/// Combining extractors, and using them.
pub trait Extract: KeyExtractor {
    /// This key, or if the request has none, that of `other`. The two never share a bucket.
    fn or<O: KeyExtractor>(self, other: O) -> Or<Self, O>
    where
        Self: Sized,
    {
        Or::new(self, other)
    }

    /// Both keys together.
    fn and<O: KeyExtractor>(self, other: O) -> And<Self, O>
    where
        Self: Sized,
    {
        And::new(self, other)
    }

    /// The key of a request.
    ///
    /// # Errors
    /// When it has none.
    fn of<'a>(&self, request: impl Into<RequestHead<'a>>) -> Result<RequestKey, KeyError> {
        let mut key = KeyWriter::default();
        self.extract(request.into(), &mut key)?;
        Ok(key.into_key())
    }
}

impl<E: KeyExtractor + ?Sized> Extract for E {}

impl<E: KeyExtractor + ?Sized> KeyExtractor for Arc<E> {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        (**self).extract(request, key)
    }
}

/// One key for all requests.
#[derive(Clone, Copy, Debug)]
pub struct Everyone;

impl KeyExtractor for Everyone {
    fn extract(&self, _: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        key.part(PartKind::Everyone, &[])
    }
}
