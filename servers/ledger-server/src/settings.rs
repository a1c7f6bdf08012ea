//! The settings of a ledger server: one table for flags, variables, the file and the documentation.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ledger_node::{Options, OptionsError};
use service_kit::admission::AdmissionLimits;
use service_kit::configuration::{
    Alias, ConfigurationError, ConfigurationErrors, Kind, Resolved, Resolver, Setting, TimeUnit,
};
use service_kit::listener::LimitError;
use service_kit::logs::LogSettings;
use service_kit::service_settings::{self, SERVICE_SETTINGS, TlsSettingsError};
use service_kit::tls::TlsFiles;
use service_kit::{AuthState, DrainSettings, ListenerLimits, UnsafeBind, check_bind};

use crate::peer_settings::{PEER_SETTINGS, PeerSettings};

/// Name of the server in variables (`STRONGROOM__LEDGER__…`) and in the file (`[ledger]`).
pub const SERVER_NAME: &str = "ledger";

/// Start of the variables of InferaDB Ledger that are understood too.
pub const FOREIGN_PREFIX: &str = "INFERADB__LEDGER__";

const MILLISECONDS: Kind = Kind::Duration { bare: TimeUnit::Milliseconds };
const SECONDS: Kind = Kind::Duration { bare: TimeUnit::Seconds };

/// The rows of the ledger itself. [`table`] has those that every server shares as well.
pub static LEDGER_SETTINGS: &[Setting] = &[
    Setting::new("listen", Kind::Address, "Address of the gRPC API; port 0 takes a free one.")
        .or("127.0.0.1:50051")
        .also(&[Alias::new("INFERADB__LEDGER__LISTEN_ADDR")]),
    Setting::new(
        "data",
        Kind::Path,
        "Directory of the ledger's files, made when missing; unset: a temporary one that is gone after the end.",
    )
    .also(&[Alias::new("INFERADB__LEDGER__DATA_DIR")]),
    Setting::new("metrics", Kind::Address, "Address of the probes and of Prometheus' /metrics.")
        .or("127.0.0.1:9090")
        .also(&[Alias::new("INFERADB__LEDGER__METRICS_ADDR")]),
    Setting::new(
        "insecure_metrics",
        Kind::Switch,
        "Allow probes and metrics, which have neither TLS nor credentials, on an address that others can reach.",
    )
    .or("false"),
    Setting::new("batch_size", Kind::Count { min: 1, max: 65_536 }, "Most transactions in one log entry.")
        .or("4096")
        .also(&[Alias::new("INFERADB__LEDGER__BATCH_MAX_SIZE")]),
    Setting::new(
        "batch_delay",
        MILLISECONDS,
        "How long a batch waits to fill; 0: take all that is queued, at once.",
    )
    .or("0ms")
    .also(&[Alias::counted_in("INFERADB__LEDGER__BATCH_MAX_DELAY_MS", TimeUnit::Milliseconds)]),
    Setting::new(
        "concurrent",
        Kind::Count { min: 1, max: 1_000_000 },
        "Requests worked on at once; more are refused with a time to retry after. Calls on a stream do not count: see \
         `streams`.",
    )
    .or("1024")
    .also(&[Alias::new("INFERADB__LEDGER__REQUESTS_MAX_CONCURRENT")]),
    Setting::new("timeout", SECONDS, "Time for one request; a client's own shorter deadline wins.")
        .or("30s")
        .also(&[Alias::counted_in("INFERADB__LEDGER__REQUESTS_TIMEOUT_SECS", TimeUnit::Seconds)]),
    Setting::new(
        "queue_transactions",
        Kind::Count { min: 1, max: 1_000_000 },
        "Most transactions that wait for the log; more are refused with a time to retry after.",
    )
    .or("16384"),
    Setting::new("queue_bytes", Kind::Bytes, "Most bytes of transactions that wait for the log.").or("64MiB"),
    Setting::new(
        "flush_interval",
        MILLISECONDS,
        "How often applied state is written to the state store; as much of the log is replayed after a crash.",
    )
    .or("5s"),
    Setting::new("flush_bytes", Kind::Bytes, "Applied but unwritten bytes that start such a write early.")
        .or("64MiB"),
    Setting::new(
        "overlay_bytes",
        Kind::Bytes,
        "Applied but unwritten bytes at which applying waits for the state store.",
    )
    .or("256MiB"),
    Setting::new("state_cache", Kind::Bytes, "Page cache of the state store: the one cache in front of random reads.")
        .or("256MiB"),
    Setting::new("gc_interval", SECONDS, "How often expired entities are looked for, at most 60s.").or("60s"),
    Setting::new(
        "streams",
        Kind::Count { min: 1, max: 100_000 },
        "Watches, streams of calls, backups, checks and changes of members under way at once; more are refused with a \
         time to retry after. A stream works on at most 1024 calls at once, then it reads no more; a client opens one for \
         each of its connections.",
    )
    .or("256"),
    Setting::new(
        "snapshot_every",
        SECONDS,
        "How often a snapshot is written to DATA/snapshots when anything changed; 0: only on demand.",
    )
    .or("1h"),
    Setting::new(
        "snapshot_keep",
        Kind::Count { min: 1, max: 1_000 },
        "Newest snapshots that are kept; older ones are removed after each new one.",
    )
    .or("3"),
];

/// Every setting of a ledger server.
pub fn table() -> impl Iterator<Item = &'static Setting> + Clone {
    LEDGER_SETTINGS.iter().chain(PEER_SETTINGS).chain(SERVICE_SETTINGS)
}

