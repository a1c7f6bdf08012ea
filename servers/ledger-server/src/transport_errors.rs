//! The transport's own refusals, told as the API's: with a reason.
//!
//! What cannot be decoded never reaches a service, so tonic answers it: with a code of its choice and without details.
//! This layer recognises these answers and says the same in the words of the API.

use std::task::{Context, Poll};

use futures::future::{MapOk, TryFutureExt};
use http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::errors;

/// How tonic begins to say that a message has another form than it should.
const MALFORMED: [&str; 4] = [
    "failed to decode Protobuf message",
    "protocol error: received message with invalid compression flag",
    "Unexpected EOF decoding stream",
    "Missing request message",
];
/// How it begins to say that a message is larger than the service decodes.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// Gives reasons to the transport's own refusals.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransportErrorsLayer;

impl<S> Layer<S> for TransportErrorsLayer {
    type Service = TransportErrors<S>;

    fn layer(&self, inner: S) -> TransportErrors<S> {
        TransportErrors { inner }
    }
}

/// A service behind a [`TransportErrorsLayer`].
#[derive(Debug, Clone)]
pub struct TransportErrors<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for TransportErrors<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(Response<R>) -> Response<R>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.inner.call(request).map_ok(explained::<R>)
    }
}

/// Only an answer that is nothing but a refusal has its status in the headers.
fn explained<R: Default>(response: Response<R>) -> Response<R> {
    match Status::from_header_map(response.headers()).as_ref().and_then(explanation) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// The status of a stream of requests in the API's words.
pub(crate) fn in_own_words(status: Status) -> Status {
    explanation(&status).unwrap_or(status)
}

fn explanation(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    match status.code() {
        Code::Internal if MALFORMED.iter().any(|start| message.starts_with(start)) => {
            Some(errors::message_malformed(message))
        }
        Code::OutOfRange if message.starts_with(TOO_LARGE) => Some(errors::message_too_large()),
        _ => None,
    }
}
