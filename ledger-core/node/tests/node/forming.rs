//! Forming a cluster with real directories over a network in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_node::forming::{
    Bootstrapping, Forming, FormingError, FormingSettings, Goal, PeerDiscovery, PeerFront, Waiting,
};
use ledger_node::peers::{
    NodeName, PeerError, PeerFuture, PeerHandler, PeerMethod, PeerRefusal, PeerRequest, PeerTransport,
};
use ledger_node::{DirectoryError, Formation, NodeDirectory};

/// Whoever listens, by address.
#[derive(Debug, Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<String, PeerFront>>>);

/// The network as one node sees it.
#[derive(Debug)]
struct Cable {
    network: Network,
    /// Methods that do not get through.
    lost: Vec<PeerMethod>,
}

impl PeerTransport for Cable {
    fn call<'a>(
        &'a self,
        address: &'a str,
        _expect: Option<&'a NodeName>,
        request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let address = address.to_owned();
            if self.lost.contains(&request.method) {
                return Err(PeerError::Timeout { address, timeout });
            }
            let front = self.network.0.lock().unwrap().get(&address).cloned();
            let Some(front) = front else {
                let reason = "nobody listens".to_owned();
                return Err(PeerError::Unreachable { address, reason });
            };
            match tokio::time::timeout(timeout, front.handle(request)).await {
                Ok(answer) => answer.map_err(|refusal| PeerError::Refused { address, refusal }),
                Err(_) => Err(PeerError::Timeout { address, timeout }),
            }
        })
    }
}

#[derive(Debug)]
struct Listed(Vec<String>);

impl PeerDiscovery for Listed {
    fn addresses(&self) -> PeerFuture<'_, Result<Vec<String>, String>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A few nodes with directories of their own.
struct Group {
    folder: tempfile::TempDir,
    network: Network,
    listed: Vec<String>,
}

fn address(node: usize) -> String {
    format!("node-{node}:50052")
}

impl Group {
    fn listing(nodes: usize) -> Self {
        let listed = (0..nodes).map(address).collect();
        Self { folder: tempfile::tempdir().unwrap(), network: Network::default(), listed }
    }

