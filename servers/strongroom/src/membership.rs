//! A node among others: its listener for peers, its way into a cluster, and what the engine is told about both.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ledger_node::forming::{
    Bootstrapping, ForceError, Forming, FormingError, FormingSettings, Goal, LivingMember, PeerDiscovery,
    PeerFront, PeersWord, Returning, check_force, force_new_cluster, living_members, stored_members,
};
use ledger_node::peers::{ClusterId, LedgerKey, MemberRecord, PeerFuture, PeerTransport};
use ledger_node::{
    Bootstrap, ClusterOptions, DirectoryError, Formation, Ledger, NodeDirectory, Provenance, Stores,
};
use ledger_server::discovery::Discovery;
use ledger_server::peer_settings::{AfterRemoval, BootstrapSetting, PeerSettings, PeerTrust};
use ledger_server::peer_transport::{self, PeerLimits, PeerSecurity, PeerServer, PeerTransportSettings};
use service_kit::tls::{CertificateEnd, PeerTlsFiles};
use service_kit::{Drain, Listener, Readiness, ServingThreads};
use tokio::sync::oneshot;

/// How long a member that comes back on its own directory asks its peers about itself. Without an answer it takes part:
/// after the end of the whole cluster there is nobody to ask. One on a copy never does.
const RETURN_PATIENCE: Duration = Duration::from_secs(3);
/// How long the last node of a lost cluster looks for others of it before it goes on alone.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);
/// How often the members' addresses are written to the file of `--join`.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked at what a node without a cluster waits for.
const WAITING_INTERVAL: Duration = Duration::from_millis(200);
/// The obstacle of a node that is not ready because of its cluster.
pub const CLUSTER: &str = "cluster";

