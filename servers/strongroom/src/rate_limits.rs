//! A rate limit server put together: settings → rules → listeners → probes → drain. `dev` and `ratelimit serve` run this.

use std::path::PathBuf;

use ratelimit_server::access::AccessToken;
use ratelimit_server::rule_files::{RuleFiles, RulesError};
use ratelimit_server::settings::RateLimitSettings;
use ratelimit_server::{RateLimitServers, ServersError, TakenPort};
use service_kit::listener::ListenError;
use service_kit::metrics::MetricsHandle;
use service_kit::probes::Probes;
use service_kit::tls::Protocol;
use service_kit::traces::Traces;
use service_kit::{Drain, DrainOutcome, Listener, Phase, Readiness, ReadyLine, Secret, logs};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::compose::{TRACES_TIMEOUT, serving_threads, start_probes};
use crate::reachable::{reachable_address, reachable_url};

/// A rate limit server could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    /// The rules cannot be used.
    #[error(transparent)]
    Rules(RulesError),
    /// A protocol's server.
    #[error(transparent)]
    Servers(ServersError),
    /// The port of the probes.
    #[error("{0}: free it, or choose another with --metrics")]
    Metrics(ListenError),
    /// Another part did not start.
    #[error("{0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
    /// Time was up, or a second signal came, before everything was done.
    #[error("the server ended before everything was finished: {0}")]
    Unfinished(DrainOutcome),
}

impl From<ServersError> for RateLimitError {
    fn from(error: ServersError) -> Self {
        match error {
            ServersError::Rules(error) => Self::Rules(error),
            error => Self::Servers(error),
        }
    }
}

fn start_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RateLimitError {
    RateLimitError::Start(error.into())
}

/// Rate limits that a ledger's process serves too, for development.
#[derive(Debug, Clone)]
pub struct RateLimitsBeside {
    /// How.
    pub settings: RateLimitSettings,
    /// Which.
    pub files: RuleFiles,
}

impl RateLimitsBeside {
    /// Binds them, on ports that are free. Unless they have a token of their own, that of the file administers them.
    pub async fn bind(
        mut self,
        token_file: Option<PathBuf>,
        metrics: &MetricsHandle,
    ) -> Result<RateLimitServers, RateLimitError> {
        if let (None, Some(path)) = (&self.settings.access.admin, token_file) {
            let token = tokio::fs::read_to_string(&path).await.map_err(start_error)?;
            self.settings.access.admin = Some(AccessToken::new(Secret::new(token.trim().to_owned())));
        }
        Ok(RateLimitServers::bind(&self.settings, self.files, TakenPort::TakeFree, 1, metrics).await?)
    }
}

/// A server that is bound and ready.
pub struct Running {
    /// What runs where.
    pub ready: ReadyLine,
    servers: RateLimitServers,
    readiness: Readiness,
    drain: Drain,
    /// Dropped last: probes answer until everything else is done.
    stop_probes: oneshot::Sender<()>,
    probes: JoinHandle<()>,
}

/// Starts everything. Must run inside a tokio runtime.
pub async fn start(settings: RateLimitSettings) -> Result<Running, RateLimitError> {
    let traces = Traces::from_environment("strongroom-ratelimit", |name| std::env::var(name).ok())
        .map_err(start_error)?;
    logs::install(&settings.logs, traces.as_ref().map(Traces::layer)).map_err(start_error)?;
    let metrics = MetricsHandle::install().map_err(start_error)?;
    tokio::spawn(metrics.clone().upkeep());
    let readiness = Readiness::starting();
    let drain = Drain::new(settings.drain, readiness.clone());
    drain.listen_to_signals().map_err(start_error)?;
    if let Some(traces) = traces {
        drain.before_exit("traces", move || async move {
            if let Err(error) = traces.shutdown(TRACES_TIMEOUT).await {
                tracing::warn!(%error, "spans were lost");
            }
        });
    }
    let bound = Listener::bind("metrics", settings.metrics, Protocol::Http1, None, &settings.limits).await;
    let metrics_listener = bound.map_err(RateLimitError::Metrics)?;
    let files = RuleFiles::new(settings.rules.clone());
    let servers =
        RateLimitServers::bind(&settings, files, TakenPort::Refuse, serving_threads(), &metrics).await?;
    let mut ready = ReadyLine::new();
    ready.metrics_url = Some(reachable_url(&metrics_listener));
    tell(&mut ready, &servers);
    let probes = Probes { readiness: readiness.clone(), metrics };
    let (stop_probes, probes) = start_probes(probes, metrics_listener, settings.limits);
    readiness.advance(Phase::Ready);
    Ok(Running { ready, servers, readiness, drain, stop_probes, probes })
}

impl Running {
    /// Serves until a signal asks for the end, then drains.
    pub async fn serve(self) -> Result<(), RateLimitError> {
        let Self { ready: _, servers, readiness, drain, stop_probes, probes } = self;
        let serving = servers.serve(readiness, || drain.stop_accepting());
        let outcome = drain.supervise(serving).await?;
        drop(stop_probes);
        // The probes end by themselves within their own limit.
        let _ = probes.await;
        match outcome {
            DrainOutcome::Clean => Ok(()),
            other => Err(RateLimitError::Unfinished(other)),
        }
    }
}

/// Says where the servers are.
pub fn tell(ready: &mut ReadyLine, servers: &RateLimitServers) {
    let (addresses, scheme) = (servers.addresses(), servers.scheme());
    ready.rls_url = Some(format!("{scheme}://{}", reachable_address(addresses.rls)));
    ready.ratelimit_url = Some(format!("{scheme}://{}", reachable_address(addresses.http)));
    ready.resp_addr = Some(reachable_address(addresses.resp));
}

/// Where they are, for people.
pub fn facts(ready: &ReadyLine) -> Vec<(&'static str, String)> {
    let facts = [
        ("rate limits", ready.ratelimit_url.clone()),
        ("rate limits for Envoy", ready.rls_url.clone()),
        ("rate limits for Redis clients", ready.resp_addr.map(|address| address.to_string())),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
