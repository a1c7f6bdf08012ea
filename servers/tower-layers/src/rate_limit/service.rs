//! The service that a layer makes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::admission::{Admission, Shared, Stop};
use super::body::LimitedBody;
use super::future::RateLimitFuture;
use super::refusal::Form;
use super::waiting::{self, Queues};
use crate::keys::RequestHead;

/// A service behind limits. Made by [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone)]
pub struct RateLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What happens to a request at first.
pub(super) enum Arrival {
    /// It goes on.
    Admitted(Admission),
    /// It waits.
    Waits(waiting::WaitFuture),
    /// It does not.
    Stopped(Stop),
}

impl<S> RateLimit<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    fn arrive(&self, request: RequestHead<'_>) -> Arrival {
        let shared = &self.shared;
        let asks = match shared.asks(request) {
            Ok(asks) => asks,
            Err(stop) => return Arrival::Stopped(stop),
        };
        let waits = |asks, place, queues: &Arc<Queues>| {
            let deadline = queues.deadline();
            Arrival::Waits(Box::pin(waiting::wait(
                Arc::clone(shared),
                Arc::clone(queues),
                asks,
                place,
                deadline,
            )))
        };
        if let Some(queues) = &shared.queues
            && let Some(place) = queues.queue_before(&asks)
        {
            return waits(asks, place, queues);
        }
        let checked = shared.check(&asks);
        if let Some(queues) = &shared.queues
            && let Some(place) = queues.place_after(shared, &asks, &checked)
        {
            return waits(asks, place, queues);
        }
        shared.admit(asks, checked).map_or_else(Arrival::Stopped, Arrival::Admitted)
    }
}

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body<Data = Bytes>,
{
    type Response = Response<LimitedBody<R>>;
    type Error = S::Error;
    type Future = RateLimitFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let form = Form::of(&request);
        match self.arrive(RequestHead::from(&request)) {
            Arrival::Admitted(mut admission) => {
                let response = self.inner.call(request);
                admission.begin();
                RateLimitFuture::serving(response, admission)
            }
            // Who waits does so with a clone that becomes ready later: the one that is ready now may hold a place in the
            // service, and stays for the next request.
            Arrival::Waits(wait) => {
                RateLimitFuture::waiting(wait, request, self.inner.clone(), Arc::clone(&self.shared), form)
            }
            Arrival::Stopped(stop) => RateLimitFuture::refused(self.shared.refusal(&stop, form)),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for RateLimit<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("rules", &self.shared.rules)
            .finish_non_exhaustive()
    }
}