/// A node cannot be what it was started as.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Alone on the directory of a cluster.
    #[error(
        "the data directory belongs to a node of cluster {cluster}: leave out --bootstrap 1 to go on in it. If the other \
         nodes are lost for good, --force-new-cluster goes on alone with what this node has, under a new cluster id"
    )]
    BelongsToCluster {
        /// The cluster.
        cluster: String,
    },
    /// A member without a way to its peers.
    #[error(
        "this is a node of a cluster, or is to be one, and nothing says how it and its peers know each other: give \
         --peer-tls-cert, --peer-tls-key and --peer-ca, or --peer-insecure on loopback"
    )]
    NoTrust,
    /// An address that nobody can call.
    #[error("{address} is no address to call: say with --advertise HOST:PORT where peers reach this node")]
    Unreachable {
        /// The address for peers.
        address: SocketAddr,
    },
    /// A copy of a member's directory, and nobody leads.
    #[error(
        "{} no leader of that cluster answered within {} s. Start its other nodes first: then this becomes a new one, which \
         joins them. {LOST_FOR_GOOD}",
        copied(*node_id, cluster),
        after.as_secs_f64()
    )]
    Copy {
        /// Whose directory it was.
        node_id: u64,
        /// The cluster.
        cluster: String,
        /// How long was waited.
        after: Duration,
    },
    /// A copy of a member's directory, and no way to its peers.
    #[error(
        "{} nothing says where the other nodes are: give --join, and how peers know each other, and this becomes a new node, \
         which joins them. {LOST_FOR_GOOD}",
        copied(*node_id, cluster)
    )]
    CopyWithoutPeers {
        /// Whose directory it was.
        node_id: u64,
        /// The cluster.
        cluster: String,
    },
    /// Others are there still.
    #[error(
        "--force-new-cluster is for the last node of a cluster whose other nodes are lost for good, and {} here: {}. Leave the \
         flag out to take part with them. When they are too few for a quorum, stop all nodes, force the one that has most, and \
         let the others join it with empty directories",
        if alive.len() == 1 { "one answers" } else { "several answer" },
        alive.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    OthersLive {
        /// Who answers.
        alive: Vec<LivingMember>,
    },
    /// A part of the way.
    #[error(transparent)]
    Forming(#[from] FormingError),
    /// The new cluster.
    #[error(transparent)]
    Forced(#[from] ForceError),
    /// A part that reports in its own words.
    #[error("{0}")]
    Part(Box<dyn std::error::Error + Send + Sync>),
}

const LOST_FOR_GOOD: &str = "If they are lost for good, --force-new-cluster goes on alone with what this node has, \
                             under a new cluster id";

fn copied(node_id: u64, cluster: &str) -> String {
    format!(
        "this data directory is a copy of that of node {node_id} of cluster {cluster}, or was restored from one: it may lack \
         what that node acknowledged, so it must not go on as that node, and"
    )
}

fn part(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MembershipError {
    MembershipError::Part(error.into())
}

/// What a node has to do with peers.
pub struct Peers {
    transport: Arc<dyn PeerTransport>,
    front: PeerFront,
    discovery: Arc<Discovery>,
    settings: PeerSettings,
    readiness: Readiness,
    /// Where it listens.
    pub address: SocketAddr,
    /// The end of its certificate's validity, for the gauge; `None` without certificates.
    pub certificate_end: Option<CertificateEnd>,
    peer_address: String,
    client_url: String,
}

impl Peers {
    /// Binds the peers' address and answers that the node starts; `None` when nothing says that there are peers.
    pub async fn listen(
        settings: &PeerSettings,
        directory: &NodeDirectory,
        clients: &Listener,
        threads: &ServingThreads,
        (drain, readiness): (&Drain, &Readiness),
    ) -> Result<Option<Self>, MembershipError> {
        let is_member = matches!(directory.formation(), Formation::Settled { .. } | Formation::Joined);
        if !settings.are_wanted && !is_member {
            return Ok(None);
        }
        let security = match &settings.trust {
            PeerTrust::Certificates(files) => {
                let name = Some(directory.identity().name.to_string());
                PeerSecurity::MutualTls(PeerTlsFiles { name, ..files.clone() })
            }
            PeerTrust::InsecureLoopback => PeerSecurity::InsecureLoopback,
            PeerTrust::Unset => return Err(MembershipError::NoTrust),
        };
        let transport_settings =
            PeerTransportSettings { listen: settings.listen, security, limits: PeerLimits::default() };
        let (transport, server) = peer_transport::open(transport_settings).await.map_err(part)?;
        let address = server.local_address();
        let peer_address = match &settings.advertise {
            Some(advertised) => advertised.to_string(),
            None if address.ip().is_unspecified() => return Err(MembershipError::Unreachable { address }),
            None => address.to_string(),
        };
        let client_url = client_url(clients, settings, address);
        let front = PeerFront::new();
        server.handler_slot().set(Arc::new(front.clone()));
        let certificate_end = server.certificate_end();
        serve(server.spread_over(threads), drain);
        let discovery = Arc::new(Discovery::new(settings.discovery.clone()).map_err(part)?);
        let (settings, readiness) = (settings.clone(), readiness.clone());
        Ok(Some(Self {
            transport,
            front,
            discovery,
            settings,
            readiness,
            address,
            certificate_end,
            peer_address,
            client_url,
        }))
    }

    /// Runs until the node belongs to a cluster.
    pub async fn form(&self, directory: NodeDirectory) -> Result<NodeDirectory, MembershipError> {
        let bootstrapping = bootstrapping(&directory, &self.settings)?;
        self.form_as(directory, bootstrapping, Arc::clone(&self.discovery) as _).await
    }

    async fn form_as(
        &self,
        directory: NodeDirectory,
        bootstrapping: Bootstrapping,
        discovery: Arc<dyn PeerDiscovery>,
    ) -> Result<NodeDirectory, MembershipError> {
        let settings = FormingSettings {
            bootstrapping,
            peer_address: self.peer_address.clone(),
            client_url: self.client_url.clone(),
            poll: self.settings.poll,
            timeout: self.settings.bootstrap_timeout,
        };
        let forming = Forming {
            directory,
            transport: Arc::clone(&self.transport),
            discovery,
            front: self.front.clone(),
            settings,
        };
        tokio::select! {
            formed = forming.run() => Ok(formed?),
            never = self.report_waiting() => match never {},
        }
    }

    /// Keeps the probe in step with what the node waits for that has no cluster.
    async fn report_waiting(&self) -> Infallible {
        let mut interval = tokio::time::interval(WAITING_INTERVAL);
        loop {
            interval.tick().await;
            if let Some(waiting) = self.front.waiting() {
                self.readiness
                    .report_obstacle(CLUSTER, format!("this node belongs to no cluster yet: {waiting}"));
            }
        }
    }

    /// Asks the leader about this node before it takes part: a node whose directory went back in time becomes another
    /// one, which joins; one that was taken out stays out unless the operator says otherwise.
    pub async fn return_to_cluster(
        &self,
        directory: &mut NodeDirectory,
        stores: &Stores,
        members: &BTreeMap<u64, Option<MemberRecord>>,
    ) -> Result<Return, MembershipError> {
        let Some(cluster) = directory.cluster_id() else { return Ok(Return::AsItIs) };
        if directory.provenance() == Provenance::Copy {
            return self.return_as_copy(directory, cluster, members).await;
        }
        if members.keys().all(|node_id| *node_id == directory.node_id()) {
            return Ok(Return::AsItIs);
        }
        let last = stores.log.snapshot().map_err(part)?.last;
        let me = self.member(directory);
        let returning = Returning {
            transport: &self.transport,
            cluster,
            me: &me,
            last_index: last.map(|last| last.index),
        };
        let addresses: BTreeSet<_> =
            members.values().flatten().map(|member| member.peer_address.clone()).collect();
        let patience = match self.settings.after_removal {
            AfterRemoval::StayOut => RETURN_PATIENCE,
            AfterRemoval::Rejoin => self.settings.bootstrap_timeout,
        };
        Ok(match returning.ask(addresses.clone(), patience).await {
            PeersWord::Older { acknowledged } => {
                tracing::warn!(
                    node_id = directory.node_id(),
                    acknowledged,
                    last = last.map_or(0, |last| last.index),
                    "this directory is older than what this node acknowledged to its peers: it must not vote as that \
                     node any more, and becomes a new one"
                );
                Return::AsAnother
            }
            PeersWord::NotMember if self.settings.after_removal == AfterRemoval::Rejoin => {
                tracing::warn!("this node was taken out of its cluster: it joins again, as --rejoin says");
                let key = returning.join_again(addresses).await.map_err(part)?;
                take_over_key(directory, &key)?;
                Return::AsItIs
            }
            PeersWord::Good => {
                if let Some(present) = returning.present_key(addresses).await
                    && let Some(held) = directory.key_to_replace(&present.key).map_err(part)?
                    && let Some(key) = returning.private_key(&present, &held).await
                {
                    take_over_key(directory, &key)?;
                }
                Return::AsItIs
            }
            // It finds that out again while it runs, and says so.
            _ => Return::AsItIs,
        })
    }

    /// Under its old id a copy could vote for a leader that lacks what the node acknowledged after it was made, or be one. Where
    /// somebody leads, a quorum has all that, and the copy is needed for nothing.
    async fn return_as_copy(
        &self,
        directory: &NodeDirectory,
        cluster: ClusterId,
        members: &BTreeMap<u64, Option<MemberRecord>>,
    ) -> Result<Return, MembershipError> {
        let node_id = directory.node_id();
        tracing::warn!(
            node_id,
            %cluster,
            "this directory was copied or restored: it must not vote as that node any more, and becomes a new one once a \
             leader of its cluster answers"
        );
        self.readiness.report_obstacle(
            CLUSTER,
            "this directory was copied or restored: this node becomes a new one once a leader of its cluster answers",
        );
        let me = self.member(directory);
        let asking = Returning { transport: &self.transport, cluster, me: &me, last_index: None };
        let addresses = known_addresses(directory, members);
        let after = self.settings.bootstrap_timeout;
        match asking.await_leader(addresses, self.discovery.as_ref(), after).await {
            true => Ok(Return::AsAnother),
            false => Err(MembershipError::Copy { node_id, cluster: cluster.to_string(), after }),
        }
    }

    /// Becomes a new node and joins the cluster, whose members are these as far as the old node knew.
    pub async fn become_another(
        &self,
        mut directory: NodeDirectory,
        members: &BTreeMap<u64, Option<MemberRecord>>,
    ) -> Result<NodeDirectory, MembershipError> {
        let known = known_addresses(&directory, members).into_iter().collect();
        let discovery = Arc::new(KnownAndFound { known, found: Arc::clone(&self.discovery) });
        directory.renounce_identity().map_err(part)?;
        self.form_as(directory, Bootstrapping::With(Goal::Join), discovery).await
    }

    /// What the engine is told about this node among others.
    pub fn options(&self, directory: &NodeDirectory) -> Option<ClusterOptions> {
        let transport = Arc::clone(&self.transport);
        let mut options = ClusterOptions::new(transport, directory.cluster_id()?, self.member(directory));
        options.voters_max = self.settings.voters_max;
        options.silent_after = self.settings.silent_after;
        options.lease_reads = self.settings.lease_reads;
        Some(options)
    }

    /// The ledger is open: it answers peers, and its members are remembered for the next start.
    pub fn serve(&self, ledger: &Ledger) {
        self.front.serve(ledger.peer_handler());
        if self.discovery.file().is_some() {
            tokio::spawn(remember(Arc::clone(&self.discovery), ledger.clone()));
        }
    }

    fn member(&self, directory: &NodeDirectory) -> MemberRecord {
        MemberRecord {
            identity: directory.identity(),
            peer_address: self.peer_address.clone(),
            client_url: self.client_url.clone(),
        }
    }
}

/// A node that was no part of its cluster while the key was rotated signs with the present one from now on.
fn take_over_key(directory: &mut NodeDirectory, key: &LedgerKey) -> Result<(), MembershipError> {
    if let Some(old) = directory.take_over_key(key).map_err(part)? {
        tracing::warn!(%old, "the ledger's key was rotated: this node has taken the present one over from its cluster");
    }
    Ok(())
}

/// Addresses that a directory knew, and those that are found.
#[derive(Debug)]
struct KnownAndFound {
    known: Vec<String>,
    found: Arc<Discovery>,
}

impl PeerDiscovery for KnownAndFound {
    fn addresses(&self) -> PeerFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async {
            let mut addresses = self.found.addresses().await?;
            addresses.extend(
                self.known.iter().filter(|known| !addresses.contains(known)).cloned().collect::<Vec<_>>(),
            );
            Ok(addresses)
        })
    }
}

