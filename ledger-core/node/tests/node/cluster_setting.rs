//! A cluster under test: nodes with their homes on one network.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::Receipt;
use ledger_core::names::NamespaceName;
use ledger_core::transaction::Transaction;
use ledger_node::peers::{ClusterId, Incarnation, MemberRecord, NodeName, PeerIdentity};
use ledger_node::{
    AdminError, Bootstrap, ClusterOptions, Consistency, Ledger, MembershipChange, MembershipError, Options,
    Stores, Threads, Timing, WriteError,
};
use tokio::time::Instant;

use super::observed_stores::ObservedLog;
use super::peer_network::PeerNetwork;
use super::setting::{Home, actor, key, vault};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
/// No test waits longer for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node: what survives a restart, and the open ledger while it runs.
pub struct Node {
    pub home: Home,
    pub member: MemberRecord,
    pub ledger: Option<Ledger>,
    /// The log of the open ledger, whose commits can be made to wait.
    pub log: Option<Arc<ObservedLog>>,
}

impl Node {
    pub fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().expect("the node runs")
    }

    pub fn id(&self) -> u64 {
        self.member.identity.node_id
    }

    pub fn address(&self) -> &str {
        &self.member.peer_address
    }
}

pub struct TestCluster {
    pub network: PeerNetwork,
    pub nodes: Vec<Node>,
    pub tune: fn(&mut Options),
}

/// Quick elections, for tests that wait for some. On a busy machine there may be one more at any time: what such a test
/// asks for, it asks for until it is there.
pub const QUICK: Timing = Timing {
    heartbeat: Duration::from_millis(30),
    election_min: Duration::from_millis(150),
    election_max: Duration::from_millis(300),
    quorum_loss_silence: Duration::from_millis(1_200),
};

/// Longer than a machine is ever busy: after the first election, nobody leads who was not handed the lead.
pub const STEADY: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_secs(100),
    election_max: Duration::from_secs(200),
    quorum_loss_silence: Duration::from_secs(400),
};

/// The lead stays where it is.
pub fn steady(options: &mut Options) {
    let cluster = options.cluster.as_mut().unwrap();
    cluster.timing = STEADY;
    cluster.silent_after = None;
}

/// All in one thread, whose paused clock runs as fast as the machine can.
pub fn in_one_thread(options: &mut Options) {
    options.threads = Threads::Inline { seed: 7 };
}

impl TestCluster {
    /// So many homes of one ledger; nothing runs yet.
    pub fn homes(count: usize) -> Self {
        let mut cluster = Self { network: PeerNetwork::default(), nodes: Vec::new(), tune: |_| {} };
        for _ in 0..count {
            cluster.add_home();
        }
        cluster
    }

    /// Nodes that are the first voters, all running.
    pub async fn of_voters(count: usize) -> Self {
        Self::of_voters_tuned(count, |_| {}).await
    }

    /// As [`of_voters`](Self::of_voters), with a leader that stays.
    pub async fn led_by_one(count: usize) -> Self {
        Self::of_voters_tuned(count, steady).await
    }

    /// As [`of_voters`](Self::of_voters), with other options.
    pub async fn of_voters_tuned(count: usize, tune: fn(&mut Options)) -> Self {
        let mut cluster = Self { tune, ..Self::homes(count) };
        cluster.found().await;
        cluster
    }

    /// Makes voters of all homes; all run.
    pub async fn found(&mut self) {
        let members: Vec<MemberRecord> = self.nodes.iter().map(|node| node.member.clone()).collect();
        // Whoever is asked for its vote first is there already.
        for index in 1..members.len() {
            self.start(index, Bootstrap::Joined).await;
        }
        self.start(0, Bootstrap::Members(members)).await;
        self.leader().await;
    }

    /// A new home with the ledger's key.
    pub fn add_home(&mut self) -> usize {
        let index = self.nodes.len();
        let home = Home::new();
        let node_id = home.directory().node_id();
        if let Some(first) = self.nodes.first() {
            let key = |home: &Home| home.folder.path().join("log.key");
            std::fs::copy(key(&first.home), key(&home)).unwrap();
        }
        let identity = PeerIdentity {
            node_id,
            name: NodeName::new(format!("node-{index}")).unwrap(),
            incarnation: Incarnation([index as u8 + 1; 16]),
        };
        let peer_address = format!("node-{index}:7000");
        let member = MemberRecord { identity, peer_address, client_url: format!("http://node-{index}") };
        self.nodes.push(Node { home, member, ledger: None, log: None });
        index
    }

    pub async fn start(&mut self, index: usize, bootstrap: Bootstrap) {
        let node = &self.nodes[index];
        let transport = self.network.transport(node.address());
        let mut options = Options {
            bootstrap,
            cluster: Some(ClusterOptions {
                timing: QUICK,
                ..ClusterOptions::new(transport, CLUSTER, node.member.clone())
            }),
            ..node.home.options()
        };
        (self.tune)(&mut options);
        let stores = node.home.stores();
        let log = Arc::new(ObservedLog::new(stores.log));
        let ledger = node.home.open_with(Stores { log: log.clone(), state: stores.state }, options).await;
        self.network.listen(node.address(), ledger.peer_handler());
        self.nodes[index].ledger = Some(ledger);
        self.nodes[index].log = Some(log);
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        self.network.silence(node.address());
        node.ledger.take().expect("the node runs").shutdown().await.unwrap();
    }

