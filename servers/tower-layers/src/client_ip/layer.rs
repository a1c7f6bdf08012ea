//! The layer that leaves a [`ClientIp`] in every request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Extensions, Request};
use tower::{Layer, Service};

use super::walk::{ClientIp, ClientIpPolicy};

/// The address at the other end of the connection, as whoever accepts connections leaves it in a request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

impl From<SocketAddr> for PeerAddress {
    /// Port and zone mean nothing here.
    fn from(socket: SocketAddr) -> Self {
        Self(socket.ip())
    }
}

/// Finds the peer's address in a request's extensions.
pub type PeerSource = fn(&Extensions) -> Option<IpAddr>;

/// Puts a [`ClientIp`] into each request's extensions.
///
/// The peer is found as [`PeerAddress`], with the feature `axum` also as axum's `ConnectInfo<SocketAddr>`; other servers
/// say where with [`with_peer_source`](Self::with_peer_source). A request without a peer passes without a `ClientIp`: what
/// needs one refuses it.
#[derive(Clone, Debug)]
pub struct ClientIpLayer {
    policy: Arc<ClientIpPolicy>,
    peer: PeerSource,
    warned: Arc<AtomicBool>,
}

impl ClientIpLayer {
    /// A layer with this policy. Logs what [`TrustedNetworks::warnings`](super::TrustedNetworks::warnings) says.
    pub fn new(policy: ClientIpPolicy) -> Self {
        if let Some(super::Trust::Networks(networks)) = policy.trust() {
            for warning in networks.warnings() {
                tracing::warn!("{warning}");
            }
        }
        Self { policy: Arc::new(policy), peer: known_peer, warned: Arc::default() }
    }

    /// The same, with the peer found by `peer`.
    #[must_use]
    pub fn with_peer_source(self, peer: PeerSource) -> Self {
        Self { peer, ..self }
    }
}

fn known_peer(extensions: &Extensions) -> Option<IpAddr> {
    let ours = extensions.get::<PeerAddress>().map(|PeerAddress(address)| *address);
    #[cfg(feature = "axum")]
    let ours = ours.or_else(|| {
        extensions
            .get::<axum::extract::ConnectInfo<SocketAddr>>()
            .map(|axum::extract::ConnectInfo(peer)| peer.ip())
    });
    ours
}

impl<S> Layer<S> for ClientIpLayer {
    type Service = ClientIpService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientIpService { inner, layer: self.clone() }
    }
}

/// Service of [`ClientIpLayer`].
#[derive(Clone, Debug)]
pub struct ClientIpService<S> {
    inner: S,
    layer: ClientIpLayer,
}

impl<S> ClientIpService<S> {
    /// Of a request. Whatever was there before is gone: an outer layer's word is not mixed with ours.
    fn client_ip<B>(&self, request: &Request<B>) -> Option<ClientIp> {
        let ClientIpLayer { policy, peer, warned } = &self.layer;
        let peer = peer(request.extensions())?;
        if !warned.load(Ordering::Relaxed)
            && let Some(warning) = policy.peer_warning(peer, request.headers())
            && !warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{warning}");
        }
        Some(policy.resolve(peer, request.headers()))
    }
}

impl<S, B> Service<Request<B>> for ClientIpService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.client_ip(&request) {
            Some(client) => request.extensions_mut().insert(client),
            None => request.extensions_mut().remove::<ClientIp>(),
        };
        self.inner.call(request)
    }
}
