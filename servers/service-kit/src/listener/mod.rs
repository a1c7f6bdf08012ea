//! Listening sockets with every limit that a hostile client could test.
//!
//! A [`Listener`] accepts, counts connections in all and per address, speaks TLS, and hands out [`Connection`]s.
//! All servers of the workspace get theirs here.

mod accept;
mod address_count;
mod connection;
mod limits;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::serving_threads::ServingThreads;
use crate::tls::{Protocol, ServerConfigs};
pub use connection::{Connection, PeerInfo};
pub use limits::{LimitError, ListenerLimits};

/// Connections that are ready but not yet taken by the server; beyond it, accepting waits.
const READY_CONNECTIONS_MAX: usize = 64;

/// A socket that listens but does not accept yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Arc<dyn ServerConfigs>>,
    limits: ListenerLimits,
    /// Where connections are served, in turn.
    runtimes: Vec<Handle>,
}

/// Why a listener could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The limits contradict each other.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// The operating system refused the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Listener {
    /// Binds an address; port 0 takes a free one. `name` labels the listener's metrics and logs.
    ///
    /// # Errors
    /// Unusable limits, or an address that is taken or not this machine's.
    pub async fn bind(
        name: &'static str,
        address: SocketAddr,
        protocol: Protocol,
        tls: Option<Arc<ServerConfig>>,
        limits: &ListenerLimits,
    ) -> Result<Self, ListenError> {
        limits.validate()?;
        let refused = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        let runtimes = vec![Handle::current()];
        let tls = tls.map(|config| Arc::new(config) as Arc<dyn ServerConfigs>);
        Ok(Self { name, socket, address: bound, protocol, tls, limits: limits.clone(), runtimes })
    }

    /// Takes the configuration of TLS from `configs`, anew for each connection: those that are open keep theirs.
    #[must_use]
    pub fn following(mut self, configs: Arc<dyn ServerConfigs>) -> Self {
        self.tls = Some(configs);
        self
    }

    /// Spreads the connections over `threads`, in turn; without it they stay on the runtime that bound the address.
    #[must_use]
    pub fn spread_over(mut self, threads: &ServingThreads) -> Self {
        self.runtimes = threads.handles().to_vec();
        self
    }

    /// The bound address, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The listener's base URL: `http://…` or `https://…`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Another listener on the same socket: a connection goes to whichever accepts it first.
    ///
    /// # Errors
    /// The operating system has no more descriptors.
    pub fn duplicate(&self) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(self.socket.as_fd().try_clone_to_owned()?);
        Ok(Self {
            name: self.name,
            socket: TcpListener::from_std(socket)?,
            address: self.address,
            protocol: self.protocol,
            tls: self.tls.clone(),
            limits: self.limits.clone(),
            runtimes: self.runtimes.clone(),
        })
    }

    /// Starts accepting, in a task that ends when the connections are dropped.
    pub fn accept(self) -> Connections {
        let (sender, receiver) = mpsc::channel(READY_CONNECTIONS_MAX);
        let address = self.address;
        let gate = accept::Gate::new(self.name, self.protocol, self.tls, self.limits, self.runtimes, sender);
        tokio::spawn(accept::run(self.socket, gate));
        Connections { receiver, address }
    }
}

/// Accepted connections, after their TLS handshake. Dropping it closes the listening socket.
#[derive(Debug)]
pub struct Connections {
    receiver: mpsc::Receiver<Connection>,
    address: SocketAddr,
}

impl Connections {
    /// The listener's address.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; `None` when accepting has ended.
    pub async fn next(&mut self) -> Option<Connection> {
        self.receiver.recv().await
    }
}

impl Stream for Connections {
    type Item = Result<Connection, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}
