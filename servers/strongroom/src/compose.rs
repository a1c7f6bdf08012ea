//! A ledger server put together: settings → directory → stores → engine → services → probes → drain.
//! `dev` and `ledger serve` both run this.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger_node::forming::{check_not_interrupted, stored_members};
use ledger_node::peers::MemberRecord;
use ledger_node::{DirectoryError, Formation, Ledger, NodeDirectory, Stores};
use ledger_server::access::Authentication;
use ledger_server::peer_settings::ClusterChange;
use ledger_server::settings::LedgerSettings;
use ledger_server::tokens::TokenRegistry;
use ledger_server::waiting_node::WaitingNode;
use ledger_server::{LedgerServer, ServerSettings};
use ratelimit_server::RateLimitServers;
use service_kit::disk::DiskGuard;
use service_kit::listener::ListenError;
use service_kit::metrics::MetricsHandle;
use service_kit::probes::Probes;
use service_kit::ready_line::ReadyNode;
use service_kit::tls::{CertificateEnd, Followed, Protocol, ServerTls, TlsFiles};
use service_kit::traces::Traces;
use service_kit::{
    AuthState, Drain, DrainOutcome, Listener, ListenerLimits, Phase, Readiness, ReadyLine, ServingThreads,
    logs,
};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::{OlderFormat, RedbOptions};
use tokio::sync::oneshot;

use crate::clock;
use crate::disk_watch::DiskWatch;
use crate::membership::{self, CLUSTER, MembershipError, Peers, Return};
use crate::rate_limits::{self, RateLimitsBeside};
use crate::reachable::reachable_url;

/// How often it is looked at whether the node is ready.
const READINESS_INTERVAL: Duration = Duration::from_millis(200);
const REMOVED: &str = "this node was taken out of its cluster and stays out: stop it, or take it in again with `ledger cluster \
                       join`, or by starting it with --rejoin";
/// Kept back from the drain for the last spans.
pub const TRACES_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens when a port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusyPort {
    /// The start fails and names the flag.
    Fail,
    /// Another one is taken.
    TakeFree,
}

/// What asks a server to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndsWith {
    /// A signal.
    Signal,
    /// A signal, or the end of standard input: whoever holds its other end lives no longer, or wants no more.
    StandardInput,
}

/// A server could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not this machine's.
    #[error("{source}: free it, or choose another with --{flag}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// Why.
        source: ListenError,
    },
    /// A part did not start.
    #[error("{0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
    /// A signal came before the server was ready.
    #[error("it was asked to end before it was ready")]
    Stopped,
    /// The node is in no cluster, or not in the one that it should be in.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The storage failed while the server ran: what reached the disk is unknown, so it ended at once.
    #[error("the node stopped itself: {0}")]
    Node(String),
    /// Time was up, or a second signal came, before everything was done.
    #[error("the server ended before everything was finished: {0}")]
    Unfinished(DrainOutcome),
}

fn start_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ServeError {
    ServeError::Start(error.into())
}

/// A server that is ready.
pub struct Running {
    /// What runs where.
    pub ready: ReadyLine,
    /// Whether the data goes with the process.
    pub ephemeral: bool,
    ledger: Ledger,
    server: LedgerServer,
    rate_limits: Option<RateLimitServers>,
    listener: Listener,
    /// Where its connections are served.
    threads: ServingThreads,
    readiness: Readiness,
    drain: Drain,
    /// Dropped last: probes answer until everything else is done.
    stop_probes: oneshot::Sender<()>,
    probes: tokio::task::JoinHandle<()>,
}

