//! Servers of one cluster: real ledgers and real gRPC, with a network in memory between the peers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use ledger_node::peers::{
    ClusterId, Incarnation, MemberRecord, NodeName, PeerError, PeerFuture, PeerHandler, PeerIdentity,
    PeerRequest, PeerTransport,
};
use ledger_node::{Bootstrap, ClusterOptions, DataDirectory, Ledger, Options, Stores, Timing};
use ledger_server::access::Authentication;
use ledger_server::cluster_calls::NodeFinder;
use ledger_server::tokens::TokenRegistry;
use ledger_server::{LedgerServer, ServerError, ServerSettings};
use service_kit::admission::AdmissionLimits;
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits, Phase, Readiness};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;

use crate::support::Clients;

const CLUSTER: ClusterId = ClusterId([7; 16]);
/// No test waits longer for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than a machine is ever busy: after the first election, nobody leads who was not handed the lead.
const STEADY: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_secs(100),
    election_max: Duration::from_secs(200),
    quorum_loss_silence: Duration::from_secs(400),
};

type Handlers = Arc<Mutex<BTreeMap<String, Arc<dyn PeerHandler>>>>;

/// The way to the peers: their handlers by address.
#[derive(Debug, Clone, Default)]
struct Network(Handlers);

impl PeerTransport for Network {
    fn call<'a>(
        &'a self,
        address: &'a str,
        _expect: Option<&'a NodeName>,
        request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let address = address.to_owned();
            let handler = self.0.lock().unwrap().get(&address).cloned();
            let Some(handler) = handler else {
                return Err(PeerError::Unreachable { address, reason: "nobody listens".to_owned() });
            };
            match tokio::time::timeout(timeout, handler.handle(request)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(PeerError::Refused { address, refusal }),
                Err(_) => Err(PeerError::Timeout { address, timeout }),
            }
        })
    }
}

/// Knows every node of the test by its address.
#[derive(Debug)]
struct AddressBook(BTreeMap<String, MemberRecord>);

impl NodeFinder for AddressBook {
    fn find<'a>(
        &'a self,
        peer_address: &'a str,
    ) -> BoxFuture<'a, Result<MemberRecord, Box<dyn std::fmt::Display + Send + Sync>>> {
        let found = self.0.get(peer_address).cloned();
        Box::pin(async move { found.ok_or_else(|| Box::new("nobody listens there") as _) })
    }
}

/// One node: its directory, its ledger and its server.
pub struct Node {
    #[expect(dead_code, reason = "kept until the node stops")]
    pub directory: TempDir,
    pub member: MemberRecord,
    pub ledger: Ledger,
    pub tokens: Arc<TokenRegistry>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Node {
    pub fn id(&self) -> u64 {
        self.member.identity.node_id
    }

    pub async fn clients(&self, token: &str) -> Clients {
        let endpoint = Endpoint::from_shared(self.member.client_url.clone()).unwrap();
        Clients::new(endpoint.connect().await.unwrap(), Some(token))
    }
}

pub struct TestCluster {
    network: Network,
    pub nodes: Vec<Node>,
}

impl TestCluster {
    /// Nodes of which the first so many are the voters; all run, and tokens exist.
    pub async fn start(voters: usize, others: usize) -> Self {
        let mut homes = Vec::new();
        let limits = ListenerLimits::default();
        for number in 0..voters + others {
            let directory = tempfile::tempdir().unwrap();
            let node_id = DataDirectory::open(directory.path()).unwrap().node_id();
            if let Some((first, _, _)) = homes.first() {
                let key = |home: &TempDir| home.path().join("log.key");
                std::fs::copy(key(first), key(&directory)).unwrap();
            }
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::bind("grpc", address, Protocol::Http2, None, &limits).await.unwrap();
            let identity = PeerIdentity {
                node_id,
                name: NodeName::new(format!("node-{number}")).unwrap(),
                incarnation: Incarnation([number as u8 + 1; 16]),
            };
            let peer_address = format!("node-{number}:7000");
            let member = MemberRecord { identity, peer_address, client_url: listener.url() };
            homes.push((directory, listener, member));
        }
        let members: Vec<MemberRecord> = homes.iter().map(|(_, _, member)| member.clone()).collect();
        let book: BTreeMap<String, MemberRecord> =
            members.iter().map(|member| (member.peer_address.clone(), member.clone())).collect();
        let mut cluster = Self { network: Network::default(), nodes: Vec::new() };
        // Whoever is asked for its vote first is there already.
        for (number, (directory, listener, member)) in homes.into_iter().enumerate().rev() {
            let bootstrap = match number {
                0 => Bootstrap::Members(members.iter().take(voters).cloned().collect()),
                _ => Bootstrap::Joined,
            };
            let node =
                cluster.start_node(directory, listener, member, bootstrap, AddressBook(book.clone())).await;
            cluster.nodes.insert(0, node);
        }
        cluster.leader().await;
        for node in cluster.nodes.iter().take(voters) {
            tokio::time::timeout(PATIENCE, node.tokens.ensure_first(1)).await.expect("in time").unwrap();
        }
        cluster
    }

    async fn start_node(
        &self,
        directory: TempDir,
        listener: Listener,
        member: MemberRecord,
        bootstrap: Bootstrap,
        book: AddressBook,
    ) -> Node {
        let transport = Arc::new(self.network.clone());
        let peers = ClusterOptions {
            timing: STEADY,
            silent_after: None,
            ..ClusterOptions::new(transport, CLUSTER, member.clone())
        };
        let options = Options { bootstrap, cluster: Some(peers), ..Options::default() };
        let stores = EmbeddedStores::open(directory.path(), RedbOptions::default()).unwrap();
        let stores = Stores { log: stores.log, state: stores.state };
        let opened = DataDirectory::open(directory.path()).unwrap();
        let ledger = Ledger::open(opened, stores, options).await.unwrap();
        self.network.0.lock().unwrap().insert(member.peer_address.clone(), ledger.peer_handler());
        let tokens = Arc::new(TokenRegistry::new(ledger.clone(), directory.path()));
        let settings = ServerSettings {
            authentication: Authentication::Tokens(Arc::clone(&tokens)),
            limits: ListenerLimits::default(),
            admission: AdmissionLimits::default(),
        };
        let server = LedgerServer::new(ledger.clone(), Arc::clone(&tokens), settings)
            .finding_nodes_with(Arc::new(book));
        let readiness = Readiness::starting();
        readiness.advance(Phase::Ready);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, readiness, async move { drop(stopped.await) }));
        Node { directory, member, ledger, tokens, stop, serving }
    }

    /// Waits until a node leads and every member knows it; answers its index.
    pub async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let leads = |node: &Node| node.ledger.node_info().is_leader && node.ledger.ready();
            if let Some(leader) = self.nodes.iter().position(leads) {
                let id = Some(self.nodes[leader].id());
                let knows = |node: &Node| {
                    let status = node.ledger.cluster().status();
                    status.leader == id || status.members.is_empty()
                };
                if self.nodes.iter().all(knows) {
                    return leader;
                }
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody leads");
            tokio::task::yield_now().await;
        }
    }

    /// The text of the first administrator's token.
    pub fn admin_token(&self) -> String {
        let file = self.nodes.iter().find_map(|node| node.tokens.admin_token_file()).expect("a token file");
        std::fs::read_to_string(file).unwrap().trim_end().to_owned()
    }

    pub async fn stop(self) {
        for node in self.nodes {
            drop(node.stop);
            node.serving.await.unwrap().unwrap();
            node.ledger.shutdown().await.unwrap();
        }
    }
}
