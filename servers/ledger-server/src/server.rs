//! The server: all services behind the access layer, on a listener with limits.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::names::VaultRef;
use ledger_node::Ledger;
use service_kit::admission::{AdmissionLayer, AdmissionLimits};
use service_kit::{Listener, ListenerLimits, Phase, Readiness, serve_grpc};
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Layer;

use crate::access::{
    AccessLayer, AccessService, Authentication, CALLS, Reflection, STREAM_BACKUP, WATCH_BLOCKS,
};
use crate::admin_service::LedgerAdminService;
use crate::call_metrics::{CallMetricsLayer, CallMetricsService};
use crate::call_stream::LedgerCallService;
use crate::cluster_calls::NodeFinder;
use crate::dispatch::{Administration, Calls, Dispatch, Reads, Writes};
use crate::engine_metrics::EngineMetrics;
use crate::leader_hint::{LeaderHint, LeaderHintLayer, LeaderHinted};
use crate::read_service::LedgerReadService;
use crate::tokens::TokenRegistry;
use crate::transport_errors::{TransportErrors, TransportErrorsLayer};
use crate::watch_stream::Closing;
use crate::wire::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::write_gate::WriteGate;
use crate::write_service::LedgerWriteService;

/// How often the engine's numbers go to the metrics recorder: far below any scrape interval.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Fenced vaults that the probe names; it counts the others.
const FENCED_NAMED_MAX: usize = 8;

/// Calls that may take minutes: no timeout of a request counts for them. The engine runs one of them at a time.
const LONG_CALLS: [&str; 2] =
    ["/strongroom.ledger.v1.AdminService/CheckIntegrity", "/strongroom.ledger.v1.AdminService/RecoverVault"];
/// Calls that wait for a node to catch up, with a limit of their own.
const MEMBERSHIP_CALLS: [&str; 4] = [
    "/strongroom.ledger.v1.AdminService/JoinCluster",
    "/strongroom.ledger.v1.AdminService/LeaveCluster",
    "/strongroom.ledger.v1.AdminService/RemoveNode",
    "/strongroom.ledger.v1.AdminService/TransferLeadership",
];

/// The services of a ledger behind metrics, access and the API's own words for the transport's refusals: a tower
/// service for any HTTP/2 server, whatever its request body.
pub type LedgerServices = CallMetricsService<LeaderHinted<AccessService<TransportErrors<Dispatch>>>>;

/// The overall status of `grpc.health.v1`, and one for each service.
const HEALTH_NAMES: [&str; 5] = [
    "",
    <Reads as NamedService>::NAME,
    <Writes as NamedService>::NAME,
    <Calls as NamedService>::NAME,
    <Administration as NamedService>::NAME,
];

/// How a server treats its callers.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// How callers are authenticated.
    pub authentication: Authentication,
    /// Limits of the connections; the same that the listener was bound with.
    pub limits: ListenerLimits,
    /// Limits of the work.
    pub admission: AdmissionLimits,
}

/// A server could not be put together or has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The protocol's descriptors were refused: a defect of the build.
    #[error("cannot set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The services of one ledger.
#[derive(Debug, Clone)]
pub struct LedgerServer {
    ledger: Ledger,
    tokens: Arc<TokenRegistry>,
    settings: ServerSettings,
    health: HealthReporter,
    gate: WriteGate,
    closing: watch::Sender<bool>,
    leader_hint: LeaderHint,
    finder: Option<Arc<dyn NodeFinder>>,
}

impl LedgerServer {
    /// A server over an open ledger. `tokens` are those that administrators manage, also when nobody has to show one.
    pub fn new(ledger: Ledger, tokens: Arc<TokenRegistry>, settings: ServerSettings) -> Self {
        let closing = watch::Sender::new(false);
        Self {
            ledger,
            tokens,
            settings,
            health: HealthReporter::new(),
            gate: WriteGate::default(),
            closing,
            leader_hint: LeaderHint::default(),
            finder: None,
        }
    }

    /// The same server, which can ask a node at its peer address who it is.
    #[must_use]
    pub fn finding_nodes_with(self, finder: Arc<dyn NodeFinder>) -> Self {
        Self { finder: Some(finder), ..self }
    }

    /// The switch that makes the server read-only, for whoever watches the disk.
    pub fn write_gate(&self) -> WriteGate {
        self.gate.clone()
    }

    /// The ledger's own three services behind the access layer, to be mounted beside an embedder's services.
    pub fn services(&self) -> LedgerServices {
        self.guarded(Routes::default(), Reflection::NeedsCredential)
    }

