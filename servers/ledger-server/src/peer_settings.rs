//! The settings of a node among others: where its peers are, how they know each other, how a cluster comes to be.

use std::net::SocketAddr;
use std::time::Duration;

use ledger_node::peers::NodeName;
use ledger_node::{FIRST_MEMBERS_MAX, LeaseReads};
use service_kit::configuration::{Alias, Kind, Resolved, Setting, Source, TimeUnit};
use service_kit::tls::PeerTlsFiles;

use crate::discovery::{DiscoverySettings, DnsName, PeerAddress};
use crate::peer_transport::PEER_PORT;
use crate::settings::SettingsError;

const SECONDS: Kind = Kind::Duration { bare: TimeUnit::Seconds };

/// Half a lease: with less of it left, reads would ask a quorum nearly always.
const LEASE_DRIFT_MAX: Duration = Duration::from_millis(250);
/// Shortest time between two looks around.
const POLL_MIN: Duration = Duration::from_millis(10);

/// The rows of the table.
pub static PEER_SETTINGS: &[Setting] = &[
    Setting::new(
        "bootstrap",
        Kind::Count { min: 0, max: FIRST_MEMBERS_MAX as u64 },
        "How a new node comes into a cluster: 1 is one of its own, at once; 2 to 7 wait for each other and form one of so many; 0 joins one that exists. A node that belongs to a cluster stays in it.",
    )
    .or("1")
    .also(&[Alias::new("INFERADB__LEDGER__BOOTSTRAP_EXPECT")]),
    Setting::new("bootstrap_timeout", SECONDS, "How long nodes wait for each other to form a cluster; then they say what is missing and end. A node that joins one (--bootstrap 0) waits for ever, and says every minute what for.")
        .or("60s")
        .also(&[Alias::counted_in("INFERADB__LEDGER__BOOTSTRAP_TIMEOUT_SECS", TimeUnit::Seconds)]),
    Setting::new("poll", SECONDS, "How often a node without a cluster looks for others; at least 10ms.")
        .or("2s")
        .also(&[Alias::counted_in("INFERADB__LEDGER__BOOTSTRAP_POLL_SECS", TimeUnit::Seconds)]),
    Setting::new(
        "join",
        Kind::List,
        "Where other nodes are: peer addresses HOST:PORT, and at most one file with them, as {\"cached_at\":0,\"peers\":[{\"addr\":\"192.0.2.1:50052\"}]}. A file that is missing or was written by a node is written when the peers are known.",
    )
    .also(&[Alias::new("INFERADB__LEDGER__DISCOVERY_CACHE_PATH")]),
    Setting::new("join_ttl", SECONDS, "How long the addresses in the file of --join count after its cached_at; 0 there never expires.")
        .or("1h")
        .also(&[Alias::counted_in("INFERADB__LEDGER__DISCOVERY_CACHE_TTL_SECS", TimeUnit::Seconds)]),
    Setting::new("discovery", Kind::Text, "DNS name whose A and AAAA records are the peers, as NAME or NAME:PORT; the port is 50052 otherwise.")
        .also(&[Alias::new("INFERADB__LEDGER__DISCOVERY_DOMAIN")]),
    Setting::new("discovery_resolver", Kind::Address, "DNS server for --discovery; unset: as the system is configured."),
    Setting::new("peer_listen", Kind::Address, "Address for peers; unset: port 50052 of --listen's address (a free port when that has port 0), when anything else of the cluster is set."),
    Setting::new("advertise", Kind::Text, "HOST:PORT at which peers reach this node; unset: the address for peers."),
    Setting::new("name", Kind::Text, "Name of the node, a DNS label, which its certificate for peers must carry; unset: the one it has, and node- with four digits for a new one."),
    Setting::new("peer_tls_cert", Kind::Path, "PEM file with the node's certificate chain, shown to peers both when it calls and when it is called."),
    Setting::new("peer_tls_key", Kind::Path, "PEM file with the private key of --peer-tls-cert."),
    Setting::new("peer_ca", Kind::Path, "PEM file with the authorities of the cluster's certificates: whoever has one can be a member."),
    Setting::new("peer_insecure", Kind::Switch, "Speak with peers in plaintext, on loopback only: every user of this machine can be a member, and read the ledger's key.").or("false"),
    Setting::new("force_new_cluster", Kind::Switch, "Once, after the other nodes are lost for good: leave the old cluster with what this node has, for a new one of its own. Entries that are not known to be committed are kept, and named.").or("false"),
    Setting::new("rejoin", Kind::Switch, "For a node that an operator took out of its cluster: ask to be taken in again, with the directory it has. Without it such a node stays out.").or("false"),
    Setting::new("silent_after", SECONDS, "A voter that is silent for so long loses its vote, when a learner that has caught up takes its place and three voters remain; it stays a learner, and catches up when it is back. 0: never.").or("30s"),
    Setting::new("lease_reads", SECONDS, "Let a leader answer linearizable reads without asking the others, until its lease ends: 500 ms after a quorum answered last, less this. It is the most by which two nodes' monotonic clocks may drift apart in that time, at most 250ms; when they do by more, as when a machine is suspended or moved while it runs, a read may be stale. 0: every read asks a quorum.").or("0"),
    Setting::new("voters_max", Kind::Count { min: 1, max: 7 }, "Most voters of the cluster; further members receive everything and do not vote.").or("5"),
];