    pub fn running(&self) -> impl Iterator<Item = (usize, &Ledger)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.ledger.as_ref()?)))
    }

    /// Waits until one of the running nodes leads and all others know it.
    pub async fn leader(&self) -> usize {
        self.leader_among(|_| true).await
    }

    /// As [`leader`](Self::leader), of some of the nodes.
    pub async fn leader_among(&self, among: impl Fn(usize) -> bool) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes: Vec<(usize, &Ledger)> = self.running().filter(|(index, _)| among(*index)).collect();
            let leads = nodes.iter().find(|(_, ledger)| ledger.node_info().is_leader && ledger.ready());
            if let Some((leader, _)) = leads {
                let id = self.nodes[*leader].id();
                if nodes
                    .iter()
                    .all(|(_, ledger)| ledger.cluster().status().leader == Some(id) && ledger.ready())
                {
                    return *leader;
                }
            }
            assert!(Instant::now() < deadline, "no leader: {:?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn statuses(&self) -> Vec<ledger_node::ClusterStatus> {
        self.running().map(|(_, ledger)| ledger.cluster().status()).collect()
    }

    pub async fn create_vault(&self, through: usize) {
        let ledger = self.nodes[through].ledger();
        let (acme, vault) = (NamespaceName::new("acme").unwrap(), vault());
        let made = answered("a namespace", async || match ledger.create_namespace(acme.clone()).await {
            // An attempt whose outcome nobody told has made it.
            Err(AdminError::Refused(_)) => Ok(None),
            other => other.map(Some),
        });
        made.await;
        let made = answered("a vault", async || match ledger.create_vault(vault.clone()).await {
            Err(AdminError::Refused(_)) => Ok(None),
            other => other.map(Some),
        });
        made.await;
    }

    /// Takes a node in, whoever leads meanwhile; it votes then.
    pub async fn add(&self, through: usize, index: usize) {
        let cluster = self.nodes[through].ledger().cluster();
        let member = &self.nodes[index].member;
        let added = answered("a new voter", async || match cluster.add(member.clone()).await {
            Ok(MembershipChange::Voter { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        added.await;
    }

    /// Takes a node out, whoever leads meanwhile.
    pub async fn remove(&self, through: usize, node_id: u64) {
        let cluster = self.nodes[through].ledger().cluster();
        let removed = answered("a member less", async || match cluster.remove(node_id).await {
            // An attempt whose outcome nobody told has taken it out.
            Err(MembershipError::NotMember { .. }) => Ok(()),
            other => other.map(drop),
        });
        removed.await;
    }

    /// Hands the lead to a node, whoever has it.
    pub async fn transfer(&self, to: usize) {
        let (cluster, id) = (self.nodes[to].ledger().cluster(), self.nodes[to].id());
        answered("a hand-over", async || cluster.transfer(Some(id)).await).await;
    }

    /// A linearizable read, whoever leads meanwhile.
    pub async fn value(&self, through: usize, name: &str) -> Option<String> {
        let ledger = self.nodes[through].ledger();
        let (vault, key) = (vault(), key(name));
        let read = answered("a read", async || ledger.get(&vault, &key, Consistency::Linearizable).await);
        read.await.value.map(|entity| String::from_utf8(entity.value.to_vec()).unwrap())
    }

    /// Writes through a node as a client does: with the same key until there is a decision.
    pub async fn write(&self, through: usize, transaction: Transaction) -> Receipt {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.nodes[through].ledger().write(&vault(), &actor(), transaction.clone()).await;
            match outcome {
                Ok(receipt) => return receipt,
                Err(WriteError::Refused(refusal)) => panic!("{refusal}"),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all running nodes have applied the same entries, and compares what they made of them.
    pub async fn converge(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let applied: Vec<u64> =
                self.running().map(|(_, ledger)| ledger.node_info().last_applied).collect();
            let last = self.running().map(|(_, ledger)| ledger.node_info().last_log_index).max();
            if applied.iter().all(|index| Some(*index) == last) {
                break;
            }
            assert!(Instant::now() < deadline, "applied {applied:?} of {last:?}: {:?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let tips: Vec<_> = self
            .running()
            .map(|(_, ledger)| {
                ledger.vault(&vault()).map(|info| (info.height, info.block_hash, info.state_root))
            })
            .collect();
        assert!(tips.windows(2).all(|pair| pair[0] == pair[1]), "the replicas differ: {tips:?}");
    }
}

/// Asks until there is an answer: there is none while nobody leads.
pub async fn answered<T, E: std::fmt::Display>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: did not happen in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