/// Starts everything. Must run inside a tokio runtime.
pub async fn start(
    settings: LedgerSettings,
    beside: Option<RateLimitsBeside>,
    busy: BusyPort,
    ends_with: EndsWith,
) -> Result<Running, ServeError> {
    let (metrics, readiness, drain) = begin(&settings, ends_with)?;

    let follow = |files: TlsFiles| files.follow("listen", Protocol::Http2);
    let tls = settings.tls.clone().map(follow).transpose().map_err(start_error)?;
    // Both ports before the data: a start that cannot serve must not recover first.
    let metrics_listener = bind("metrics", settings.metrics, Protocol::Http1, None, &settings, busy).await?;
    let listener = bind("listen", settings.listen, Protocol::Http2, tls.as_ref(), &settings, busy).await?;
    let threads = ServingThreads::start("ledger-grpc", serving_threads()).map_err(start_error)?;
    let listener = listener.spread_over(&threads);
    if let Some(tls) = &tls {
        metrics.watch_certificate("listen", tls.certificate_end());
    }
    let metrics_url = reachable_url(&metrics_listener);
    let probes = Probes { readiness: readiness.clone(), metrics: metrics.clone() };
    let (stop_probes, probes) = start_probes(probes, metrics_listener, settings.limits.clone());

    let waiting = WaitingNode::answer(&listener, &settings.limits, readiness.clone()).map_err(start_error)?;
    let opening = open(&settings, &listener, &threads, (&drain, &readiness));
    let opened = tokio::select! {
        opened = opening => opened?,
        () = drain.requested() => return Err(ServeError::Stopped),
    };
    drop(waiting);
    metrics.watch_directory(opened.path.clone());
    if let Some(end) = opened.peer_certificate_end.clone() {
        metrics.watch_certificate("peer", end);
    }
    let ledger = opened.ledger.clone();
    let shutdown = ledger.clone();
    drain.before_exit("ledger", move || async move {
        if let Err(error) = shutdown.shutdown().await {
            tracing::error!(%error, "the ledger did not shut down cleanly");
        }
    });
    let server = server(&settings, &opened, &readiness);
    let mut ready = ready_line(&opened, &ledger, &listener, metrics_url);
    let mut rate_limits = None;
    if let Some(beside) = beside {
        let bound = beside.bind(opened.tokens.admin_token_file(), &metrics).await;
        let servers = bound.map_err(start_error)?;
        rate_limits::tell(&mut ready, &servers);
        rate_limits = Some(servers);
    }
    let ephemeral = settings.data.is_none();
    Ok(Running {
        ready,
        ephemeral,
        ledger,
        server,
        rate_limits,
        listener,
        threads,
        readiness,
        drain,
        stop_probes,
        probes,
    })
}

/// Logs, metrics, and the end that a signal asks for.
fn begin(
    settings: &LedgerSettings,
    ends_with: EndsWith,
) -> Result<(MetricsHandle, Readiness, Drain), ServeError> {
    let traces = Traces::from_environment("strongroom-ledger", |name| std::env::var(name).ok())
        .map_err(start_error)?;
    logs::install(&settings.logs, traces.as_ref().map(Traces::layer)).map_err(start_error)?;
    let metrics = MetricsHandle::install().map_err(start_error)?;
    tokio::spawn(metrics.clone().upkeep());
    let readiness = Readiness::starting();
    let drain = Drain::new(settings.drain, readiness.clone());
    drain.listen_to_signals().map_err(start_error)?;
    if ends_with == EndsWith::StandardInput {
        end_with_standard_input(drain.clone()).map_err(start_error)?;
    }
    if let Some(traces) = traces {
        // Added first, so run last: spans of the drain are sent too.
        drain.before_exit("traces", move || async move {
            if let Err(error) = traces.shutdown(TRACES_TIMEOUT).await {
                tracing::warn!(%error, "spans were lost");
            }
        });
    }
    Ok((metrics, readiness, drain))
}

/// The server of an opened ledger, which takes no writes while the disk has no room.
fn server(settings: &LedgerSettings, opened: &Opened, readiness: &Readiness) -> LedgerServer {
    let authentication = match settings.auth {
        AuthState::WaivedByFlag => Authentication::Off,
        _ => Authentication::Tokens(Arc::clone(&opened.tokens)),
    };
    let server_settings = ServerSettings {
        authentication,
        limits: settings.limits.clone(),
        admission: settings.admission.clone(),
    };
    let server = LedgerServer::new(opened.ledger.clone(), Arc::clone(&opened.tokens), server_settings)
        .finding_nodes_with(Arc::new(opened.ledger.cluster()));
    let guard = DiskGuard::new(opened.path.clone());
    let mut disk = DiskWatch {
        guard,
        gate: server.write_gate(),
        readiness: readiness.clone(),
        ledger: Some(opened.ledger.clone()),
    };
    // Once before anybody can write.
    disk.measure();
    tokio::spawn(disk.run());
    server
}

/// One thread per processor, and from three on one processor for the engine.
pub fn serving_threads() -> usize {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        processors @ (1 | 2) => processors,
        processors => processors - 1,
    }
}

/// Reads until there is nothing more to come. On a thread that nobody waits for: a read cannot be broken off.
fn end_with_standard_input(drain: Drain) -> io::Result<()> {
    let watch = move || {
        // What is written there says nothing; an error is an end as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drain.request_first();
    };
    std::thread::Builder::new().name("standard-input".to_owned()).spawn(watch).map(|_| ())
}

/// Answers probes until the sender is dropped.
pub fn start_probes(
    probes: Probes,
    listener: Listener,
    limits: ListenerLimits,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stop = async {
            // A dropped sender means stop as well.
            let _ = stopped.await;
        };
        probes.serve(listener.accept(), &limits, stop).await;
    });
    (stop, serving)
}

