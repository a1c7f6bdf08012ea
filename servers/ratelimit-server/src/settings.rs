//! The settings of a rate limit server: one table for flags, variables, the file and the documentation.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ratelimit_core::TableSize;
use service_kit::admission::AdmissionLimits;
use service_kit::configuration::{
    ConfigurationError, ConfigurationErrors, Kind, Resolved, Resolver, Setting, TimeUnit,
};
use service_kit::listener::LimitError;
use service_kit::logs::LogSettings;
use service_kit::service_settings::{self, SERVICE_SETTINGS, TlsSettingsError};
use service_kit::tls::TlsFiles;
use service_kit::{AuthState, DrainSettings, ListenerLimits, Secret, UnsafeBind, check_bind};
use tower_layers::client_ip::{ClientIpPolicy, ForwardingHeader, TrustedNetworks};
use tower_layers::headers::HeaderStyle;

use crate::access::{Access, AccessToken};

/// Name of the server in variables (`STRONGROOM__RATELIMIT__…`) and in the file (`[ratelimit]`).
pub const SERVER_NAME: &str = "ratelimit";

/// Keys of a table: a hundred million take 2.3 GB.
pub const KEYS_MAX: u64 = 100_000_000;
/// Room for keys, when nothing else is said.
pub const KEYS_DEFAULT: u64 = 100_000;

/// The rows of the rate limit server itself. [`table`] has those that every server shares as well.
pub static RATELIMIT_SETTINGS: &[Setting] = &[
    Setting::new(
        "rules",
        Kind::List,
        "Files with rules, YAML or TOML; the flag may repeat. Without any, only CL.THROTTLE limits something.",
    ),
    Setting::new("rls_listen", Kind::Address, "Address of Envoy's protocol (gRPC); port 0 takes a free one.")
        .or("127.0.0.1:8081"),
    Setting::new("http_listen", Kind::Address, "Address of the HTTP API; port 0 takes a free one.")
        .or("127.0.0.1:8080"),
    Setting::new("resp_listen", Kind::Address, "Address of Redis' protocol; port 0 takes a free one.")
        .or("127.0.0.1:6380"),
    Setting::new("metrics", Kind::Address, "Address of the probes and of Prometheus' /metrics.")
        .or("127.0.0.1:9091"),
    Setting::new(
        "insecure_metrics",
        Kind::Switch,
        "Allow probes and metrics, which have neither TLS nor credentials, on an address that others can reach.",
    )
    .or("false"),
    Setting::new(
        "token",
        Kind::Secret,
        "Token that checks need: a bearer token, with AUTH over Redis' protocol. Unset: checks are open to whoever reaches the \
         port.",
    ),
    Setting::new(
        "admin_token",
        Kind::Secret,
        "Token that refunds, resets and lists need; good for checks too. Unset: nobody may.",
    ),
    Setting::new(
        "engine",
        Kind::Text,
        "Where the counters of rules are kept: `memory`, or `redb:FILE`, a file that a restart takes up. Those of CL.THROTTLE are \
         in memory.",
    )
    .or("memory"),
    Setting::new(
        "keys",
        Kind::Count { min: 1, max: KEYS_MAX },
        "Live keys for which each rule has room, and CL.THROTTLE as well: 23 bytes each, taken when they are used, logs and \
         permits more. More keys are counted together and may be denied early. With `redb:` all rules together have this \
         room, about 80 bytes for each key.",
    )
    .or("100000"),
    Setting::new(
        "trusted_proxies",
        Kind::List,
        "Networks of proxies whose header about the client's address is believed; unset: the address of the connection \
         counts.",
    ),
    Setting::new(
        "forwarded_header",
        Kind::Choice(&["x-forwarded-for", "forwarded"]),
        "The one header that those proxies write.",
    )
    .or("x-forwarded-for"),
    Setting::new(
        "headers",
        Kind::Choice(&["none", "draft10", "draft03", "github", "draft10+draft03", "draft10+github"]),
        "Headers that tell limits to clients.",
    )
    .or("draft10+draft03"),
    Setting::new(
        "concurrent",
        Kind::Count { min: 1, max: 1_000_000 },
        "Calls of Envoy's protocol worked on at once; more are refused with a time to retry after.",
    )
    .or("4096"),
    Setting::new(
        "timeout",
        Kind::Duration { bare: TimeUnit::Seconds },
        "Time for one call of Envoy's protocol; a client's own shorter deadline wins.",
    )
    .or("5s"),
];

/// Every setting of a rate limit server.
pub fn table() -> impl Iterator<Item = &'static Setting> + Clone {
    RATELIMIT_SETTINGS.iter().chain(SERVICE_SETTINGS)
}

/// Where the counters of rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// In memory.
    Memory,
    /// In this file.
    Redb(PathBuf),
}

impl EngineChoice {
    /// Reads `memory` or `redb:FILE`.
    pub fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "memory" => Some(Self::Memory),
            Some(("redb", file)) if !file.is_empty() => Some(Self::Redb(PathBuf::from(file))),
            _ => None,
        }
    }
}

/// The checked settings of one rate limit server.
#[derive(Debug, Clone)]
pub struct RateLimitSettings {
    /// Files with rules.
    pub rules: Vec<PathBuf>,
    /// Where it listens.
    pub addresses: Addresses,
    /// Address of probes and metrics.
    pub metrics: SocketAddr,
    /// Who may ask, and who may change things.
    pub access: Access,
    /// Where the counters of rules are.
    pub engine: EngineChoice,
    /// Room for keys: of each rule, and of CL.THROTTLE.
    pub size: TableSize,
    /// Where a client's address comes from.
    pub client_ip: ClientIpPolicy,
    /// How limits are told in headers.
    pub headers: HeaderStyle,
    /// Limits of the listeners.
    pub limits: ListenerLimits,
    /// Limits of the work.
    pub admission: AdmissionLimits,
    /// Certificate, key and client authorities.
    pub tls: Option<TlsFiles>,
    /// Form and target of log lines.
    pub logs: LogSettings,
    /// Times of the drain.
    pub drain: DrainSettings,
}

