//! A program that answers everything, and a caller that counts what it gets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_node::peers::{
    Incarnation, NodeName, PeerError, PeerFuture, PeerHandler, PeerIdentity, PeerMethod, PeerRefusal,
    PeerRequest,
};
use ledger_simulation::client_calls::{ClientAnswer, ClientRequest};
use ledger_simulation::network::{Endpoint, Network, WireQuality};
use ledger_simulation::trace::{Telling, Trace};
use ledger_simulation::world::{Booted, Boxed, Node, World};

pub const A: Endpoint = Endpoint(0);
pub const B: Endpoint = Endpoint(1);

pub fn address(endpoint: Endpoint) -> String {
    format!("{endpoint}:7400")
}

pub fn name(endpoint: Endpoint) -> NodeName {
    NodeName::new(endpoint.to_string()).unwrap()
}

pub fn request(from: Endpoint, body: &str) -> PeerRequest {
    PeerRequest {
        cluster: None,
        from: PeerIdentity { node_id: from.0.into(), name: name(from), incarnation: Incarnation([0; 16]) },
        to: None,
        method: PeerMethod::NodeInfo,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// Answers with what it was sent, after a while, and counts.
#[derive(Debug, Default)]
pub struct Echo {
    pub handled: AtomicU64,
    pub takes: Duration,
}

impl PeerHandler for Echo {
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            self.handled.fetch_add(1, Ordering::Relaxed);
            Ok(request.body)
        })
    }
}

pub struct EchoNode(pub Arc<Echo>);

impl Node for EchoNode {
    fn peers(&self) -> Arc<dyn PeerHandler> {
        self.0.clone()
    }

    fn serve(&self, _request: ClientRequest) -> Boxed<ClientAnswer> {
        Box::pin(async { ClientAnswer::Busy("an echo".to_owned()) })
    }
}

pub async fn boot(echo: Arc<Echo>) -> Booted {
    let node: Arc<dyn Node> = Arc::new(EchoNode(echo));
    Ok(node)
}

/// A world with two hosts.
pub fn world(seed: u64, quality: WireQuality) -> World {
    let trace = Trace::new(Telling::Quiet);
    let network = Network::new(seed, quality, trace.clone());
    for endpoint in [A, B] {
        network.attach(endpoint, address(endpoint), name(endpoint));
    }
    World::new(seed, network, trace)
}

pub type Outcomes = Arc<Mutex<Vec<Result<Bytes, PeerError>>>>;

/// Boots a caller on A that sends `count` requests to B, one every `every`.
pub fn call_from_a(world: &mut World, count: u32, every: Duration, timeout: Duration) -> Outcomes {
    let outcomes = Outcomes::default();
    let (collected, transport) = (outcomes.clone(), world.network().transport(A));
    world
        .run_on(A, async move {
            for number in 0..count {
                let (collected, transport) = (collected.clone(), transport.clone());
                tokio::spawn(async move {
                    let request = request(A, &number.to_string());
                    let outcome = transport.call(&address(B), Some(&name(B)), request, timeout).await;
                    collected.lock().unwrap().push(outcome);
                });
                tokio::time::sleep(every).await;
            }
            std::future::pending().await
        })
        .unwrap();
    outcomes
}
