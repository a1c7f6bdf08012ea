//! How nodes of a cluster reach each other: gRPC over mutual TLS, on a listener of its own.
//!
//! [`open`] gives both ends of a node: the [`PeerTransport`] through which it calls, and the [`PeerServer`] that lets
//! a [`PeerHandler`](ledger_node::peers::PeerHandler) answer. What is said is the engine's business; the transport
//! proves who says it. Both sides show certificates of the cluster's authority, and a certificate stands for the node
//! name that it carries as a DNS name. Changed certificate files take effect on the next connection.
//!
//! A peer is called over two connections, so that a heartbeat does not wait behind a chunk of a snapshot. They are made
//! when they are needed, made anew when they break, and closed when nobody calls for a while.

mod body_budget;
mod client;
mod connection;
mod handler_slot;
mod limits;
mod link;
mod pool;
mod server;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use ledger_node::peers::PeerTransport;
use service_kit::Listener;
use service_kit::listener::ListenError;
use service_kit::tls::{Followed, PeerTls, PeerTlsFiles, Protocol, TlsError};

pub use handler_slot::HandlerSlot;
pub use limits::PeerLimits;
pub use server::PeerServer;

use client::PeerClient;

/// Port on which peers are reached when none is given.
pub const PEER_PORT: u16 = 50_052;

/// What the transport of a node is made of.
#[derive(Debug, Clone)]
pub struct PeerTransportSettings {
    /// Where peers reach this node; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How peers know each other.
    pub security: PeerSecurity,
    /// Bounds of connections and calls.
    pub limits: PeerLimits,
}

/// How peers know each other.
#[derive(Debug, Clone)]
pub enum PeerSecurity {
    /// By certificates of the cluster's authority.
    MutualTls(PeerTlsFiles),
    /// Not at all: whoever reaches the port is believed. For development, and refused beyond loopback.
    InsecureLoopback,
}

/// A transport could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerTransportError {
    /// The certificate files are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is taken or not this machine's.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Anybody could take part in the cluster.
    #[error(
        "refusing to listen for peers on {address} without certificates: give --peer-tls-cert, --peer-tls-key and \
         --peer-ca (`strongroom certs` makes some), or listen on a loopback address"
    )]
    InsecureBeyondLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
}

/// How a connection is secured, as it is now.
#[derive(Debug, Clone)]
enum Security {
    Tls(Followed<PeerTls>),
    InsecureLoopback,
}

/// Binds the peers' address and makes ready to call. It must run inside the tokio runtime that is to carry the calls;
/// the transport may then be used from any other. Nothing is accepted before [`PeerServer::serve`].
///
/// # Errors
/// Unusable certificate files, an address that is taken, plaintext beyond loopback.
pub async fn open(
    settings: PeerTransportSettings,
) -> Result<(Arc<dyn PeerTransport>, PeerServer), PeerTransportError> {
    let PeerTransportSettings { listen, security, limits } = settings;
    let security = match security {
        PeerSecurity::MutualTls(files) => Security::Tls(files.follow(limits.certificates_interval)?),
        PeerSecurity::InsecureLoopback if is_loopback(listen) => Security::InsecureLoopback,
        PeerSecurity::InsecureLoopback => {
            return Err(PeerTransportError::InsecureBeyondLoopback { address: listen });
        }
    };
    let listener = Listener::bind("peers", listen, Protocol::Http2, None, &limits.listener).await?;
    let listener = match &security {
        Security::Tls(followed) => listener.following(Arc::new(followed.clone())),
        Security::InsecureLoopback => listener,
    };
    let server = PeerServer::new(listener, security.clone(), limits.clone());
    Ok((Arc::new(PeerClient::new(security, limits)), server))
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