fn known_addresses(
    directory: &NodeDirectory,
    members: &BTreeMap<u64, Option<MemberRecord>>,
) -> BTreeSet<String> {
    let first = match directory.formation() {
        Formation::Settled { members } => members.as_slice(),
        _ => &[],
    };
    members.values().flatten().chain(first).map(|member| member.peer_address.clone()).collect()
}

/// As what a member comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// As the node that it was.
    AsItIs,
    /// As a new one.
    AsAnother,
}

/// How a ledger that has these members comes into being when it is opened.
pub fn bootstrap_of(directory: &NodeDirectory, members: &BTreeMap<u64, Option<MemberRecord>>) -> Bootstrap {
    match directory.formation() {
        // It was taken out, and its log knows it.
        formation
            if !matches!(formation, Formation::Unformed)
                && !members.is_empty()
                && !members.contains_key(&directory.node_id()) =>
        {
            Bootstrap::Joined
        }
        // The same list on each of them makes the same cluster, whoever is there first.
        Formation::Settled { members } => Bootstrap::Members(members.clone()),
        Formation::Joined => Bootstrap::Joined,
        _ => Bootstrap::Single,
    }
}

/// A copy of what belongs to no cluster goes on: as the ledger that it holds, or, with nothing in it, as a new node, since
/// what it was copied from may have joined a cluster under its id.
pub fn take_copy_without_cluster(directory: &mut NodeDirectory) -> Result<(), MembershipError> {
    match (directory.provenance(), directory.formation()) {
        (Provenance::Copy, Formation::Unformed) if directory.holds_ledger() || directory.key().is_some() => {
            directory.take_as_original().map_err(part)
        }
        (Provenance::Copy, Formation::Unformed | Formation::Renounced { .. }) => {
            directory.renounce_identity().map_err(part)
        }
        _ => Ok(()),
    }
}

