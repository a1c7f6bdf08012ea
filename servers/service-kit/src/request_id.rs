//! A name for every request, taken from the caller or made here.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// Longest id taken from a caller; a longer one is replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The header that carries the id, in both directions.
pub static REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters. Found in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // The constructors admit visible ASCII only.
        self.0.to_str().unwrap_or_default()
    }

    /// The caller's id if it is usable: it goes into logs and replies.
    fn accept(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let usable =
            (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        usable.then(|| Self(value.clone()))
    }

    /// A fresh id, unique among processes (64 random bits) and within this one (a counter). It is a name, not a secret.
    fn fresh() -> Self {
        static PROCESS: OnceLock<String> = OnceLock::new();
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let process = PROCESS.get_or_init(|| {
            // Without a random source the process id still tells processes of one machine apart.
            let bits = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
            format!("{bits:016x}")
        });
        let text = format!("{process}-{:x}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unnamed"));
        // Not a secret, but new in every answer: an HPACK table (RFC 7541, 7.1) is no place for it.
        value.set_sensitive(true);
        Self(value)
    }
}

/// Layer that puts a [`RequestId`] into each request's extensions and into its response's header.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIdService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestIdService { inner }
    }
}

/// Service of [`RequestIdLayer`].
#[derive(Clone, Debug)]
pub struct RequestIdService<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RequestIdService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequestIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let given = request.headers().get(&REQUEST_ID_HEADER).and_then(RequestId::accept);
        let id = given.unwrap_or_else(RequestId::fresh);
        request.headers_mut().insert(REQUEST_ID_HEADER.clone(), id.0.clone());
        request.extensions_mut().insert(id.clone());
        RequestIdFuture { inner: self.inner.call(request), id: Some(id) }
    }
}

pin_project! {
    /// Future of [`RequestIdService`].
    pub struct RequestIdFuture<F> {
        #[pin]
        inner: F,
        id: Option<RequestId>,
    }
}

impl<F, R, E> Future for RequestIdFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(RequestId(value)) = this.id.take() {
            response.headers_mut().insert(REQUEST_ID_HEADER.clone(), value);
        }
        Poll::Ready(Ok(response))
    }
}