    /// All services: the ledger's, `grpc.health.v1`, and reflection in both versions.
    pub fn all_services(&self, reflection: Reflection) -> Result<LedgerServices, ServerError> {
        let reflected = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(ledger_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let health = tonic_health::server::HealthService::from_health_reporter(self.health.clone());
        let others = Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
            .add_service(reflected().build_v1()?)
            .add_service(reflected().build_v1alpha()?);
        Ok(self.guarded(others, reflection))
    }

    /// Serves until `stop` completes, then finishes the requests under way.
    ///
    /// `grpc.health.v1` follows `readiness`: serving while it is ready, not serving while it starts or drains.
    pub async fn serve(
        self,
        listener: Listener,
        readiness: Readiness,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let loopback = listener.local_address().ip().to_canonical().is_loopback();
        let reflection = if loopback { Reflection::Open } else { Reflection::NeedsCredential };
        let services = self.all_services(reflection)?;
        let mut admission = self.settings.admission.clone();
        admission.streaming_paths.extend([WATCH_BLOCKS, CALLS, STREAM_BACKUP].map(str::to_owned));
        admission.streaming_paths.extend(LONG_CALLS.map(str::to_owned));
        admission.streaming_paths.extend(MEMBERSHIP_CALLS.map(str::to_owned));
        let admission = AdmissionLayer::new(&admission);
        let closing = self.closing.clone();
        let stop = async move {
            stop.await;
            // Open streams would hold up the end.
            closing.send_replace(true);
        };
        self.report_health(readiness.phase()).await;
        let serving = serve_grpc(listener.accept(), &self.settings.limits, admission, services, stop);
        tokio::select! {
            () = serving => Ok(()),
            never = self.follow(readiness.clone()) => match never {},
            never = publish(&self.ledger, &readiness) => match never {},
            never = self.leader_hint.follow(self.ledger.cluster()) => match never {},
        }
    }

    fn guarded(&self, others: Routes, reflection: Reflection) -> LedgerServices {
        let reads = LedgerReadService::new(self.ledger.clone()).closing_with(Closing::by(&self.closing));
        let reads = Reads::new(reads)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        let writing = LedgerWriteService::new(self.ledger.clone(), self.gate.clone());
        let metrics = CallMetricsLayer::new();
        let calls = LedgerCallService::new(
            self.ledger.clone(),
            writing.clone(),
            &metrics,
            self.settings.admission.request_timeout,
            Closing::by(&self.closing),
        );
        let calls = Calls::new(calls)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        let writes = Writes::new(writing)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        let administration =
            LedgerAdminService::new(self.ledger.clone(), Arc::clone(&self.tokens), self.gate.clone())
                .finding_nodes_with(self.finder.clone())
                .closing_with(Closing::by(&self.closing));
        let administration = Administration::new(administration)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        let dispatch = Dispatch::new(reads, writes, calls, administration, others);
        let access = AccessLayer::new(self.settings.authentication.clone(), reflection);
        // The last layer is the outermost: metrics count what callers see.
        let guarded = access.layer(TransportErrorsLayer.layer(dispatch));
        let hinted = LeaderHintLayer::new(self.leader_hint.clone()).layer(guarded);
        metrics.layer(hinted)
    }

    /// Keeps `grpc.health.v1` in step with the phases.
    async fn follow(&self, readiness: Readiness) -> std::convert::Infallible {
        for phase in [Phase::Starting, Phase::Ready] {
            readiness.reached(phase).await;
            self.report_health(readiness.phase()).await;
        }
        tokio::select! {
            () = readiness.reached(Phase::Draining) => {}
            never = self.follow_membership() => match never {},
        }
        self.report_health(readiness.phase()).await;
        readiness.reached(Phase::ShuttingDown).await;
        // Ends the streams of those who watch: they would hold up the end of the server.
        let mut health = self.health.clone();
        for name in HEALTH_NAMES {
            health.clear_service_status(name).await;
        }
        std::future::pending().await
    }

    /// A node that was taken out of its cluster answers nothing any more: load balancers have to leave it.
    async fn follow_membership(&self) -> std::convert::Infallible {
        let cluster = self.ledger.cluster();
        let mut interval = tokio::time::interval(PUBLISH_INTERVAL);
        let mut was_removed = false;
        loop {
            interval.tick().await;
            let is_removed = cluster.status().is_removed;
            if is_removed != was_removed {
                was_removed = is_removed;
                self.report_health(if is_removed { Phase::Draining } else { Phase::Ready }).await;
            }
        }
    }

    async fn report_health(&self, phase: Phase) {
        let status = if phase == Phase::Ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            self.health.set_service_status(name, status).await;
        }
    }
}

async fn publish(ledger: &Ledger, readiness: &Readiness) -> std::convert::Infallible {
    const NOTICE: &str = "fenced";
    let metrics = EngineMetrics::new(ledger.clone());
    let mut interval = tokio::time::interval(PUBLISH_INTERVAL);
    loop {
        interval.tick().await;
        metrics.publish();
        match ledger.node_info().fenced_vault_count {
            0 => readiness.clear_notice(NOTICE),
            count => readiness.report_notice(NOTICE, fenced(&ledger.fenced_vaults(FENCED_NAMED_MAX), count)),
        }
    }
}

/// Which vaults are not served.
fn fenced(named: &[VaultRef], count: u64) -> String {
    let mut names: Vec<String> = named.iter().map(ToString::to_string).collect();
    let unnamed = count.saturating_sub(named.len() as u64);
    if unnamed > 0 {
        names.push(format!("{unnamed} more"));
    }
    format!("not served: {}. Recover them (`strongroom ledger recover`)", names.join(", "))
}
