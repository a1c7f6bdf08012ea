//! The future of a request behind limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::admission::{Admission, Shared};
use super::body::LimitedBody;
use super::refusal::Form;
use super::waiting::WaitFuture;
use crate::keys::ResponseHead;

pin_project! {
    /// Future of [`RateLimit`](super::RateLimit).
    pub struct RateLimitFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Refused { response: Option<Response<Bytes>> },
        Waiting { wait: WaitFuture, rest: Option<Rest<S, B>> },
        // Admitted after waiting; the service is not ready yet.
        Admitted { admission: Option<Admission>, rest: Option<Rest<S, B>> },
        Serving { #[pin] response: S::Future, admission: Option<Admission> },
    }
}

/// What a request that waits needs later.
struct Rest<S, B> {
    request: Request<B>,
    service: S,
    shared: Arc<Shared>,
    form: Form,
}

impl<S, B> RateLimitFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn serving(response: S::Future, admission: Admission) -> Self {
        Self { state: State::Serving { response, admission: Some(admission) } }
    }

    pub(super) fn waiting(
        wait: WaitFuture,
        request: Request<B>,
        service: S,
        shared: Arc<Shared>,
        form: Form,
    ) -> Self {
        Self { state: State::Waiting { wait, rest: Some(Rest { request, service, shared, form }) } }
    }
}

impl<S, B, R> Future for RateLimitFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<LimitedBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response.map(LimitedBody::refusal))),
                    None => return Poll::Pending,
                },
                StateProjection::Waiting { wait, rest } => match ready!(wait.as_mut().poll(cx)) {
                    Ok(admission) => State::Admitted { admission: Some(admission), rest: rest.take() },
                    Err(stop) => {
                        let response = rest.take().map(|rest| rest.shared.refusal(&stop, rest.form));
                        State::Refused { response }
                    }
                },
                StateProjection::Admitted { admission, rest } => {
                    if let Some(rest) = rest {
                        ready!(rest.service.poll_ready(cx))?;
                    }
                    match (admission.take(), rest.take()) {
                        (Some(mut admission), Some(Rest { request, mut service, .. })) => {
                            let response = service.call(request);
                            admission.begin();
                            State::Serving { response, admission: Some(admission) }
                        }
                        _ => return Poll::Pending,
                    }
                }
                StateProjection::Serving { response, admission } => {
                    let response = ready!(response.poll(cx))?;
                    return Poll::Ready(Ok(answered(response, admission.take())));
                }
            };
            state.set(next);
        }
    }
}

fn answered<R>(mut response: Response<R>, admission: Option<Admission>) -> Response<LimitedBody<R>> {
    let Some(mut admission) = admission else { return response.map(|body| LimitedBody::service(body, None)) };
    admission.answered(ResponseHead::from(&response));
    admission.write_headers(response.headers_mut());
    let held: Option<Box<dyn Send>> =
        if admission.holds_permits() { Some(Box::new(admission)) } else { None };
    response.map(|body| LimitedBody::service(body, held))
}
