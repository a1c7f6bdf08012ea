//! The listener's connections, each with a conversation of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ratelimit_core::AdHoc;
use service_kit::Listener;
use tokio::sync::watch;
use tower_layers::rate_limit::Clock;

use super::connection::{RespLimits, converse};
use super::session::Session;
use crate::access::Access;
use crate::meter::Meter;

/// Answers `CL.THROTTLE` from a table of keys.
#[derive(Clone)]
pub struct RespServer {
    keys: Arc<AdHoc>,
    access: Access,
    clock: Arc<dyn Clock>,
    limits: RespLimits,
    meter: Meter,
    connections: Arc<AtomicU64>,
}

impl RespServer {
    /// A server of these keys. Whoever does not show the token of `access`, if it has one, is told so and nothing else.
    pub fn new(keys: Arc<AdHoc>, access: Access, clock: Arc<dyn Clock>, limits: RespLimits) -> Self {
        Self { keys, access, clock, limits, meter: Meter::new(), connections: Arc::default() }
    }

    /// Serves until `stop` completes; then connections are closed, each after the answers to what it has sent. Dropping
    /// the future closes them at once.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) {
        let mut connections = listener.accept();
        let (closing, closed) = watch::channel(false);
        let mut stop = std::pin::pin!(stop);
        loop {
            let connection = tokio::select! {
                biased;
                () = &mut stop => break,
                connection = connections.next() => connection,
            };
            let Some(connection) = connection else { break };
            let (server, closed) = (self.clone(), closed.clone());
            let runtime = connection.runtime().clone();
            runtime.spawn(async move { server.converse(connection, closed).await });
        }
        drop(connections);
        drop(closed);
        // Nobody listens any more when all conversations have ended.
        let _ = closing.send(true);
        closing.closed().await;
    }

    async fn converse(&self, connection: service_kit::Connection, mut closed: watch::Receiver<bool>) {
        let remote = connection.peer().remote;
        let number = self.connections.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let session = Session::new(&self.keys, &self.access, number);
        // An error is the server's end too, without a goodbye.
        let closing = async {
            let _ = closed.wait_for(|closing| *closing).await;
        };
        let with = (self.limits, &*self.clock, &self.meter);
        if let Err(error) = converse(connection, session, with, closing).await {
            tracing::debug!(%remote, %error, "a connection failed");
        }
    }
}