/// A copy of a ledger that ran alone goes on; one that had peers, if only an address for them, may have more now.
pub fn take_copy_alone(
    directory: &mut NodeDirectory,
    members: &BTreeMap<u64, Option<MemberRecord>>,
) -> Result<(), MembershipError> {
    let had_peers = members.values().any(Option::is_some);
    match directory.cluster_id() {
        _ if directory.provenance() == Provenance::Original => Ok(()),
        Some(cluster) if had_peers => {
            let (node_id, cluster) = (directory.node_id(), cluster.to_string());
            Err(MembershipError::CopyWithoutPeers { node_id, cluster })
        }
        _ => directory.take_as_original().map_err(part),
    }
}

/// Refuses a start that would split a node from its cluster.
pub fn check_members(
    directory: &NodeDirectory,
    members: &BTreeMap<u64, Option<MemberRecord>>,
    bootstrap: BootstrapSetting,
    has_peers: bool,
) -> Result<(), MembershipError> {
    let is_alone = members.keys().all(|node_id| *node_id == directory.node_id());
    match (is_alone, bootstrap) {
        (false, BootstrapSetting::Nodes(1)) => Err(belongs(directory)),
        (false, _) if !has_peers => Err(MembershipError::NoTrust),
        _ => Ok(()),
    }
}

