//! One accepted connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::address_count::CountedAddress;
use super::limits::ListenerLimits;
use crate::tls::Protocol;

/// Length of HTTP/2's connection preface (RFC 9113, section 3.4).
const HTTP2_PREFACE_BYTES: usize = 24;

/// Who is at the other end. tonic puts it into every request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The peer's certificate chain, its own first, verified against the client authorities. Empty without one.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A connection, plain or TLS. It holds its place in the listener's limits until it is dropped.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    peer: PeerInfo,
    first_bytes: Option<FirstBytes>,
    runtime: Handle,
    _slot: Slot,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(super) fn plain(
        stream: TcpStream,
        remote: SocketAddr,
        protocol: Protocol,
        limits: &ListenerLimits,
        slot: Slot,
    ) -> Self {
        let peer = PeerInfo { remote, certificates: Arc::default() };
        let first_bytes = Some(FirstBytes::of(protocol, limits));
        Self {
            transport: Transport::Plain(stream),
            peer,
            first_bytes,
            runtime: Handle::current(),
            _slot: slot,
        }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        remote: SocketAddr,
        protocol: Protocol,
        limits: &ListenerLimits,
        slot: Slot,
    ) -> Self {
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let peer = PeerInfo { remote, certificates };
        let first_bytes = Some(FirstBytes::of(protocol, limits));
        Self {
            transport: Transport::Tls(Box::new(stream)),
            peer,
            first_bytes,
            runtime: Handle::current(),
            _slot: slot,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The runtime that must serve the connection: its socket is registered there.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        };
        let Some(first_bytes) = &mut this.first_bytes else { return polled };
        first_bytes.missing = first_bytes.missing.saturating_sub(buffer.filled().len() - before);
        if first_bytes.missing == 0 {
            this.first_bytes = None;
        } else if polled.is_pending() && first_bytes.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    /// No: h2 then copies payloads below 1 KiB behind their frame's head and sends many answers with one call. With
    /// vectored writes it does so below 256 bytes only, and every larger answer is a system call and a packet of its
    /// own (a third of the processor time of a small read, measured).
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// The deadline for the bytes that every client of the protocol sends unasked. HTTP/2 keep-alive starts only after
/// them, so without it a silent connection would hold its slot for the whole connection age.
#[derive(Debug)]
struct FirstBytes {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl FirstBytes {
    fn of(protocol: Protocol, limits: &ListenerLimits) -> Self {
        let missing = match protocol {
            Protocol::Http2 => HTTP2_PREFACE_BYTES,
            // The HTTP/1 header timeout takes over from the first byte on.
            Protocol::Http1 | Protocol::Http => 1,
        };
        Self { missing, deadline: Box::pin(tokio::time::sleep(limits.first_bytes_timeout)) }
    }
}

/// A connection's place in the listener's limits.
#[derive(Debug)]
pub(super) struct Slot {
    listener: &'static str,
    _permit: OwnedSemaphorePermit,
    _address: CountedAddress,
}

impl Slot {
    pub(super) fn new(listener: &'static str, permit: OwnedSemaphorePermit, address: CountedAddress) -> Self {
        metrics::gauge!("strongroom_connections_open", "listener" => listener).increment(1.0);
        Self { listener, _permit: permit, _address: address }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        metrics::gauge!("strongroom_connections_open", "listener" => self.listener).decrement(1.0);
    }
}
