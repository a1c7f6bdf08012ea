//! Answers of a node that does not lead tell who does, so that the next call takes the short way.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Request, Response};
use ledger_node::Cluster;
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tower::{Layer, Service};

use crate::wire::cluster::leader_url;

/// How often the hint is made anew without a change of the leader: its address may change.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
const HEADER: HeaderName = HeaderName::from_static(ledger_proto::LEADER_HEADER);

/// What the answers of this node say about the leader; nothing while it leads itself, or knows no leader.
#[derive(Debug, Clone)]
pub struct LeaderHint(watch::Sender<Option<HeaderValue>>);

impl Default for LeaderHint {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl LeaderHint {
    /// Follows the leader, for as long as the ledger is open.
    pub(crate) async fn follow(&self, cluster: Cluster) -> Infallible {
        let mut leader = cluster.watch_leader();
        loop {
            let hint = hint(&cluster);
            self.0.send_if_modified(|known| {
                let is_other = *known != hint;
                *known = hint;
                is_other
            });
            if let Ok(Err(_)) = tokio::time::timeout(REFRESH_INTERVAL, leader.changed()).await {
                // The node has stopped: nobody leads any more as far as it knows.
                self.0.send_replace(None);
                std::future::pending::<()>().await;
            }
        }
    }
}

fn hint(cluster: &Cluster) -> Option<HeaderValue> {
    let status = cluster.status();
    let leader = status.leader.filter(|leader| *leader != status.node_id)?;
    let url = leader_url(&status)?;
    HeaderValue::try_from(format!("{} {leader} {url}", status.term)).ok()
}

/// Adds the hint to every answer.
#[derive(Debug, Clone)]
pub struct LeaderHintLayer(LeaderHint);

impl LeaderHintLayer {
    pub(crate) fn new(hint: LeaderHint) -> Self {
        Self(hint)
    }
}

impl<S> Layer<S> for LeaderHintLayer {
    type Service = LeaderHinted<S>;

    fn layer(&self, inner: S) -> LeaderHinted<S> {
        LeaderHinted { inner, hint: self.0.0.subscribe() }
    }
}

/// A service behind a [`LeaderHintLayer`].
#[derive(Debug, Clone)]
pub struct LeaderHinted<S> {
    inner: S,
    hint: watch::Receiver<Option<HeaderValue>>,
}

impl<S, B, R> Service<Request<B>> for LeaderHinted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HintedCall<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let hint = self.hint.borrow().clone();
        HintedCall { inner: self.inner.call(request), hint }
    }
}

pin_project! {
    /// Future of a call whose answer gets the hint.
    pub struct HintedCall<F> {
        #[pin]
        inner: F,
        hint: Option<HeaderValue>,
    }
}

impl<F, R, E> Future for HintedCall<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        if let Some(hint) = this.hint.take() {
            response.headers_mut().insert(HEADER, hint);
        }
        Poll::Ready(Ok(response))
    }
}