/// The checked settings of one ledger server.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// Address of the gRPC API.
    pub listen: SocketAddr,
    /// Directory of the ledger's files; `None` = a temporary one.
    pub data: Option<PathBuf>,
    /// Address of probes and metrics.
    pub metrics: SocketAddr,
    /// The node among others.
    pub peers: PeerSettings,
    /// How the engine works.
    pub engine: Options,
    /// Page cache of the state store, in bytes.
    pub state_cache_bytes: usize,
    /// Limits of the listener.
    pub limits: ListenerLimits,
    /// Limits of the work.
    pub admission: AdmissionLimits,
    /// Certificate, key and client authorities.
    pub tls: Option<TlsFiles>,
    /// Whether calls need credentials.
    pub auth: AuthState,
    /// Form and target of log lines.
    pub logs: LogSettings,
    /// Times of the drain.
    pub drain: DrainSettings,
}

/// The settings do not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Some do not resolve.
    #[error(transparent)]
    Unresolved(#[from] ConfigurationErrors),
    /// One does not read as what it must be.
    #[error(transparent)]
    Setting(#[from] ConfigurationError),
    /// A variable of InferaDB Ledger that has no counterpart here.
    #[error("{variable} is set, but there is no such setting; unset it")]
    ForeignVariable {
        /// The variable.
        variable: String,
    },
    /// Certificates for peers are given in part, or together with a promise to need none.
    #[error(
        "peers know each other by --peer-tls-cert, --peer-tls-key and --peer-ca, all three; or, on loopback, by \
         --peer-insecure alone"
    )]
    PeerTrust,
    /// Probes and metrics would be open to others.
    #[error(
        "refusing to serve metrics on {address}, which others can reach: probes and metrics have neither TLS nor credentials; use a loopback address, or accept that with --insecure-metrics"
    )]
    MetricsExposed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The TLS files.
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
    /// The engine's options.
    #[error(transparent)]
    Engine(#[from] OptionsError),
    /// The listener's limits.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// An address that needs more protection.
    #[error(transparent)]
    UnsafeBind(#[from] UnsafeBind),
}

/// Resolves and checks the settings from flags (names without dashes), the environment and a file.
pub fn resolve(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    file: Option<&Path>,
) -> Result<(Resolved, LedgerSettings), SettingsError> {
    let environment: Vec<_> = environment.into_iter().collect();
    refuse_unknown_foreign(environment.iter().map(|(name, _)| name))?;
    let resolver = Resolver::new(SERVER_NAME, table()).flags(flags).environment(environment).file(file);
    let resolved = resolver.resolve()?;
    let settings = LedgerSettings::read(&resolved)?;
    Ok((resolved, settings))
}

/// Other programs' variables are none of our business, but these were meant for a ledger: ignoring one would run a
/// single node where a cluster was wanted.
fn refuse_unknown_foreign<'a>(names: impl Iterator<Item = &'a OsString>) -> Result<(), SettingsError> {
    let known = |name: &str| table().flat_map(|setting| setting.aliases).any(|alias| alias.variable == name);
    let foreign = |name: &'a OsString| name.to_str().filter(|name| name.starts_with(FOREIGN_PREFIX));
    match names.filter_map(foreign).find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(SettingsError::ForeignVariable { variable: name.to_owned() }),
    }
}

impl LedgerSettings {
    /// Reads resolved settings of [`table`] and checks them against each other.
    pub fn read(resolved: &Resolved) -> Result<Self, SettingsError> {
        let listen = resolved.address("listen")?;
        let auth = service_settings::auth_state(resolved)?;
        let limits = service_settings::listener_limits(resolved)?;
        limits.validate()?;
        check_bind(listen, service_settings::tls_state(resolved)?, auth)?;
        let metrics = resolved.address("metrics")?;
        if !metrics.ip().to_canonical().is_loopback() && !resolved.switch("insecure_metrics")? {
            return Err(SettingsError::MetricsExposed { address: metrics });
        }
        Ok(Self {
            peers: PeerSettings::read(resolved, listen)?,
            listen,
            data: resolved.optional_path("data")?,
            metrics,
            engine: engine_options(resolved)?,
            state_cache_bytes: in_memory(resolved.bytes("state_cache")?),
            limits,
            admission: AdmissionLimits {
                streams_max: in_memory(resolved.count("streams")?),
                ..service_settings::admission_limits(resolved)?
            },
            tls: service_settings::tls_files(resolved)?,
            auth,
            logs: service_settings::log_settings(resolved)?,
            drain: service_settings::drain_settings(resolved, listen)?,
        })
    }
}

fn engine_options(resolved: &Resolved) -> Result<Options, SettingsError> {
    let count = |key| resolved.count(key).map(in_memory);
    let bytes = |key| resolved.bytes(key).map(in_memory);
    let options = Options {
        batch_size: count("batch_size")?,
        batch_delay: resolved.duration("batch_delay")?,
        queue_transactions_max: count("queue_transactions")?,
        queue_bytes_max: bytes("queue_bytes")?,
        flush_interval: resolved.duration("flush_interval")?,
        flush_bytes: bytes("flush_bytes")?,
        overlay_bytes_max: bytes("overlay_bytes")?,
        gc_interval: resolved.duration("gc_interval")?,
        snapshot_every: resolved.duration("snapshot_every")?,
        snapshot_keep: count("snapshot_keep")?,
        ..Options::default()
    };
    options.validate()?;
    Ok(options)
}

fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
