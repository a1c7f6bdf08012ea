//! All protocols together, on listeners of their own, until they are asked to stop.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ratelimit_core::{AdHoc, HashSecret, TableError};
use ratelimit_rules::{Engine, StoreEngine};
use service_kit::listener::ListenError;
use service_kit::metrics::MetricsHandle;
use service_kit::tls::{Protocol, TlsError};
use service_kit::{Listener, ListenerLimits, Readiness, ServingThreads};
use storage_adapters::redb::rates::RedbRateError;
use tower_layers::rate_limit::{Clock, SystemClock};

use crate::durable_store::{DurableStore, WallClock};
use crate::http::HttpServer;
use crate::limit_service::LimitService;
use crate::resp::{RespLimits, RespServer};
use crate::rls::{RlsServer, RlsServerError, RlsService};
use crate::rule_engine::RuleEngine;
use crate::rule_files::{RuleFiles, RuleWatch, RulesError, Seen, warn_of_idle};
use crate::rule_metrics::RuleMetrics;
use crate::settings::{Addresses, EngineChoice, RateLimitSettings};

/// What happens when a port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenPort {
    /// The start fails and names the flag.
    Refuse,
    /// Another one is taken.
    TakeFree,
}

/// The servers cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServersError {
    /// An address is taken or not this machine's.
    #[error("{source}: free it, or choose another with --{flag}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// Why.
        #[source]
        source: ListenError,
    },
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The file of the counters.
    #[error("{0} (--engine)")]
    Counters(#[from] RedbRateError),
    /// There is no table for the keys of `CL.THROTTLE`.
    #[error("{0} (--keys)")]
    Table(#[from] TableError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system has no randomness for the hashing of keys.
    #[error("the system has no randomness: {0}")]
    Randomness(String),
    /// The operating system has no more threads, or delivers no signals.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
    /// The services cannot be described.
    #[error(transparent)]
    Rls(#[from] RlsServerError),
}

/// The three servers on one engine, bound and not yet serving.
pub struct RateLimitServers {
    rls: (RlsServer, Listener),
    http: (HttpServer, Listener),
    resp: (RespServer, Listener),
    limits: LimitService,
    watch: RuleWatch,
    metrics: RuleMetrics,
    threads: ServingThreads,
}

impl RateLimitServers {
    /// Reads the rules, then binds all addresses. Connections are served by `threads`, at least one. The rules follow their
    /// files, and are read anew on SIGHUP: a file that cannot be used is logged, and changes nothing.
    ///
    /// # Errors
    /// [`ServersError`]; nothing listens then.
    pub async fn bind(
        settings: &RateLimitSettings,
        files: RuleFiles,
        taken: TakenPort,
        threads: usize,
        metrics: &MetricsHandle,
    ) -> Result<Self, ServersError> {
        let Opened { engine, clock, files, seen } = Opened::of(settings, files)?;
        let limits = LimitService::new(Arc::new(engine), clock.clone(), settings.headers);
        let limits = limits.counting_from(files.epoch());
        let keys = Arc::new(AdHoc::new(settings.size, secret()?)?);

        let threads = ServingThreads::start("rate-limits", threads)?;
        let ports = Ports { settings, taken, metrics, threads: &threads };
        let [rls, http, resp] = settings.addresses.named();
        let resp_limits = RespLimits::default();
        // Pools connect before they have something to ask.
        let patient = ListenerLimits { first_bytes_timeout: resp_limits.idle, ..settings.limits.clone() };
        let rls = ports.bind(rls, Protocol::Http2, &settings.limits).await?;
        let http = ports.bind(http, Protocol::Http1, &settings.limits).await?;
        let resp = ports.bind(resp, Protocol::Http1, &patient).await?;

        let access = settings.access.clone();
        let rls_service = RlsService::new(limits.clone(), access.clone());
        let rls_server = RlsServer::new(rls_service, settings.limits.clone(), settings.admission.clone());
        let http_server = HttpServer::new(
            limits.clone(),
            access.clone(),
            settings.client_ip.clone(),
            settings.limits.clone(),
        );
        let resp_server = RespServer::new(Arc::clone(&keys), access, clock, resp_limits);
        Ok(Self {
            rls: (rls_server, rls),
            http: (http_server, http),
            resp: (resp_server, resp),
            watch: RuleWatch::new(files, seen, limits.clone())?,
            limits: limits.clone(),
            metrics: RuleMetrics::new(limits, keys, settings.size.keys, metrics),
            threads,
        })
    }

    /// Where they listen, with the ports that were chosen.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            rls: self.rls.1.local_address(),
            http: self.http.1.local_address(),
            resp: self.resp.1.local_address(),
        }
    }

    /// `http` or `https`, as all of them speak.
    pub fn scheme(&self) -> &'static str {
        if self.http.1.url().starts_with("https") { "https" } else { "http" }
    }

    /// Serves until `stop` completes, then finishes the requests under way. `grpc.health.v1` follows `readiness`.
    ///
    /// # Errors
    /// Those of the first moment, and the end of the watch over the rules.
    pub async fn serve<S: Future<Output = ()>>(
        self,
        readiness: Readiness,
        stop: impl Fn() -> S,
    ) -> Result<(), ServersError> {
        let Self { rls, http, resp, limits, watch, metrics, threads } = self;
        let serving = async {
            let rls = rls.0.serve(rls.1, readiness, stop());
            let (rls, (), ()) = tokio::join!(rls, http.0.serve(http.1, stop()), resp.0.serve(resp.1, stop()));
            Ok(rls?)
        };
        let served = tokio::select! {
            served = serving => served,
            watched = watch.run() => match watched? {},
            never = metrics.run() => match never {},
            never = limits.tend() => match never {},
        };
        limits.engine().close(limits.now()).await;
        drop(threads);
        served
    }
}