/// What `--bootstrap` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapSetting {
    /// Nothing: a new node is alone, one with a cluster goes on.
    Unset,
    /// So many nodes.
    Nodes(u32),
}

/// Whether an old cluster is left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterChange {
    /// The node stays where it belongs.
    Stay,
    /// It leaves for a cluster of its own.
    ForceNew,
}

/// What a node does that was taken out of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRemoval {
    /// It stays out, and says so.
    StayOut,
    /// It asks to be taken in again.
    Rejoin,
}

/// How peers know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerTrust {
    /// Nothing was said.
    Unset,
    /// By certificates.
    Certificates(PeerTlsFiles),
    /// Not at all, on loopback.
    InsecureLoopback,
}

/// The checked settings of a node among others.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Whether anything says that there are or will be peers.
    pub are_wanted: bool,
    /// Address for peers.
    pub listen: SocketAddr,
    /// Where peers reach the node, when it is not that.
    pub advertise: Option<PeerAddress>,
    /// Name of the node, when one was given.
    pub name: Option<NodeName>,
    /// How a new node comes into a cluster.
    pub bootstrap: BootstrapSetting,
    /// How long that may take.
    pub bootstrap_timeout: Duration,
    /// How often it looks around.
    pub poll: Duration,
    /// Where its peers are.
    pub discovery: DiscoverySettings,
    /// Whether it leaves its cluster.
    pub change: ClusterChange,
    /// Whether it comes back after it was taken out.
    pub after_removal: AfterRemoval,
    /// When a silent voter is removed; `None` = never.
    pub silent_after: Option<Duration>,
    /// Reads by lease; `None` = every linearizable read asks a quorum.
    pub lease_reads: Option<LeaseReads>,
    /// Most voters.
    pub voters_max: usize,
    /// How peers know each other.
    pub trust: PeerTrust,
}

