//! Nodes of tests: a transport, a server, and a handler that the test steers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger_node::peers::{
    ClusterId, Incarnation, NodeName, PeerError, PeerFuture, PeerHandler, PeerIdentity, PeerMethod,
    PeerRefusal, PeerRequest, PeerTransport,
};
use ledger_server::peer_transport::{HandlerSlot, PeerLimits, PeerSecurity, PeerTransportSettings, open};
use service_kit::tls::PeerTlsFiles;
use tokio::sync::{Semaphore, oneshot};

/// Longer than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A node that runs.
pub struct Node {
    pub name: NodeName,
    pub transport: Arc<dyn PeerTransport>,
    pub address: String,
    pub slot: HandlerSlot,
    pub handler: Arc<Steered>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

/// Says what it is asked to say: `NodeInfo` tells name and body, `Propose` waits for the test, `Tips` refuses.
#[derive(Debug)]
pub struct Steered {
    name: String,
    /// Grows with every request that waits.
    pub entered: Semaphore,
    /// Each permit lets one waiting request go.
    pub release: Semaphore,
    /// Waiting requests that were dropped before they were let go.
    pub dropped: AtomicUsize,
}

impl Steered {
    fn new(name: &NodeName) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_string(),
            entered: Semaphore::new(0),
            release: Semaphore::new(0),
            dropped: AtomicUsize::new(0),
        })
    }

    pub async fn one_entered(&self) {
        in_time("a request arrives", self.entered.acquire()).await.unwrap().forget();
    }
}

/// Counts a request that is dropped while it waits.
struct Waiting<'a>(&'a Steered, bool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl PeerHandler for Steered {
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(async move {
            match request.method {
                PeerMethod::Propose => {
                    let mut waiting = Waiting(self, false);
                    self.entered.add_permits(1);
                    self.release.acquire().await.unwrap().forget();
                    waiting.1 = true;
                    Ok(request.body)
                }
                PeerMethod::Tips => Err(PeerRefusal::NotLeader { leader: Some(request.from.node_id) }),
                PeerMethod::NodeInfo => {
                    let said = [self.name.as_bytes(), b": ", &request.body].concat();
                    Ok(said.into())
                }
                _ => Ok(request.body),
            }
        })
    }
}

/// Limits with waits that suit tests.
pub fn limits() -> PeerLimits {
    PeerLimits { certificates_interval: Duration::from_millis(20), ..PeerLimits::default() }
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Node {
    pub async fn start(name: &str, files: PeerTlsFiles) -> Self {
        Self::start_at(name, PeerSecurity::MutualTls(files), any_port(), limits()).await
    }

    pub async fn start_at(
        name: &str,
        security: PeerSecurity,
        listen: SocketAddr,
        limits: PeerLimits,
    ) -> Self {
        let settings = PeerTransportSettings { listen, security, limits };
        let (transport, server) = open(settings).await.unwrap();
        let name = NodeName::new(name).unwrap();
        let (address, slot) = (server.local_address().to_string(), server.handler_slot());
        let handler = Steered::new(&name);
        slot.set(Arc::clone(&handler) as Arc<dyn PeerHandler>);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        Self { name, transport, address, slot, handler, stop: Some(stop), serving: Some(serving) }
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Ends the server as a drain does.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        in_time("the server ends", self.serving.take().unwrap()).await.unwrap();
    }

    /// Ends the server at once, as a kill does.
    pub async fn kill(mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(in_time("the server ends", serving).await.is_err());
    }

    pub fn request(&self, method: PeerMethod, body: impl Into<Bytes>) -> PeerRequest {
        PeerRequest {
            cluster: Some(CLUSTER),
            from: PeerIdentity { node_id: 1, name: self.name.clone(), incarnation: Incarnation([3; 16]) },
            to: None,
            method,
            body: body.into(),
        }
    }

    /// Asks another node for its name, which it must prove.
    pub async fn ask(&self, other: &Node) -> Result<Bytes, PeerError> {
        self.ask_as(other, Some(&other.name)).await
    }

    pub async fn ask_as(&self, other: &Node, expect: Option<&NodeName>) -> Result<Bytes, PeerError> {
        let request = self.request(PeerMethod::NodeInfo, "hello");
        in_time("an answer", self.transport.call(&other.address, expect, request, PATIENCE)).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Asks until `accept` takes the outcome.
pub async fn until<T, F: Future>(
    what: &str,
    mut ask: impl FnMut() -> F,
    mut accept: impl FnMut(F::Output) -> Option<T>,
) -> T {
    in_time(what, async {
        loop {
            if let Some(accepted) = accept(ask().await) {
                return accepted;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