/// The engine, its clock, and the rules with which it was opened.
struct Opened {
    engine: RuleEngine,
    clock: Arc<dyn Clock>,
    files: RuleFiles,
    seen: Seen,
}

impl Opened {
    fn of(settings: &RateLimitSettings, files: RuleFiles) -> Result<Self, ServersError> {
        let EngineChoice::Redb(path) = &settings.engine else {
            let (clock, files) = (SystemClock::new(), files.counting_from_now());
            let (read, seen) = files.read_seen()?;
            warn_of_idle(&read);
            let engine = Engine::new(read.rules, settings.size, secret()?);
            let engine = engine.map_err(|error| RulesError::at(error, &read.lines))?;
            return Ok(Self { engine: engine.into(), clock: Arc::new(clock), files, seen });
        };
        let clock = WallClock::of(path)?;
        let files = files.counting_from(clock.epoch());
        let (read, seen) = files.read_seen()?;
        warn_of_idle(&read);
        let refused = |error| RulesError::at(error, &read.lines);
        let policies = StoreEngine::<DurableStore>::policies(&read.rules).map_err(refused)?;
        let store = DurableStore::open(path, policies, &clock, settings.size.keys)?;
        // One process has the file: nobody shares its limits.
        let engine = StoreEngine::new(store, read.rules, NonZeroU32::MIN, settings.size, secret()?);
        let engine = engine.map_err(refused)?;
        Ok(Self { engine: engine.into(), clock: Arc::new(clock), files, seen })
    }
}

/// How the ports are bound.
struct Ports<'s> {
    settings: &'s RateLimitSettings,
    taken: TakenPort,
    metrics: &'s MetricsHandle,
    threads: &'s ServingThreads,
}

impl Ports<'_> {
    async fn bind(
        &self,
        (flag, address): (&'static str, SocketAddr),
        protocol: Protocol,
        limits: &ListenerLimits,
    ) -> Result<Listener, ServersError> {
        let listener = match Listener::bind(flag, address, protocol, None, limits).await {
            Err(ListenError::Bind { source, .. })
                if self.taken == TakenPort::TakeFree && source.kind() == io::ErrorKind::AddrInUse =>
            {
                let free = SocketAddr::new(address.ip(), 0);
                Listener::bind(flag, free, protocol, None, limits).await
            }
            bound => bound,
        };
        let listener = listener.map_err(|source| ServersError::Listen { flag, source })?;
        let listener = listener.spread_over(self.threads);
        let Some(files) = self.settings.tls.clone() else { return Ok(listener) };
        let tls = files.follow(flag, protocol)?;
        self.metrics.watch_certificate(flag, tls.certificate_end());
        Ok(listener.following(Arc::new(tls)))
    }
}

fn secret() -> Result<HashSecret, ServersError> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| ServersError::Randomness(error.to_string()))?;
    Ok(HashSecret(secret))
}
