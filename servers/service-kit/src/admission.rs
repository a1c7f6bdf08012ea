//! How many requests a server works on at once, and for how long.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

/// What a shed client is told to wait. Long enough to drain a queue of milliseconds, short enough to go unnoticed.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The `domain` of error details (google.rpc.ErrorInfo).
pub const ERROR_DOMAIN: &str = "strongroom";

/// Services by which one sees how the server does. They have places of their own, so that a full server still answers.
const PROBE_SERVICES: &[&str] = &[
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
/// Calls to them at once: each watcher of the server's health keeps one open.
const PROBES_MAX: usize = 1_024;

/// Bounds of the work of one server, over all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Unary requests worked on at once; further ones are shed. 1,024.
    pub requests_max: usize,
    /// Streams open at once, apart from the unary requests. 4,096.
    pub streams_max: usize,
    /// Time for a unary request; a client's own shorter deadline wins. 30 s.
    pub request_timeout: Duration,
    /// Paths of streaming calls, such as `/strongroom.ledger.v1.ReadService/Watch`: no timeout, own count.
    pub streaming_paths: Vec<String>,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            requests_max: 1_024,
            streams_max: 4_096,
            request_timeout: Duration::from_secs(30),
            streaming_paths: Vec::new(),
        }
    }
}

/// Layer that enforces [`AdmissionLimits`] with gRPC statuses: `RESOURCE_EXHAUSTED` with a retry hint when the server
/// is full, `DEADLINE_EXCEEDED` when time is up.
///
/// A request that ran out of time may still take effect: what it had handed on is not called back.
#[derive(Clone, Debug)]
pub struct AdmissionLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    request_timeout: Duration,
    streaming_paths: HashSet<String>,
}

impl AdmissionLayer {
    /// A layer whose clones count together.
    pub fn new(limits: &AdmissionLimits) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            shared: Arc::new(Shared {
                requests: permits(limits.requests_max),
                streams: permits(limits.streams_max),
                probes: permits(PROBES_MAX),
                request_timeout: limits.request_timeout,
                streaming_paths: limits.streaming_paths.iter().cloned().collect(),
            }),
        }
    }
}

impl Shared {
    fn class_of(&self, path: &str) -> (Class, &Arc<Semaphore>) {
        if PROBE_SERVICES.iter().any(|service| path.starts_with(service)) {
            (Class::Probe, &self.probes)
        } else if self.streaming_paths.contains(path) {
            (Class::Stream, &self.streams)
        } else {
            (Class::Request, &self.requests)
        }
    }
}

/// Calls that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Request,
    Stream,
    Probe,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Request => "request",
            Class::Stream => "stream",
            Class::Probe => "probe",
        }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdmissionService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Service of [`AdmissionLayer`].
#[derive(Clone, Debug)]
pub struct AdmissionService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for AdmissionService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<AdmittedBody<R>>;
    type Error = S::Error;
    type Future = AdmissionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (class, permits) = self.shared.class_of(request.uri().path());
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            metrics::counter!("strongroom_requests_shed_total", "kind" => class.name()).increment(1);
            return AdmissionFuture { admitted: Admitted::Shed };
        };
        if class != Class::Request {
            let admitted = Admitted::Stream { inner: self.inner.call(request), permit: Some(permit) };
            return AdmissionFuture { admitted };
        }
        let asked = client_timeout(request.headers()).unwrap_or(Duration::MAX);
        let deadline = tokio::time::sleep(asked.min(self.shared.request_timeout));
        AdmissionFuture { admitted: Admitted::Unary { inner: self.inner.call(request), deadline, permit } }
    }
}

pin_project! {
    /// Future of [`AdmissionService`].
    pub struct AdmissionFuture<F> {
        #[pin]
        admitted: Admitted<F>,
    }
}

pin_project! {
    #[project = AdmittedProjection]
    enum Admitted<F> {
        // There was no room.
        Shed,
        // A unary request. Its place is free again once the handler is done, so that a client that reads slowly does
        // not keep it.
        Unary { #[pin] inner: F, #[pin] deadline: Sleep, permit: OwnedSemaphorePermit },
        // A stream; its body takes the place over.
        Stream { #[pin] inner: F, permit: Option<OwnedSemaphorePermit> },
    }
}

impl<F, R, E> Future for AdmissionFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<AdmittedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, permit) = match self.project().admitted.project() {
            AdmittedProjection::Shed => (overloaded().into_http(), None),
            AdmittedProjection::Unary { inner, deadline, .. } => match inner.poll(cx) {
                Poll::Ready(response) => (response?, None),
                Poll::Pending => {
                    ready!(deadline.poll(cx));
                    metrics::counter!("strongroom_requests_timed_out_total").increment(1);
                    (out_of_time().into_http(), None)
                }
            },
            AdmittedProjection::Stream { inner, permit } => (ready!(inner.poll(cx))?, permit.take()),
        };
        Poll::Ready(Ok(response.map(|body| AdmittedBody { body, _permit: permit })))
    }
}

pin_project! {
    /// A response's body; a stream's holds the stream's place.
    pub struct AdmittedBody<B> {
        #[pin]
        body: B,
        _permit: Option<OwnedSemaphorePermit>,
    }
}

impl<B: Body> Body for AdmittedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn overloaded() -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    details.set_error_info("OVERLOADED", ERROR_DOMAIN, []);
    let message = "the server works on as many requests as it may: retry after the given delay";
    let mut status = Status::with_error_details(Code::ResourceExhausted, message, details);
    // Understood by gRPC clients with retry policies (gRFC A6).
    status.metadata_mut().insert("grpc-retry-pushback-ms", (RETRY_AFTER.as_millis() as u64).into());
    status
}

/// The refusal of a request whose time is up.
pub fn out_of_time() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("TIMEOUT", ERROR_DOMAIN, []);
    let message =
        "the request ran out of time; a write may still take effect: retry with its idempotency key";
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// The `grpc-timeout` header: up to 8 digits and a unit (gRPC over HTTP/2). Malformed ones are ignored, as tonic does.
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_deadline_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a header value"));
            client_timeout(&headers)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("9n"), Some(Duration::from_nanos(9)));
        for malformed in ["", "S", "5", "5x", "-5S", "999999999S", "+5S"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }
}