fn ready_line(opened: &Opened, ledger: &Ledger, listener: &Listener, metrics_url: String) -> ReadyLine {
    let mut ready = ReadyLine::new();
    ready.data_dir = Some(opened.path.clone());
    ready.ledger_url = Some(reachable_url(listener));
    ready.token_file = opened.tokens.admin_token_file();
    ready.vkey = Some(ledger.verifier_key().to_string());
    ready.metrics_url = Some(metrics_url);
    let node = ReadyNode::new(ledger.node_info().node_id, reachable_url(listener), std::process::id());
    ready.nodes = vec![ReadyNode { peer_addr: opened.peer_address, ..node }];
    ready
}

impl Running {
    /// Serves until a signal asks for the end, then drains. `announce` is called once, when the node is ready.
    pub async fn serve<E>(
        self,
        announce: impl FnOnce(&ReadyLine, bool) -> Result<(), E>,
    ) -> Result<(), Ended<E>> {
        let Self {
            ready,
            ephemeral,
            ledger,
            server,
            rate_limits,
            listener,
            threads,
            readiness,
            drain,
            stop_probes,
            probes,
        } = self;
        let serving = async {
            let ledger = server.serve(listener, readiness.clone(), drain.stop_accepting());
            let Some(rate_limits) = rate_limits else { return ledger.await.map_err(start_error) };
            let beside = rate_limits.serve(readiness.clone(), || drain.stop_accepting());
            let (ledger, beside) = tokio::join!(ledger, beside);
            ledger.map_err(start_error).and(beside.map_err(start_error))
        };
        let follow = async {
            tokio::select! {
                never = follow_readiness(&ledger, &readiness) => match never {},
                () = ledger.wait_ready() => {}
            }
            readiness.clear_obstacle(CLUSTER);
            readiness.advance(Phase::Ready);
            announce(&ready, ephemeral)?;
            Ok(follow_readiness(&ledger, &readiness).await)
        };
        let outcome = tokio::select! {
            outcome = drain.supervise(serving) => outcome?,
            failure = ledger.failure() => {
                tracing::error!(%failure, "the node stopped itself");
                return Err(ServeError::Node(failure.to_string()).into());
            }
            announced = follow => match announced {
                Ok(never) => match never {},
                Err(error) => return Err(Ended::Announcement(error)),
            },
        };
        drop(threads);
        drop(stop_probes);
        // The probes end by themselves within their own limit.
        let _ = probes.await;
        match outcome {
            DrainOutcome::Clean => Ok(()),
            other => Err(ServeError::Unfinished(other).into()),
        }
    }
}

/// Why a server that had started ended.
#[derive(Debug)]
pub enum Ended<E> {
    /// By itself.
    Server(ServeError),
    /// Because it could not be said that it was ready.
    Announcement(E),
}

impl<E> From<ServeError> for Ended<E> {
    fn from(error: ServeError) -> Self {
        Self::Server(error)
    }
}

/// A member without a leader wants no requests.
async fn follow_readiness(ledger: &Ledger, readiness: &Readiness) -> std::convert::Infallible {
    let mut interval = tokio::time::interval(READINESS_INTERVAL);
    loop {
        interval.tick().await;
        if ledger.ready() {
            readiness.clear_obstacle(CLUSTER);
        } else if ledger.cluster().status().is_removed {
            readiness.report_obstacle(CLUSTER, REMOVED);
        } else {
            readiness.report_obstacle(CLUSTER, "no leader is known, or this node is behind it");
        }
    }
}

async fn bind(
    flag: &'static str,
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<&Followed<ServerTls>>,
    settings: &LedgerSettings,
    busy: BusyPort,
) -> Result<Listener, ServeError> {
    let refused = |source| ServeError::Listen { flag, source };
    let listener = match Listener::bind(flag, address, protocol, None, &settings.limits).await {
        Err(ListenError::Bind { source, .. })
            if busy == BusyPort::TakeFree && source.kind() == io::ErrorKind::AddrInUse =>
        {
            let free = SocketAddr::new(address.ip(), 0);
            Listener::bind(flag, free, protocol, None, &settings.limits).await
        }
        bound => bound,
    };
    let listener = listener.map_err(refused)?;
    Ok(match tls {
        Some(tls) => listener.following(Arc::new(tls.clone())),
        None => listener,
    })
}

struct Opened {
    path: PathBuf,
    tokens: Arc<TokenRegistry>,
    ledger: Ledger,
    peer_address: Option<SocketAddr>,
    peer_certificate_end: Option<CertificateEnd>,
}