impl PeerSettings {
    /// Reads resolved settings of [`PEER_SETTINGS`]; `listen` is the address for clients.
    ///
    /// # Errors
    /// What does not read, or does not fit together.
    pub fn read(resolved: &Resolved, listen: SocketAddr) -> Result<Self, SettingsError> {
        let nodes = u32::try_from(resolved.count("bootstrap")?).unwrap_or(u32::MAX);
        let bootstrap = match resolved.source("bootstrap") {
            None | Some(Source::Default) => BootstrapSetting::Unset,
            Some(_) => BootstrapSetting::Nodes(nodes),
        };
        let poll = resolved.duration("poll")?;
        if poll < POLL_MIN {
            return Err(resolved.refusal("poll", "at least 10ms").into());
        }
        let name = resolved.optional_text("name")?.map(NodeName::new).transpose();
        let name = name.map_err(|error| resolved.refusal("name", error.to_string()))?;
        let advertise = resolved.optional_text("advertise")?.map(str::parse::<PeerAddress>).transpose();
        let advertise = advertise.map_err(|error| resolved.refusal("advertise", error.to_string()))?;
        let own_listen = resolved.optional_address("peer_listen")?;
        let default_port = if listen.port() == 0 { 0 } else { PEER_PORT };
        let trust = trust(resolved, name.as_ref())?;
        let discovery = discovery(resolved)?;
        let are_wanted = own_listen.is_some()
            || advertise.is_some()
            || trust != PeerTrust::Unset
            || discovery.names_peers()
            || !matches!(bootstrap, BootstrapSetting::Unset | BootstrapSetting::Nodes(1));
        let clock_drift_max = resolved.duration("lease_reads")?;
        if clock_drift_max > LEASE_DRIFT_MAX {
            return Err(resolved.refusal("lease_reads", "at most 250ms").into());
        }
        let lease_reads = Some(LeaseReads { clock_drift_max }).filter(|_| !clock_drift_max.is_zero());
        let silent_after = Some(resolved.duration("silent_after")?).filter(|after| !after.is_zero());
        Ok(Self {
            are_wanted,
            listen: own_listen.unwrap_or_else(|| SocketAddr::new(listen.ip(), default_port)),
            advertise,
            name,
            bootstrap,
            bootstrap_timeout: resolved.duration("bootstrap_timeout")?,
            poll,
            discovery,
            change: match resolved.switch("force_new_cluster")? {
                true => ClusterChange::ForceNew,
                false => ClusterChange::Stay,
            },
            after_removal: match resolved.switch("rejoin")? {
                true => AfterRemoval::Rejoin,
                false => AfterRemoval::StayOut,
            },
            silent_after,
            lease_reads,
            voters_max: usize::try_from(resolved.count("voters_max")?).unwrap_or(usize::MAX),
            trust,
        })
    }
}

fn discovery(resolved: &Resolved) -> Result<DiscoverySettings, SettingsError> {
    let dns = resolved.optional_text("discovery")?.map(|name| DnsName::parse(name, PEER_PORT)).transpose();
    let mut discovery = DiscoverySettings {
        file_ttl: resolved.duration("join_ttl")?,
        dns: dns.map_err(|_| resolved.refusal("discovery", "a DNS name, or one with a port as NAME:PORT"))?,
        resolver: resolved.optional_address("discovery_resolver")?,
        ..DiscoverySettings::default()
    };
    let items = resolved.list("join")?;
    let joined = discovery.join(&items, PEER_PORT);
    joined.map_err(|error| resolved.refusal("join", format!("addresses and at most one file ({error})")))?;
    Ok(discovery)
}

fn trust(resolved: &Resolved, name: Option<&NodeName>) -> Result<PeerTrust, SettingsError> {
    let insecure = resolved.switch("peer_insecure")?;
    let path = |key| resolved.optional_path(key);
    match (path("peer_tls_cert")?, path("peer_tls_key")?, path("peer_ca")?) {
        (Some(certificate), Some(key), Some(authorities)) if !insecure => {
            let name = name.map(|name| name.as_str().to_owned());
            Ok(PeerTrust::Certificates(PeerTlsFiles { certificate, key, authorities, name }))
        }
        (None, None, None) if insecure => Ok(PeerTrust::InsecureLoopback),
        (None, None, None) => Ok(PeerTrust::Unset),
        _ => Err(SettingsError::PeerTrust),
    }
}
