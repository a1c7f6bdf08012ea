//! How many bytes of peers' requests a node holds at once: counted as they arrive, given back when the request is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::Semaphore;
use tonic::Status;
use tower::Service;

use super::limits::UNCOUNTED_BYTES_PER_REQUEST;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service whose requests share a budget of bytes. What does not fit is refused as busy.
#[derive(Debug, Clone)]
pub(super) struct BodyBudget<S> {
    inner: S,
    bytes: Arc<Semaphore>,
}

impl<S> BodyBudget<S> {
    /// A service over `inner` whose clones count together.
    pub fn new(inner: S, bytes_max: usize) -> Self {
        Self { inner, bytes: Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS))) }
    }
}

impl<S, B, R> Service<Request<B>> for BodyBudget<S>
where
    S: Service<Request<CountedBody<B>>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let held = Arc::new(HeldBytes {
            bytes: Arc::clone(&self.bytes),
            uncounted: AtomicUsize::new(UNCOUNTED_BYTES_PER_REQUEST),
            counted: AtomicUsize::new(0),
        });
        // The body is gone once the message is decoded; the message is held until it is answered.
        request.extensions_mut().insert(RequestBytes { _held: Arc::clone(&held) });
        self.inner.call(request.map(|body| CountedBody { body, held }))
    }
}

/// Keeps the bytes of a request counted while it lives.
#[derive(Debug, Clone)]
struct RequestBytes {
    _held: Arc<HeldBytes>,
}

#[derive(Debug)]
struct HeldBytes {
    bytes: Arc<Semaphore>,
    /// Bytes that may still come without being counted.
    uncounted: AtomicUsize,
    counted: AtomicUsize,
}

impl HeldBytes {
    /// Counts bytes that have arrived.
    fn take(&self, arrived: usize) -> Result<(), Status> {
        let uncounted = self.uncounted.load(Ordering::Relaxed);
        self.uncounted.store(uncounted.saturating_sub(arrived), Ordering::Relaxed);
        let to_count = arrived.saturating_sub(uncounted);
        if to_count == 0 {
            return Ok(());
        }
        let busy = || Status::resource_exhausted("the node holds as many bytes of requests as it may");
        let permits = u32::try_from(to_count).map_err(|_| busy())?;
        self.bytes.try_acquire_many(permits).map_err(|_| busy())?.forget();
        self.counted.fetch_add(to_count, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.bytes.add_permits(*self.counted.get_mut());
    }
}

pin_project! {
    /// A request's body that counts what arrives.
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        held: Arc<HeldBytes>,
    }
}

impl<B> Body for CountedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = match ready!(this.body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let arrived = frame.data_ref().map_or(0, Buf::remaining);
        Poll::Ready(Some(this.held.take(arrived).map(|()| frame).map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
