//! The end that is called.

use std::net::SocketAddr;

use ledger_node::peers::{NodeName, PeerRefusal};
use ledger_proto::peer::v1::peer_service_server::{PeerService, PeerServiceServer};
use ledger_proto::peer::v1::{CallRequest, CallResponse};
use service_kit::admission::AdmissionLayer;
use service_kit::tls::{CertificateEnd, certificate_carries};
use service_kit::{Listener, PeerInfo, ServingThreads, serve_grpc};
use tonic::{Request, Response, Status};

use super::body_budget::BodyBudget;
use super::handler_slot::HandlerSlot;
use super::limits::MESSAGE_BYTES_MAX;
use super::{PeerLimits, Security, wire};

/// Lets a handler answer peers.
#[derive(Debug)]
pub struct PeerServer {
    listener: Listener,
    security: Security,
    limits: PeerLimits,
    handler: HandlerSlot,
}

impl PeerServer {
    pub(super) fn new(listener: Listener, security: Security, limits: PeerLimits) -> Self {
        Self { listener, security, limits, handler: HandlerSlot::new() }
    }

    /// Where peers reach this node, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// Where to put who answers. Until then, every request is refused as not ready.
    pub fn handler_slot(&self) -> HandlerSlot {
        self.handler.clone()
    }

    /// The end of the certificate's validity, for the gauge; `None` without certificates.
    pub fn certificate_end(&self) -> Option<CertificateEnd> {
        match &self.security {
            Security::Tls(followed) => Some(followed.certificate_end()),
            Security::InsecureLoopback => None,
        }
    }

    /// Spreads the peers' connections over `threads`, in turn; without it they stay on the runtime that opened the
    /// transport.
    #[must_use]
    pub fn spread_over(mut self, threads: &ServingThreads) -> Self {
        self.listener = self.listener.spread_over(threads);
        self
    }

    /// Answers peers until `stop` completes, then finishes the requests under way. Dropping the future closes the
    /// connections at once.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { listener, security, limits, handler } = self;
        let checks_names = matches!(security, Security::Tls(_));
        let service = PeerServiceServer::new(Answering { handler, checks_names })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let service = BodyBudget::new(service, limits.request_bytes_max);
        let admission = AdmissionLayer::new(&limits.admission);
        serve_grpc(listener.accept(), &limits.listener, admission, service, stop).await;
    }
}

/// The service: checks who sends, then lets the handler answer.
#[derive(Debug, Clone)]
struct Answering {
    handler: HandlerSlot,
    checks_names: bool,
}

#[tonic::async_trait]
impl PeerService for Answering {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        // The extensions keep the request's bytes counted until it is answered.
        let (_, extensions, message) = request.into_parts();
        let answer = match wire::request_from_wire(message) {
            Err(refusal) => Err(refusal),
            Ok(request) => match self.check_sender(extensions.get::<PeerInfo>(), &request.from.name) {
                Err(refusal) => Err(refusal),
                Ok(()) => self.handler.get().handle(request).await,
            },
        };
        Ok(Response::new(wire::answer_to_wire(answer)))
    }
}

impl Answering {
    /// The handshake has proved that the certificate is the authority's and the sender's; here, that it stands for the
    /// name in the request.
    fn check_sender(&self, peer: Option<&PeerInfo>, name: &NodeName) -> Result<(), PeerRefusal> {
        if !self.checks_names {
            return Ok(());
        }
        let certificate = peer.and_then(|peer| peer.certificates.first());
        if certificate.is_some_and(|certificate| certificate_carries(certificate, name.as_str())) {
            return Ok(());
        }
        Err(PeerRefusal::Identity { reason: format!("its certificate is not for the name {name}") })
    }
}
