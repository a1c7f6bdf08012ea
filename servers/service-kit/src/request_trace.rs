//! A span for every request, joined to the caller's trace.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use crate::request_id::RequestId;

/// Where the span comes from, for filters.
#[cfg(feature = "otlp")]
pub(crate) const TARGET: &str = module_path!();

/// gRPC's UNKNOWN, INTERNAL and DATA_LOSS: never the caller's doing.
const FAILURES: [&str; 3] = ["2", "13", "15"];

/// Layer that runs each request within a span `request` with its path and id. A `traceparent` header (W3C Trace
/// Context) makes the caller's span its parent. Place it inside of [`RequestIdLayer`](crate::request_id::RequestIdLayer).
///
/// The span has level debug: traces always have it, logs from that level on, and where nobody records it, it costs
/// nothing. What fails inside the server is logged with path and id at any level.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTraceLayer;

impl<S> Layer<S> for RequestTraceLayer {
    type Service = RequestTraceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestTraceService { inner }
    }
}

/// Service of [`RequestTraceLayer`].
#[derive(Clone, Debug)]
pub struct RequestTraceService<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RequestTraceService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequestTraceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = span_of(&request);
        let path = request.uri().path_and_query().cloned();
        let id = request.extensions().get::<RequestId>().cloned();
        let inner = span.in_scope(|| self.inner.call(request));
        RequestTraceFuture { inner, span, path, id }
    }
}

fn span_of<B>(request: &Request<B>) -> Span {
    let path = request.uri().path();
    let span = tracing::debug_span!(
        "request",
        otel.name = path,
        otel.kind = "server",
        path,
        request_id = request.extensions().get::<RequestId>().map(RequestId::as_str),
        http_status = tracing::field::Empty,
        grpc_status = tracing::field::Empty,
    );
    #[cfg(feature = "otlp")]
    crate::traces::join_caller(&span, request.headers());
    span
}

pin_project! {
    /// Future of [`RequestTraceService`].
    pub struct RequestTraceFuture<F> {
        #[pin]
        inner: F,
        span: Span,
        path: Option<PathAndQuery>,
        id: Option<RequestId>,
    }
}

impl<F, R, E> Future for RequestTraceFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let response = ready!(this.inner.poll(cx))?;
        this.span.record("http_status", response.status().as_u16());
        // A refused gRPC call has its status in the header; an answered one in trailers, and that status is 0.
        if let Some(status) = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()) {
            this.span.record("grpc_status", status);
            if FAILURES.contains(&status) {
                let path = this.path.as_ref().map(PathAndQuery::path);
                let request_id = this.id.as_ref().map(RequestId::as_str);
                tracing::warn!(path, request_id, grpc_status = status, "a request failed inside the server");
            }
        }
        Poll::Ready(Ok(response))
    }
}