/// Leaves the old cluster behind, and says what that cost. Not while others of it are alive: they would go on as the same
/// ledger.
pub async fn force(
    directory: &mut NodeDirectory,
    stores: &Stores,
    peers: Option<&Peers>,
) -> Result<(), MembershipError> {
    check_force(directory, stores)?;
    let members = stored_members(stores).map_err(part)?;
    if peers.is_none() && members.keys().any(|node_id| *node_id != directory.node_id()) {
        return Err(MembershipError::NoTrust);
    }
    if let Some(peers) = peers {
        let me = peers.member(directory);
        let alive = living_members(&peers.transport, &me, &members, FORCE_PATIENCE).await;
        if !alive.is_empty() {
            return Err(MembershipError::OthersLive { alive });
        }
    }
    let forced = force_new_cluster(directory, stores)?;
    tracing::warn!(old = %forced.old, new = %forced.new, undecided_entries = forced.undecided.entries, "{forced}");
    tracing::warn!("remove the flag --force-new-cluster now: it is for one start");
    Ok(())
}

fn belongs(directory: &NodeDirectory) -> MembershipError {
    let cluster = directory.cluster_id().map_or_else(|| "none".to_owned(), |id| id.to_string());
    MembershipError::BelongsToCluster { cluster }
}

fn bootstrapping(
    directory: &NodeDirectory,
    settings: &PeerSettings,
) -> Result<Bootstrapping, MembershipError> {
    let nodes = match (directory.formation(), settings.bootstrap) {
        (Formation::Renounced { former }, setting) => {
            let is_alone = setting == BootstrapSetting::Nodes(1);
            if is_alone || !settings.discovery.names_peers() {
                let (path, former) = (directory.path().to_owned(), *former);
                return Err(part(DirectoryError::Renounced { path, former }));
            }
            0
        }
        (Formation::Settled { .. } | Formation::Joined, BootstrapSetting::Nodes(1)) => {
            return Err(belongs(directory));
        }
        // What was begun is finished the same way.
        (Formation::Promised(promise), BootstrapSetting::Unset) => {
            u32::try_from(promise.members.len()).unwrap_or(u32::MAX)
        }
        (_, BootstrapSetting::Nodes(nodes)) => nodes,
        (_, BootstrapSetting::Unset) => 1,
    };
    Ok(Bootstrapping::from_expected(nodes)?)
}

/// Where clients reach this node. An address that listens everywhere is none to call: the host for peers stands for it.
fn client_url(clients: &Listener, settings: &PeerSettings, peers: SocketAddr) -> String {
    let address = clients.local_address();
    if !address.ip().is_unspecified() {
        return clients.url();
    }
    let host = match &settings.advertise {
        Some(advertised) if advertised.host().contains(':') => format!("[{}]", advertised.host()),
        Some(advertised) => advertised.host().to_owned(),
        None if peers.is_ipv6() => format!("[{}]", peers.ip()),
        None => peers.ip().to_string(),
    };
    clients.url().replacen(&address.to_string(), &format!("{host}:{}", address.port()), 1)
}

/// Answers peers until the ledger is closed.
fn serve(server: PeerServer, drain: &Drain) {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async move {
        // A dropped sender means stop as well.
        let _ = stopped.await;
    }));
    // Added before the ledger's, so run after it.
    drain.before_exit("peers", move || async move {
        drop(stop);
        let _ = serving.await;
    });
}

async fn remember(discovery: Arc<Discovery>, ledger: Ledger) {
    let mut interval = tokio::time::interval(REMEMBER_INTERVAL);
    ledger.wait_ready().await;
    loop {
        interval.tick().await;
        let members = ledger.cluster().status().members;
        let addresses: BTreeSet<_> =
            members.into_iter().filter_map(|member| Some(member.record?.peer_address)).collect();
        if addresses.is_empty() {
            continue;
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        if let Err(error) = discovery.remember(&addresses, since.map_or(0, |since| since.as_secs())) {
            tracing::warn!(%error, "the members' addresses are not remembered for the next start");
        }
    }
}