/// Opens the directory, finds the node's cluster, and opens tokens, stores and engine.
async fn open(
    settings: &LedgerSettings,
    listener: &Listener,
    threads: &ServingThreads,
    (drain, readiness): (&Drain, &Readiness),
) -> Result<Opened, ServeError> {
    let (data, name) = (settings.data.clone(), settings.peers.name.clone());
    let directory = blocking(move || {
        let directory = match data {
            Some(path) => NodeDirectory::open(path, name),
            None => NodeDirectory::ephemeral(name),
        };
        directory.and_then(NodeDirectory::copied_for_upgrade).map_err(start_error)
    })
    .await?;
    // What runs elsewhere, such as clients that are told the path, has another working directory.
    let path = std::path::absolute(directory.path()).map_err(start_error)?;
    let peers = Peers::listen(&settings.peers, &directory, listener, threads, (drain, readiness)).await?;
    let (directory, stores) = belong(settings, &path, directory, peers.as_ref()).await?;
    let mut options = settings.engine.clone();
    let members = stored_members(&stores).map_err(start_error)?;
    options.bootstrap = membership::bootstrap_of(&directory, &members);
    options.cluster = peers.as_ref().and_then(|peers| peers.options(&directory));
    let directory = directory.into_data_directory().map_err(start_error)?;
    let ledger = Ledger::open(directory, stores, options).await.map_err(start_error)?;
    if let Some(peers) = &peers {
        peers.serve(&ledger);
    }
    let tokens = Arc::new(TokenRegistry::new(ledger.clone(), &path));
    // A new member has them once it has caught up so far.
    tokio::select! {
        ensured = tokens.ensure_first(clock::now_ms()) => ensured.map_err(start_error)?,
        failure = ledger.failure() => return Err(ServeError::Node(failure.to_string())),
        never = follow_readiness(&ledger, readiness) => match never {},
    }
    let peer_address = peers.as_ref().map(|peers| peers.address);
    let peer_certificate_end = peers.and_then(|peers| peers.certificate_end);
    Ok(Opened { path, tokens, ledger, peer_address, peer_certificate_end })
}

/// Brings the node into its cluster, and opens its stores.
async fn belong(
    settings: &LedgerSettings,
    path: &Path,
    mut directory: NodeDirectory,
    peers: Option<&Peers>,
) -> Result<(NodeDirectory, Stores), ServeError> {
    let stores = || open_stores(settings, path);
    if settings.peers.change == ClusterChange::ForceNew {
        let stores = stores().await?;
        membership::force(&mut directory, &stores, peers).await?;
    }
    let is_forced = settings.peers.change == ClusterChange::ForceNew;
    membership::take_copy_without_cluster(&mut directory)?;
    let Some(peers) = peers else {
        if let Formation::Renounced { former } = directory.formation() {
            let (path, former) = (path.to_owned(), *former);
            return Err(start_error(DirectoryError::Renounced { path, former }));
        }
        directory.mint_first_key().map_err(start_error)?;
        let stores = stores().await?;
        let members = check_members(settings, &directory, &stores, false)?;
        membership::take_copy_alone(&mut directory, &members)?;
        return Ok((directory, stores));
    };
    let mut directory = peers.form(directory).await?;
    let opened = stores().await?;
    let members = check_members(settings, &directory, &opened, true)?;
    if is_forced {
        return Ok((directory, opened));
    }
    match peers.return_to_cluster(&mut directory, &opened, &members).await? {
        Return::AsItIs => Ok((directory, opened)),
        Return::AsAnother => {
            drop(opened);
            let directory = peers.become_another(directory, &members).await?;
            Ok((directory, stores().await?))
        }
    }
}

fn check_members(
    settings: &LedgerSettings,
    directory: &NodeDirectory,
    stores: &Stores,
    has_peers: bool,
) -> Result<BTreeMap<u64, Option<MemberRecord>>, ServeError> {
    check_not_interrupted(directory, stores).map_err(start_error)?;
    let members = stored_members(stores).map_err(start_error)?;
    membership::check_members(directory, &members, settings.peers.bootstrap, has_peers)?;
    Ok(members)
}

async fn open_stores(settings: &LedgerSettings, path: &Path) -> Result<Stores, ServeError> {
    let options = RedbOptions {
        state_cache_bytes: settings.state_cache_bytes,
        older_format: OlderFormat::Migrate,
        ..RedbOptions::default()
    };
    let path = path.to_owned();
    blocking(move || {
        let stores = EmbeddedStores::open(&path, options).map_err(start_error)?;
        Ok(Stores { log: stores.log, state: stores.state })
    })
    .await
}

/// Waits for disks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(start_error)?
}

/// Whether an address is reachable from this machine only.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback() || address.ip() == Ipv4Addr::LOCALHOST
}