    fn path(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    fn node(&self, node: usize, goal: Goal) -> Forming {
        self.node_without(node, goal, Vec::new())
    }

    fn node_without(&self, node: usize, goal: Goal, lost: Vec<PeerMethod>) -> Forming {
        let name = NodeName::new(format!("node-{node}")).unwrap();
        let front = PeerFront::new();
        self.network.0.lock().unwrap().insert(address(node), front.clone());
        Forming {
            directory: NodeDirectory::open(self.path(node), Some(name)).unwrap(),
            transport: Arc::new(Cable { network: self.network.clone(), lost }),
            discovery: Arc::new(Listed(self.listed.clone())),
            front,
            settings: FormingSettings {
                bootstrapping: Bootstrapping::With(goal),
                peer_address: address(node),
                client_url: String::new(),
                poll: Duration::from_secs(2),
                timeout: Duration::from_secs(60),
            },
        }
    }
}

const THREE: Goal = Goal::Form { nodes: 3 };

fn key(path: &Path) -> Vec<u8> {
    std::fs::read(path.join("log.key")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn three_nodes_found_one_cluster_with_one_key() {
    let group = Group::listing(3);
    let (a, b, c) =
        tokio::join!(group.node(0, THREE).run(), group.node(1, THREE).run(), group.node(2, THREE).run());
    let nodes = [a.unwrap(), b.unwrap(), c.unwrap()];
    let cluster = nodes[0].cluster_id();
    assert!(cluster.is_some());
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!((node.cluster_id(), node.formation()), (cluster, nodes[0].formation()));
        assert!(matches!(node.formation(), Formation::Settled { members } if members.len() == 3));
        assert_eq!(key(&group.path(at)), key(&group.path(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_of_three_say_what_they_wait_for_and_give_up() {
    let group = Group::listing(3);
    let (a, b) = tokio::join!(group.node(0, THREE).run(), group.node(1, THREE).run());
    for refused in [a.unwrap_err(), b.unwrap_err()] {
        let FormingError::TimedOut { waiting: Waiting::Silent { peers }, .. } = &refused else {
            panic!("{refused}")
        };
        let addresses: Vec<_> = peers.iter().map(|peer| peer.address.clone()).collect();
        assert_eq!(addresses, [address(2)], "{refused}");
        // While it waits it says what is, and only at the end what to do about it.
        let meanwhile = Waiting::Silent { peers: peers.clone() }.to_string();
        assert!(meanwhile.contains("yet") && !meanwhile.contains("start the nodes"), "{meanwhile}");
        // Why it does not answer, as the transport says, and what to do.
        assert!(refused.to_string().contains("(nobody listens)"), "{refused}");
        assert!(refused.to_string().contains("start the nodes there"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_to_join_goes_on_and_shows_what_it_waits_for() {
    let group = Group::listing(2);
    let node = group.node(0, Goal::Join);
    let front = node.front.clone();
    assert_eq!(front.waiting(), None, "it has not begun");
    let joining = tokio::spawn(node.run());
    // Many times the limit of forming.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let waiting = front.waiting().expect("it waits");
    let Waiting::NoCluster { silent } = &waiting else { panic!("{waiting}") };
    assert_eq!(silent.iter().map(|peer| &peer.address).collect::<Vec<_>>(), [&address(1)]);
    assert!(waiting.to_string().contains("belongs to a cluster that it could join yet"), "{waiting}");
    joining.abort();
}

#[tokio::test(start_paused = true)]
async fn another_number_of_nodes_is_named() {
    let group = Group::listing(2);
    let (two, three) = (group.node(0, Goal::Form { nodes: 2 }), group.node(1, THREE));
    let (two, three) = tokio::join!(two.run(), three.run());
    let refused = two.unwrap_err().to_string();
    assert!(refused.contains("node-1 wants to form a cluster of 3 nodes, this one of 2"), "{refused}");
    assert!(three.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_promise_outlives_its_node_and_the_cluster_is_formed_after_the_restart() {
    let group = Group::listing(3);
    // Nobody hears the outcome: everyone promised, the coordinator founded the cluster, and then time is up.
    let deaf = || vec![PeerMethod::Settle];
    let (a, b, c) = tokio::join!(
        group.node_without(0, THREE, deaf()).run(),
        group.node_without(1, THREE, deaf()).run(),
        group.node_without(2, THREE, deaf()).run()
    );
    let outcomes = [a, b, c];
    let founded: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()?.cluster_id()).collect();
    assert_eq!(founded.len(), 1, "the coordinator alone knows");
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        let is_named = matches!(refused, FormingError::TimedOut { waiting: Waiting::Outcome { cluster, .. }, .. } if *cluster == founded[0]);
        assert!(is_named, "{refused}");
    }
    drop(outcomes);
    // A promised node may neither go alone nor lose its promise.
    let promised = (0..3).filter(|node| {
        let directory = NodeDirectory::open(group.path(*node), None).unwrap();
        matches!(directory.formation(), Formation::Promised(_))
    });
    for node in promised.collect::<Vec<_>>() {
        let mut alone = group.node(node, THREE);
        alone.settings.bootstrapping = Bootstrapping::Alone;
        let refused = alone.run().await.unwrap_err();
        assert!(matches!(refused, FormingError::Directory(DirectoryError::Promised { .. })), "{refused}");
    }
    let (a, b, c) =
        tokio::join!(group.node(0, THREE).run(), group.node(1, THREE).run(), group.node(2, THREE).run());
    for outcome in [a, b, c] {
        assert_eq!(outcome.unwrap().cluster_id(), Some(founded[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_cluster_answers_nothing_but_what_forming_asks() {
    let group = Group::listing(3);
    let node = group.node(0, THREE);
    let (from, front) = (node.directory.identity(), node.front.clone());
    let ask =
        |method| PeerRequest { cluster: None, from: from.clone(), to: None, method, body: Bytes::new() };
    let before = front.handle(ask(PeerMethod::Vote)).await;
    assert!(matches!(before, Err(PeerRefusal::NotReady { .. })), "{before:?}");
    let forming = tokio::spawn(node.run());
    for method in [PeerMethod::Vote, PeerMethod::Append, PeerMethod::Join, PeerMethod::Propose] {
        let refused = front.handle(ask(method)).await;
        assert!(matches!(refused, Err(PeerRefusal::NotReady { .. })), "{refused:?}");
    }
    forming.abort();
}
