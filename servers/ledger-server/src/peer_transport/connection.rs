//! One connection to a peer: found, secured, and known to work before anything is sent over it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ledger_node::peers::NodeName;
use rustls_pki_types::{DnsName, ServerName};
use service_kit::tls::PeerTls;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;

use super::limits::CALLS_PER_LINK_MAX;
use super::{PeerLimits, Security, is_loopback};

/// What is read of the peer's first words at once: its HTTP/2 settings have some dozen bytes.
const FIRST_BYTES_MAX: usize = 512;
/// Bytes of one call that may wait for the connection: two frames of each size that the peer takes would do, a piece of
/// a snapshot's chunk goes faster with more.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// The network, or the peer's absence.
    #[error("{reason}")]
    Unreachable { reason: String },
    /// The peer's certificate is not good.
    #[error("{reason}")]
    Untrusted { reason: String },
    /// The peer does not accept this node's certificate.
    #[error("{reason}")]
    Refused { reason: String },
    /// The peer ended the connection in good order before it looked at the request: it may be sent again.
    #[error("the peer ended the connection before it read the request")]
    Unread,
}

/// A connection over which requests go.
#[derive(Debug)]
pub(super) struct Connected {
    pub sender: SendRequest<Body>,
    /// The certificates that it was made with; `None` for plaintext.
    pub tls: Option<Arc<PeerTls>>,
}

/// Where a connection leads, and who must be there.
#[derive(Debug)]
pub(super) struct Target {
    pub address: String,
    pub expect: Option<NodeName>,
}

/// Connects. It runs on the runtime that drives the connection from then on. The caller bounds the time.
pub(super) async fn connect(
    target: &Target,
    security: &Security,
    limits: &PeerLimits,
) -> Result<Connected, LinkError> {
    let (tls, mut transport) = match security {
        Security::InsecureLoopback => {
            let addresses = loopback_addresses(&target.address).await?;
            let stream = open(addresses.as_slice()).await.map_err(|error| of_network(&error))?;
            (None, Transport::Plain(stream))
        }
        Security::Tls(followed) => {
            let tls = followed.get();
            let stream = open(&target.address).await.map_err(|error| of_network(&error))?;
            let stream = shake_hands(&tls, target.expect.as_ref(), stream).await?;
            (Some(tls), Transport::Tls(Box::new(stream)))
        }
    };
    let first = first_words(&mut transport).await?;
    let stream = PeerStream { transport, first };
    let (sender, connection) =
        http2_builder(limits).handshake(TokioIo::new(stream)).await.map_err(|error| of_http(&error))?;
    let address = target.address.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(peer = address, %error, "a connection to a peer broke");
        }
    });
    Ok(Connected { sender, tls })
}

/// A socket that sends at once: a message goes out in several writes, and the last one would otherwise wait until the peer
/// has acknowledged the others, which it puts off for 40 ms.
async fn open(addresses: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn http2_builder(limits: &PeerLimits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(limits.listener.stream_window_bytes)
        .initial_connection_window_size(limits.listener.connection_window_bytes)
        .adaptive_window(false)
        .max_frame_size(limits.listener.frame_bytes_max)
        .max_header_list_size(limits.listener.header_list_bytes_max)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        // Calls that were given up: their late answers are no errors.
        .max_concurrent_reset_streams(CALLS_PER_LINK_MAX)
        .max_local_error_reset_streams(limits.listener.local_error_resets_max)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true);
    http
}

async fn loopback_addresses(address: &str) -> Result<Vec<SocketAddr>, LinkError> {
    let found = tokio::net::lookup_host(address).await.map_err(|error| of_network(&error))?;
    let found: Vec<_> = found.filter(|address| is_loopback(*address)).collect();
    if found.is_empty() {
        let reason = "without certificates, peers are called on loopback addresses only".to_owned();
        return Err(LinkError::Unreachable { reason });
    }
    Ok(found)
}

async fn shake_hands(
    tls: &PeerTls,
    expect: Option<&NodeName>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, LinkError> {
    let name = expect.map(|name| DnsName::try_from(name.as_str().to_owned())).transpose();
    let name = name.map_err(|_| {
        let reason = format!("no certificate can carry {expect:?} as a DNS name: choose another node name");
        LinkError::Untrusted { reason }
    })?;
    let remote = stream.peer_addr().map_err(|error| of_network(&error))?;
    // Not sent and not checked: the verifier knows the name that counts.
    let address = ServerName::IpAddress(remote.ip().into());
    let connector = TlsConnector::from(tls.client(name));
    connector.connect(address, stream).await.map_err(|error| of_tls(&error, expect))
}

/// A server says its HTTP/2 settings unasked. Waiting for them tells what the handshake of TLS 1.3 does not: that the
/// peer has accepted this node's certificate, and that it serves.
async fn first_words(transport: &mut Transport) -> Result<Bytes, LinkError> {
    let mut buffer = vec![0; FIRST_BYTES_MAX];
    let length = match transport {
        Transport::Plain(stream) => stream.read(&mut buffer).await,
        Transport::Tls(stream) => stream.read(&mut buffer).await,
    };
    let length = length.map_err(|error| of_tls(&error, None))?;
    if length == 0 {
        let reason =
            "it closed the connection at once: it may have no room for another, or it stops".to_owned();
        return Err(LinkError::Unreachable { reason });
    }
    buffer.truncate(length);
    Ok(buffer.into())
}

fn of_network(error: &io::Error) -> LinkError {
    LinkError::Unreachable { reason: error.to_string() }
}

fn of_http(error: &hyper::Error) -> LinkError {
    LinkError::Unreachable { reason: format!("no HTTP/2 with it: {}", with_causes(error)) }
}

fn of_tls(error: &io::Error, expect: Option<&NodeName>) -> LinkError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let wanted = expect.map(|name| format!(" (expected: {name})")).unwrap_or_default();
            LinkError::Untrusted { reason: format!("its certificate is not good{wanted}: {why}") }
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            LinkError::Refused { reason: format!("its TLS refuses this node's certificate ({alert:?})") }
        }
        Some(rustls::Error::InvalidMessage(_)) => LinkError::Unreachable {
            reason: "it does not speak TLS: it may serve peers in plaintext".to_owned(),
        },
        Some(other) => LinkError::Unreachable { reason: format!("no TLS with it: {other}") },
        None => of_network(error),
    }
}

/// Whether a peer that said goodbye (GOAWAY) left a request unread. h2 gives this error only to streams above the last
/// one that the peer has processed, and those may be repeated (RFC 9113, section 6.8).
pub(super) fn is_unread(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// An error with its causes: those of HTTP say little themselves.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The bytes of a connection, its first ones read already.
///
/// It says no to vectored writes: h2 then copies small messages behind their frame's head, and many requests go out
/// with one system call.
#[derive(Debug)]
struct PeerStream {
    transport: Transport,
    first: Bytes,
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first.has_remaining() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between nodes on loopback every message took 40 ms: a write of a cluster 70 ms, a linearizable read 48 ms.
    #[tokio::test]
    async fn no_message_waits_for_an_acknowledgement_of_the_one_before() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = open(listener.local_addr().expect("an address")).await.expect("a connection");
        assert!(stream.nodelay().expect("an option of the socket"));
    }
}
