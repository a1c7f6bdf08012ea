//! The accept loop.
//!
//! Invariant: it ends only when nobody takes connections any more. Every error of `accept` is survived: a loop that
//! ends on one is a remote stop (RUSTSEC-2024-0376).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::address_count::AddressCounts;
use super::connection::{Connection, Slot};
use super::limits::ListenerLimits;
use crate::tls::Protocol;

/// First and longest wait after an error that will not go away by itself, such as too many open files.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

/// Accepts until the receiver of the gate's connections is gone.
pub(super) async fn run(socket: TcpListener, gate: Gate) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = gate.ready.closed() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                backoff = BACKOFF_FIRST;
                gate.enter(stream, remote).await;
            }
            // The peer gave up between its handshake and our accept; the next one is unaffected.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                metrics::counter!("strongroom_accept_errors_total", "listener" => gate.name).increment(1);
                tracing::warn!(listener = gate.name, %error, retry_ms = backoff.as_millis() as u64, "cannot accept");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = gate.ready.closed() => return,
                }
                backoff = (backoff * 2).min(BACKOFF_LONGEST);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What stands between an accepted socket and the server.
pub(super) struct Gate {
    name: &'static str,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    limits: ListenerLimits,
    slots: Arc<Semaphore>,
    addresses: AddressCounts,
    ready: mpsc::Sender<Connection>,
}

impl Gate {
    pub(super) fn new(
        name: &'static str,
        protocol: Protocol,
        tls: Option<Arc<ServerConfig>>,
        limits: ListenerLimits,
        ready: mpsc::Sender<Connection>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let addresses = AddressCounts::new(limits.connections_per_address_max);
        Self { name, protocol, tls: tls.map(TlsAcceptor::from), limits, slots, addresses, ready }
    }

    /// Admits a socket or closes it at once: a client that is told retries elsewhere, one that hangs does not.
    async fn enter(&self, stream: TcpStream, remote: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else { return self.refuse("total") };
        let Some(address) = self.addresses.admit(remote.ip()) else { return self.refuse("address") };
        let slot = Slot::new(self.name, permit, address);
        // Answers are written whole; waiting to fill segments would only delay them. An error means the peer is gone.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match &self.tls {
            None => {
                let connection = Connection::plain(stream, remote, self.protocol, &self.limits, slot);
                // A failed send means the server stops; the loop sees the same.
                let _ = self.ready.send(connection).await;
            }
            Some(acceptor) => self.shake_hands(acceptor.clone(), stream, remote, slot),
        }
    }

    /// Handshakes run apart, so that a slow client delays nobody. Their number is bounded by the slots.
    fn shake_hands(&self, acceptor: TlsAcceptor, stream: TcpStream, remote: SocketAddr, slot: Slot) {
        let (name, protocol, limits, ready) =
            (self.name, self.protocol, self.limits.clone(), self.ready.clone());
        tokio::spawn(async move {
            let reason =
                match tokio::time::timeout(limits.tls_handshake_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let connection = Connection::tls(stream, remote, protocol, &limits, slot);
                        let _ = ready.send(connection).await;
                        return;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(listener = name, %remote, %error, "TLS handshake failed");
                        "failed"
                    }
                    Err(_) => "timeout",
                };
            metrics::counter!("strongroom_tls_handshake_failures_total", "listener" => name, "reason" => reason)
                .increment(1);
        });
    }

    fn refuse(&self, reason: &'static str) {
        metrics::counter!("strongroom_connections_refused_total", "listener" => self.name, "reason" => reason)
            .increment(1);
    }
}
