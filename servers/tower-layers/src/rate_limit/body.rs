//! Bodies of responses behind a limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The service's body, or a refusal. It holds the permits of its request until it has been read to the end, or dropped.
    pub struct LimitedBody<B> {
        #[pin]
        inner: Inner<B>,
        held: Option<Box<dyn Send>>,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<B> {
        Service { #[pin] body: B },
        Refusal { body: Option<Bytes> },
    }
}

impl<B> LimitedBody<B> {
    pub(super) fn service(body: B, held: Option<Box<dyn Send>>) -> Self {
        Self { inner: Inner::Service { body }, held }
    }

    pub(super) fn refusal(body: Bytes) -> Self {
        Self { inner: Inner::Refusal { body: Some(body).filter(|body| !body.is_empty()) }, held: None }
    }
}

/// An empty body of the service's kind.
impl<B: Default> Default for LimitedBody<B> {
    fn default() -> Self {
        Self::service(B::default(), None)
    }
}

impl<B: Body<Data = Bytes>> Body for LimitedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = match this.inner.project() {
            InnerProjection::Service { body } => ready!(body.poll_frame(cx)),
            InnerProjection::Refusal { body } => body.take().map(|body| Ok(Frame::data(body))),
        };
        if frame.is_none() {
            this.held.take();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Service { body } => body.is_end_stream(),
            Inner::Refusal { body } => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Service { body } => body.size_hint(),
            Inner::Refusal { body } => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl<B> std::fmt::Debug for LimitedBody<B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LimitedBody")
    }
}
