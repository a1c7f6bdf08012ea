//! Counts calls by method and code, and how long they take.
//!
//! - `ledger_grpc_requests_total{method, code}`: answered calls; `code` is gRPC's name, such as `OK`.
//! - `ledger_grpc_request_latency_seconds{method}`: from the decoded head of the request to the head of the answer.
//!
//! Methods are those of the policy, and `other`: nobody can make new label values.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use metrics::{Counter, Histogram};
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};

use crate::access::POLICY;

const REQUESTS: &str = "ledger_grpc_requests_total";
const LATENCY: &str = "ledger_grpc_request_latency_seconds";
const OTHER: &str = "other";

/// Counts every call that passes. Make it after the metrics recorder is installed: it keeps handles.
#[derive(Clone)]
pub struct CallMetricsLayer {
    methods: Arc<HashMap<&'static str, Arc<Method>>>,
    other: Arc<Method>,
}

pub(crate) struct Method {
    name: &'static str,
    succeeded: Counter,
    latency: Histogram,
}

impl Method {
    fn of(name: &'static str) -> Self {
        let succeeded = metrics::counter!(REQUESTS, "method" => name, "code" => code_name(Code::Ok));
        Self { name, succeeded, latency: metrics::histogram!(LATENCY, "method" => name) }
    }

    pub(crate) fn answered(&self, code: Code, started: Instant) {
        self.latency.record(started.elapsed().as_secs_f64());
        match code {
            Code::Ok => self.succeeded.increment(1),
            // Rare: the handle is looked up instead of kept, so that the page has no rows of zeros.
            code => {
                metrics::counter!(REQUESTS, "method" => self.name, "code" => code_name(code)).increment(1)
            }
        }
    }
}

impl CallMetricsLayer {
    /// A layer that counts in the recorder of this moment.
    pub fn new() -> Self {
        metrics::describe_counter!(REQUESTS, "Answered calls by method and gRPC code.");
        metrics::describe_histogram!(LATENCY, metrics::Unit::Seconds, "Time until the head of the answer.");
        let methods = POLICY.iter().map(|rule| (rule.path, Arc::new(Method::of(rule.path)))).collect();
        Self { methods: Arc::new(methods), other: Arc::new(Method::of(OTHER)) }
    }

    pub(crate) fn method(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.methods.get(path).unwrap_or(&self.other))
    }
}

impl Default for CallMetricsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallMetricsLayer {
    type Service = CallMetricsService<S>;
    fn layer(&self, inner: S) -> CallMetricsService<S> {
        CallMetricsService { inner, layer: self.clone() }
    }
}

/// A service behind a [`CallMetricsLayer`].
#[derive(Clone)]
pub struct CallMetricsService<S> {
    inner: S,
    layer: CallMetricsLayer,
}

impl<S, B, R> Service<Request<B>> for CallMetricsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CallMetricsFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = self.layer.method(request.uri().path());
        CallMetricsFuture { started: Instant::now(), inner: self.inner.call(request), method }
    }
}

pin_project! {
    /// The future of a [`CallMetricsService`].
    pub struct CallMetricsFuture<F> {
        #[pin]
        inner: F,
        method: Arc<Method>,
        started: Instant,
    }
}

impl<F, R, E> Future for CallMetricsFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(context))?;
        this.method.answered(code_of(answer.headers()), *this.started);
        Poll::Ready(Ok(answer))
    }
}

/// A refusal has its code in the header; an answer has it in trailers, and there it is OK.
fn code_of(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
