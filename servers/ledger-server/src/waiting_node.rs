//! A node that cannot serve yet: it forms or joins its cluster, or opens its ledger. Its port is open already, so that a
//! second process cannot take it; whoever calls is told at once what the node waits for, and can go elsewhere.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use http::{Request, Response};
use service_kit::admission::{AdmissionLayer, AdmissionLimits};
use service_kit::{Listener, ListenerLimits, Readiness, serve_grpc};
use tokio::sync::oneshot;
use tonic::body::Body;
use tower::Service;

use crate::errors;

/// Answers callers of a node that does not serve yet, until it is dropped: calls after that wait for the server's own
/// accepting of the same listener.
#[derive(Debug)]
pub struct WaitingNode {
    _stop: oneshot::Sender<()>,
}

impl WaitingNode {
    /// Takes connections of `listener` beside whoever accepts on it later. What the node waits for is what `readiness`
    /// says at the time of a call. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The operating system has no more descriptors.
    pub fn answer(listener: &Listener, limits: &ListenerLimits, readiness: Readiness) -> io::Result<Self> {
        let connections = listener.duplicate()?.accept();
        let (stop, stopped) = oneshot::channel::<()>();
        let limits = limits.clone();
        tokio::spawn(async move {
            let stop = async {
                // A dropped sender means stop as well.
                let _ = stopped.await;
            };
            let admission = AdmissionLayer::new(&AdmissionLimits::default());
            serve_grpc(connections, &limits, admission, NotYet(readiness), stop).await;
        });
        Ok(Self { _stop: stop })
    }
}

/// Refuses every call.
#[derive(Debug, Clone)]
struct NotYet(Readiness);

impl<B> Service<Request<B>> for NotYet {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let obstacles = self.0.check().err().map(|not_ready| not_ready.obstacles).unwrap_or_default();
        let reasons: Vec<String> = obstacles.into_values().collect();
        ready(Ok(errors::not_serving_yet(&reasons.join("; ")).into_http()))
    }
}
