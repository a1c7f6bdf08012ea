//! Answers that end when the token of their call is revoked: a stream may be open for days.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::CONTENT_TYPE;
use hyper::body::{Body, Frame, SizeHint};
use ledger_core::access_token::AccessTokens;
use pin_project_lite::pin_project;
use tokio::sync::watch;

use crate::errors;
use crate::tokens::{TokenId, TokenRegistry};

/// Tells whether the token of a call is still valid.
pub(super) struct Validity {
    registry: Arc<TokenRegistry>,
    id: TokenId,
    changes: watch::Receiver<Arc<AccessTokens>>,
    /// Wakes at the next change; made when an answer first has to wait.
    change: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Validity {
    pub(super) fn new(registry: Arc<TokenRegistry>, id: TokenId) -> Self {
        let mut changes = registry.changes();
        // It may have been revoked since it was looked up.
        changes.mark_changed();
        Self { registry, id, changes, change: None }
    }

    /// Whether the token was revoked meanwhile.
    fn is_revoked(&mut self) -> bool {
        // One atomic read while no token changes.
        let is_changed = self.changes.has_changed().unwrap_or(true);
        is_changed && {
            self.changes.mark_unchanged();
            !self.registry.holds(self.id)
        }
    }

    /// Completes when the token is revoked.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_revoked() {
                return Poll::Ready(());
            }
            let mut changes = self.changes.clone();
            let change = self.change.get_or_insert_with(|| {
                Box::pin(async move {
                    // The registry keeps the ledger, and that the channel, open as long as `self` lives.
                    let _ = changes.changed().await;
                })
            });
            ready!(change.as_mut().poll(cx));
            self.change = None;
        }
    }
}

pin_project! {
    /// Future of a call that was let through.
    pub struct AdmittedCall<F> {
        #[pin]
        inner: F,
        validity: Option<Validity>,
    }
}

impl<F> AdmittedCall<F> {
    pub(super) fn new(inner: F, validity: Option<Validity>) -> Self {
        Self { inner, validity }
    }
}

impl<F, R, E> Future for AdmittedCall<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<RevocableBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let validity = this.validity.take();
        Poll::Ready(Ok(response.map(|body| RevocableBody { body, validity, is_over: false })))
    }
}

pin_project! {
    /// The body of an answer. When the token of the call is revoked it ends with `UNAUTHENTICATED`.
    pub struct RevocableBody<B> {
        #[pin]
        body: B,
        validity: Option<Validity>,
        is_over: bool,
    }
}

/// The body of an answer without content.
impl<B: Default> Default for RevocableBody<B> {
    fn default() -> Self {
        Self { body: B::default(), validity: None, is_over: false }
    }
}

impl<B: Body> Body for RevocableBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if *this.is_over {
            return Poll::Ready(None);
        }
        if !this.validity.as_mut().is_some_and(Validity::is_revoked) {
            if let Poll::Ready(frame) = this.body.poll_frame(cx) {
                return Poll::Ready(frame);
            }
            // An answer that is complete at once never comes here.
            match this.validity {
                Some(validity) => ready!(validity.poll_revoked(cx)),
                None => return Poll::Pending,
            }
        }
        *this.is_over = true;
        let mut trailers = errors::credential_refused().into_http::<()>().into_parts().0.headers;
        trailers.remove(CONTENT_TYPE);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