/// One address for each protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Envoy's.
    pub rls: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Redis'.
    pub resp: SocketAddr,
}

impl Addresses {
    /// The addresses with their flags.
    pub fn named(&self) -> [(&'static str, SocketAddr); 3] {
        [("rls-listen", self.rls), ("http-listen", self.http), ("resp-listen", self.resp)]
    }
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
    /// Probes and metrics would be open to others.
    #[error(
        "refusing to serve metrics on {address}, which others can reach: probes and metrics have neither TLS nor \
         credentials; use a loopback address, or accept that with --insecure-metrics"
    )]
    MetricsExposed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Checks would be open to others.
    #[error(
        "refusing to answer checks on {address}, which others can reach, without a token: give --token-file, use a loopback \
         address, or accept anonymous checks with --insecure-no-auth"
    )]
    WithoutToken {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The TLS files.
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
    /// The listeners' limits.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// An address that needs more protection.
    #[error(transparent)]
    UnsafeBind(#[from] UnsafeBind),
}

/// Resolves and checks the settings from flags (names without dashes), the environment and a file.
///
/// # Errors
/// [`SettingsError`].
pub fn resolve(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    file: Option<&Path>,
) -> Result<(Resolved, RateLimitSettings), SettingsError> {
    let resolver = Resolver::new(SERVER_NAME, table()).flags(flags).environment(environment).file(file);
    let resolved = resolver.resolve()?;
    let settings = RateLimitSettings::read(&resolved)?;
    Ok((resolved, settings))
}

impl RateLimitSettings {
    /// Reads resolved settings of [`table`] and checks them against each other.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn read(resolved: &Resolved) -> Result<Self, SettingsError> {
        let address = |key| resolved.address(key);
        let addresses = Addresses {
            rls: address("rls_listen")?,
            http: address("http_listen")?,
            resp: address("resp_listen")?,
        };
        let access = access(resolved)?;
        check_addresses(resolved, &addresses, &access)?;
        let metrics = resolved.address("metrics")?;
        if !metrics.ip().to_canonical().is_loopback() && !resolved.switch("insecure_metrics")? {
            return Err(SettingsError::MetricsExposed { address: metrics });
        }
        let limits = service_settings::listener_limits(resolved)?;
        limits.validate()?;
        let style: Result<HeaderStyle, _> = resolved.text("headers")?.parse();
        // The one that others are most likely to reach decides how long load balancers get.
        let exposed = addresses.named().map(|(_, address)| address);
        let exposed = exposed.into_iter().find(|address| !address.ip().to_canonical().is_loopback());
        Ok(Self {
            rules: resolved.list("rules")?.into_iter().map(PathBuf::from).collect(),
            addresses,
            metrics,
            access,
            engine: EngineChoice::read(resolved.text("engine")?)
                .ok_or_else(|| resolved.refusal("engine", "memory, or redb: and the path of a file"))?,
            size: TableSize::for_keys(resolved.count("keys")?),
            client_ip: client_ip(resolved)?,
            headers: style.map_err(|error| resolved.refusal("headers", error.to_string()))?,
            limits,
            admission: service_settings::admission_limits(resolved)?,
            tls: service_settings::tls_files(resolved)?,
            logs: service_settings::log_settings(resolved)?,
            drain: service_settings::drain_settings(resolved, exposed.unwrap_or(addresses.rls))?,
        })
    }
}

/// A list is good for checks too, so the tokens may be the same; an empty one would let in whoever shows nothing.
fn access(resolved: &Resolved) -> Result<Access, SettingsError> {
    let token = |key| -> Result<Option<AccessToken>, SettingsError> {
        let Some(secret) = resolved.optional_secret(key)? else { return Ok(None) };
        let token = secret.expose().trim();
        if token.is_empty() {
            return Err(resolved.refusal(key, "a token that is not empty").into());
        }
        Ok(Some(AccessToken::new(Secret::new(token.to_owned()))))
    };
    Ok(Access { check: token("token")?, admin: token("admin_token")? })
}

fn check_addresses(resolved: &Resolved, addresses: &Addresses, access: &Access) -> Result<(), SettingsError> {
    let tls = service_settings::tls_state(resolved)?;
    let waived = service_settings::auth_state(resolved)? == AuthState::WaivedByFlag;
    for (_, address) in addresses.named() {
        // TLS is its first question; ours about tokens has a flag of this server in it.
        check_bind(address, tls, AuthState::WaivedByFlag)?;
        if !address.ip().to_canonical().is_loopback() && access.is_open() && !waived {
            return Err(SettingsError::WithoutToken { address });
        }
    }
    Ok(())
}

fn client_ip(resolved: &Resolved) -> Result<ClientIpPolicy, SettingsError> {
    let proxies = resolved.list("trusted_proxies")?;
    if proxies.is_empty() {
        return Ok(ClientIpPolicy::peer_only());
    }
    let trusted: Result<TrustedNetworks, _> = proxies.join(",").parse();
    let trusted = trusted.map_err(|error| resolved.refusal("trusted_proxies", error.to_string()))?;
    let header = match resolved.text("forwarded_header")? {
        "forwarded" => ForwardingHeader::Forwarded,
        _ => ForwardingHeader::XForwardedFor,
    };
    Ok(ClientIpPolicy::behind(header, trusted))
}
