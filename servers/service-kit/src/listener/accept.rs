//! The accept loop.
//!
//! Invariant: it ends only when nobody takes connections any more. Every error of `accept` is survived: a loop that
//! ends on one is a remote stop (RUSTSEC-2024-0376).

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::address_count::AddressCounts;
use super::connection::{Connection, Slot};
use super::limits::ListenerLimits;
use crate::tls::{Protocol, ServerConfigs};

/// First and longest wait after an error that will not go away by itself, such as too many open files.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

/// At most one failed handshake of a listener is logged in this time.
const HANDSHAKE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts until the receiver of the gate's connections is gone.
pub(super) async fn run(socket: TcpListener, gate: Gate) {
    let mut backoff = BACKOFF_FIRST;
    let mut turn = 0_usize;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = gate.ready.closed() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                backoff = BACKOFF_FIRST;
                gate.enter(stream, remote, turn);
                turn = turn.wrapping_add(1);
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
    tls: Option<Arc<dyn ServerConfigs>>,
    limits: ListenerLimits,
    slots: Arc<Semaphore>,
    addresses: AddressCounts,
    runtimes: Vec<Handle>,
    ready: mpsc::Sender<Connection>,
    refused: Arc<RefusedHandshakes>,
}

impl Gate {
    pub(super) fn new(
        name: &'static str,
        protocol: Protocol,
        tls: Option<Arc<dyn ServerConfigs>>,
        limits: ListenerLimits,
        runtimes: Vec<Handle>,
        ready: mpsc::Sender<Connection>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let addresses = AddressCounts::new(limits.connections_per_address_max);
        let refused = Arc::default();
        Self { name, protocol, tls, limits, slots, addresses, runtimes, ready, refused }
    }

    /// Admits a socket or closes it at once: a client that is told retries elsewhere, one that hangs does not.
    fn enter(&self, stream: TcpStream, remote: SocketAddr, turn: usize) {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else { return self.refuse("total") };
        let Some(address) = self.addresses.admit(remote.ip()) else { return self.refuse("address") };
        let slot = Slot::new(self.name, permit, address);
        // Answers are written whole; waiting to fill segments would only delay them. An error means the peer is gone.
        let (Ok(()), Ok(stream)) = (stream.set_nodelay(true), stream.into_std()) else { return };
        let Some(runtime) = self.runtimes.get(turn % self.runtimes.len().max(1)) else { return };
        let entry = Entry {
            name: self.name,
            protocol: self.protocol,
            tls: self.tls.as_ref().map(|configs| TlsAcceptor::from(configs.current())),
            limits: self.limits.clone(),
            ready: self.ready.clone(),
            refused: Arc::clone(&self.refused),
        };
        // In a task of its own, so that a slow handshake delays nobody. Their number is bounded by the slots.
        runtime.spawn(entry.complete(stream, remote, slot));
    }

    fn refuse(&self, reason: &'static str) {
        metrics::counter!("strongroom_connections_refused_total", "listener" => self.name, "reason" => reason)
            .increment(1);
    }
}

/// The way of an admitted socket to the server, on the runtime that will serve it.
struct Entry {
    name: &'static str,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    limits: ListenerLimits,
    ready: mpsc::Sender<Connection>,
    refused: Arc<RefusedHandshakes>,
}

impl Entry {
    async fn complete(self, stream: std::net::TcpStream, remote: SocketAddr, slot: Slot) {
        // The reactor is out of descriptors: as good as a peer that is gone.
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let Some(acceptor) = &self.tls else {
            let connection = Connection::plain(stream, remote, self.protocol, &self.limits, slot);
            // A failed send means the server stops; the accept loop sees the same.
            let _ = self.ready.send(connection).await;
            return;
        };
        let name = self.name;
        let reason = match tokio::time::timeout(self.limits.tls_handshake_timeout, acceptor.accept(stream))
            .await
        {
            Ok(Ok(stream)) => {
                let connection = Connection::tls(stream, remote, self.protocol, &self.limits, slot);
                let _ = self.ready.send(connection).await;
                return;
            }
            Ok(Err(error)) => {
                self.refused.log(name, remote, &error);
                "failed"
            }
            Err(_) => {
                self.refused.log(name, remote, &"it was not finished in time: the caller may not speak TLS");
                "timeout"
            }
        };
        metrics::counter!("strongroom_tls_handshake_failures_total", "listener" => name, "reason" => reason)
            .increment(1);
    }
}

/// Handshakes that failed, in the log at a bounded rate: anybody can cause them.
#[derive(Debug, Default)]
struct RefusedHandshakes(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    /// Since then.
    silently: u64,
}

impl RefusedHandshakes {
    fn log(&self, listener: &'static str, remote: SocketAddr, error: &dyn Display) {
        match self.is_due(Instant::now()) {
            Some(silently) => tracing::warn!(
                listener,
                %remote,
                %error,
                others_since_the_last_line = silently,
                "TLS handshake failed"
            ),
            None => tracing::debug!(listener, %remote, %error, "TLS handshake failed"),
        }
    }

    /// How many were not said since the last that was; `None` = this one is not said either.
    fn is_due(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.duration_since(last) < HANDSHAKE_LOG_INTERVAL) {
            said.silently += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.silently))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_handshakes_are_said_at_a_bounded_rate_and_counted() {
        let refused = RefusedHandshakes::default();
        let start = Instant::now();
        assert_eq!(refused.is_due(start), Some(0));
        for millis in [0, 1, 9_999] {
            assert_eq!(refused.is_due(start + Duration::from_millis(millis)), None);
        }
        assert_eq!(refused.is_due(start + HANDSHAKE_LOG_INTERVAL), Some(3));
        assert_eq!(refused.is_due(start + HANDSHAKE_LOG_INTERVAL * 2), Some(0));
    }
}
