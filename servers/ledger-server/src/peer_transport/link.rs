//! The way to one peer: a connection that is made when it is needed and made anew when it breaks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use service_kit::tls::PeerTls;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use super::connection::{Connected, LinkError, Target, connect, is_unread, with_causes};
use super::limits::{BODY_BYTES_PER_LINK_MAX, CALLS_PER_LINK_MAX};
use super::{PeerLimits, Security};

/// Unit in which the bytes on their way are counted.
const BYTES_PERMIT: usize = 1_024;

/// One way to a peer. Calls share it.
#[derive(Debug)]
pub(super) struct Link {
    target: Target,
    security: Security,
    limits: Arc<PeerLimits>,
    state: watch::Sender<State>,
    /// Places for calls.
    pub calls: Semaphore,
    bytes: Semaphore,
    /// By the clock of the system: calls come from runtimes that may have another one.
    used: Mutex<std::time::Instant>,
    /// A peer that was never there may just be starting.
    was_reached: AtomicBool,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting,
    Connected(Arc<Connected>),
    Failed(Failed),
}

/// A connection that could not be made: the next one is tried after a while, or with other certificates.
#[derive(Debug)]
struct Failed {
    error: LinkError,
    tls: Option<Arc<PeerTls>>,
    wait: Duration,
    retry_at: Instant,
}

impl Link {
    pub fn new(target: Target, security: Security, limits: Arc<PeerLimits>) -> Self {
        Self {
            target,
            security,
            limits,
            state: watch::Sender::new(State::Idle),
            calls: Semaphore::new(CALLS_PER_LINK_MAX),
            bytes: Semaphore::new(BODY_BYTES_PER_LINK_MAX / BYTES_PERMIT),
            used: Mutex::new(std::time::Instant::now()),
            was_reached: AtomicBool::new(false),
        }
    }

    /// Notes that it is used now.
    pub fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = std::time::Instant::now();
    }

    /// When it was used last.
    pub fn used_at(&self) -> std::time::Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the bytes of a body may go.
    pub async fn room_for(&self, body_bytes: usize) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let permits = body_bytes.div_ceil(BYTES_PERMIT).clamp(1, BODY_BYTES_PER_LINK_MAX / BYTES_PERMIT);
        // The semaphore is never closed.
        self.bytes.acquire_many(u32::try_from(permits).ok()?).await.ok()
    }

    /// Sends a request over the connection. One that came when the connection was at its end is returned as unread, and
    /// the next goes over another connection.
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Incoming>, LinkError> {
        let connected = self.connected().await?;
        let mut failure = match connected.sender.clone().try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        if failure.take_message().is_some() || is_unread(failure.error()) {
            self.retire(&connected);
            return Err(LinkError::Unread);
        }
        let reason = format!("the connection broke: {}", with_causes(failure.error()));
        Err(LinkError::Unreachable { reason })
    }

    /// The connection, made first when there is none. Everybody who waits for it gets the same outcome.
    async fn connected(self: &Arc<Self>) -> Result<Arc<Connected>, LinkError> {
        if let State::Connected(connected) = &*self.state.borrow()
            && self.is_usable(connected)
        {
            return Ok(Arc::clone(connected));
        }
        let mut states = self.state.subscribe();
        loop {
            let must_connect = match &*states.borrow_and_update() {
                State::Connected(connected) if self.is_usable(connected) => return Ok(Arc::clone(connected)),
                State::Failed(failed) if !self.is_due(failed) => return Err(failed.error.clone()),
                State::Connecting => false,
                State::Idle | State::Connected(_) | State::Failed(_) => true,
            };
            if must_connect {
                self.start_connecting();
            }
            if states.changed().await.is_err() {
                return Err(LinkError::Unreachable { reason: "the transport has ended".to_owned() });
            }
        }
    }

    /// Starts to connect in a task of its own, so that a caller who gives up does not end it; once, whoever asks.
    fn start_connecting(self: &Arc<Self>) {
        let mut wait = self.limits.retry_wait_first;
        let started = self.state.send_if_modified(|state| {
            match state {
                State::Connecting => return false,
                State::Connected(connected) if self.is_usable(connected) => return false,
                State::Failed(failed) => wait = (failed.wait * 2).min(self.limits.retry_wait_longest),
                State::Idle | State::Connected(_) => {}
            }
            *state = State::Connecting;
            true
        });
        if started {
            tokio::spawn(Arc::clone(self).connect(wait));
        }
    }

    async fn connect(self: Arc<Self>, wait: Duration) {
        let tls = self.certificates();
        let time = self.limits.connect_timeout;
        let connecting = connect(&self.target, &self.security, &self.limits);
        let connected = tokio::time::timeout(time, connecting).await.unwrap_or_else(|_| {
            let hint = match self.security {
                Security::Tls(_) => "",
                // A peer that waits for the first words of TLS says nothing itself.
                Security::InsecureLoopback => {
                    ": it may speak TLS, and this node runs without certificates (--peer-insecure)"
                }
            };
            Err(LinkError::Unreachable { reason: format!("no connection within {time:?}{hint}") })
        });
        // Said once, however often it is tried.
        let is_first = wait == self.limits.retry_wait_first;
        let peer = &self.target.address;
        self.state.send_replace(match connected {
            Ok(connected) => {
                let again = self.was_reached.swap(true, Ordering::Relaxed);
                match (is_first, again) {
                    (true, _) => {}
                    (false, true) => tracing::info!(peer, "a peer is reached again"),
                    (false, false) => tracing::info!(peer, "a peer is reached"),
                }
                State::Connected(Arc::new(connected))
            }
            Err(error) => {
                let is_absent = matches!(error, LinkError::Unreachable { .. });
                match (is_first, is_absent && !self.was_reached.load(Ordering::Relaxed)) {
                    (false, _) => {}
                    (true, true) => tracing::info!(peer, %error, "a peer is not there yet; trying on"),
                    (true, false) => tracing::warn!(peer, %error, "a peer cannot be reached; trying on"),
                }
                State::Failed(Failed { error, tls, wait, retry_at: Instant::now() + wait })
            }
        });
    }

    /// Forgets a connection, unless another one has taken its place.
    fn retire(&self, old: &Arc<Connected>) {
        self.state.send_if_modified(|state| match state {
            State::Connected(connected) if Arc::ptr_eq(connected, old) => {
                *state = State::Idle;
                true
            }
            _ => false,
        });
    }

    fn is_usable(&self, connected: &Connected) -> bool {
        !connected.sender.is_closed() && is_same(connected.tls.as_ref(), self.certificates().as_ref())
    }

    fn is_due(&self, failed: &Failed) -> bool {
        failed.retry_at <= Instant::now() || !is_same(failed.tls.as_ref(), self.certificates().as_ref())
    }

    /// Those that a connection would be made with now.
    fn certificates(&self) -> Option<Arc<PeerTls>> {
        match &self.security {
            Security::Tls(followed) => Some(followed.get()),
            Security::InsecureLoopback => None,
        }
    }
}

fn is_same(one: Option<&Arc<PeerTls>>, other: Option<&Arc<PeerTls>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// A link as the service that the generated client calls.
#[derive(Debug, Clone)]
pub(super) struct LinkService(pub Arc<Link>);

impl Service<Request<Body>> for LinkService {
    type Response = Response<Incoming>;
    type Error = LinkError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, LinkError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).send(request))
    }
}
