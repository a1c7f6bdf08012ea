//! The end that calls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use ledger_node::peers::{
    NodeName, PeerError, PeerFuture, PeerMethod, PeerRefusal, PeerRequest, PeerTransport,
};
use ledger_proto::peer::v1::peer_service_client::PeerServiceClient;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};

use super::connection::{LinkError, Target};
use super::limits::{MESSAGE_BYTES_MAX, URGENT_BODY_BYTES_MAX};
use super::link::{Link, LinkService};
use super::pool::{LinkKey, Pool};
use super::{PeerLimits, Security, wire};

/// Names no host: the connection is chosen before.
const ORIGIN: &str = "http://peer.strongroom.internal";

/// How often a request is sent at most when connections end, each in good order, before the peer reads it.
const SENDINGS_MAX: u32 = 3;

/// Calls peers. Connections and their work stay on the runtime on which it was made, whichever one calls.
pub(super) struct PeerClient {
    pool: Arc<Pool>,
    runtime: Handle,
}

/// Which of the connections to a peer a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Short requests on which the lead depends.
    Urgent,
    /// What may be large, or may wait long.
    Bulk,
}

impl Lane {
    fn of(request: &PeerRequest) -> Self {
        match request.method {
            PeerMethod::SnapshotOffer
            | PeerMethod::SnapshotChunk
            | PeerMethod::SnapshotInstall
            | PeerMethod::Propose => Self::Bulk,
            _ if request.body.len() > URGENT_BODY_BYTES_MAX => Self::Bulk,
            _ => Self::Urgent,
        }
    }
}

impl PeerClient {
    pub fn new(security: Security, limits: PeerLimits) -> Self {
        Self { pool: Pool::new(security, limits), runtime: Handle::current() }
    }
}

impl PeerTransport for PeerClient {
    fn call<'a>(
        &'a self,
        address: &'a str,
        expect: Option<&'a NodeName>,
        request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let target = Target { address: address.to_owned(), expect: expect.cloned() };
            let method = request.method;
            let link = self.pool.link(LinkKey { target, lane: Lane::of(&request) });
            // The caller's runtime may have neither timers nor sockets; dropping the handle ends the call.
            let task = self.runtime.spawn(in_time(link, request, timeout));
            let started = Instant::now();
            let outcome = AbortOnDropHandle::new(task).await.unwrap_or_else(|ended| {
                Err(CallError::Link(LinkError::Unreachable {
                    reason: format!("the call was ended: {ended}"),
                }))
            });
            count(method, &outcome, started.elapsed());
            outcome.map_err(|error| error.into_peer_error(address, timeout))
        })
    }
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerClient").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Why a call was not answered with yes.
enum CallError {
    Link(LinkError),
    Refused(PeerRefusal),
    OutOfTime,
}

async fn in_time(link: Arc<Link>, request: PeerRequest, timeout: Duration) -> Result<Bytes, CallError> {
    let answer = tokio::time::timeout(timeout, send(link, request, timeout));
    answer.await.unwrap_or(Err(CallError::OutOfTime))
}

async fn send(link: Arc<Link>, request: PeerRequest, timeout: Duration) -> Result<Bytes, CallError> {
    wire::check_body(&request.body).map_err(CallError::Refused)?;
    let busy = || CallError::Refused(PeerRefusal::Busy);
    let _place = link.calls.try_acquire().map_err(|_| busy())?;
    let _room = link.room_for(request.body.len()).await.ok_or_else(busy)?;
    let mut client = PeerServiceClient::with_origin(LinkService(Arc::clone(&link)), Uri::from_static(ORIGIN))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let message = wire::request_to_wire(request);
    let mut sendings = 0;
    loop {
        // The body is shared, not copied.
        let mut message = Request::new(message.clone());
        // The peer stops working on what nobody waits for.
        message.set_timeout(timeout);
        sendings += 1;
        match client.call(message).await.map_err(|status| of_status(&status)) {
            Ok(answer) => return wire::answer_from_wire(answer.into_inner()).map_err(CallError::Refused),
            Err(CallError::Link(LinkError::Unread)) if sendings < SENDINGS_MAX => {}
            Err(error) => return Err(error),
        }
    }
}

/// The answers that come from the transport of the peer, or from this one.
fn of_status(status: &Status) -> CallError {
    let link_error = std::error::Error::source(status).and_then(|source| source.downcast_ref::<LinkError>());
    if let Some(error) = link_error {
        return CallError::Link(error.clone());
    }
    let reason = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted => CallError::Refused(PeerRefusal::Busy),
        Code::DeadlineExceeded => CallError::OutOfTime,
        Code::OutOfRange | Code::InvalidArgument => CallError::Refused(PeerRefusal::Malformed { reason }),
        Code::Unimplemented => {
            let reason = "what is at this address does not serve peers".to_owned();
            CallError::Refused(PeerRefusal::Malformed { reason })
        }
        code => CallError::Link(LinkError::Unreachable { reason: format!("{code:?}: {reason}") }),
    }
}

impl CallError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Link(LinkError::Unreachable { .. } | LinkError::Unread) => "unreachable",
            Self::Link(LinkError::Untrusted { .. }) => "untrusted",
            Self::Link(LinkError::Refused { .. }) | Self::Refused(_) => "refused",
            Self::OutOfTime => "timeout",
        }
    }

    fn into_peer_error(self, address: &str, timeout: Duration) -> PeerError {
        let address = address.to_owned();
        match self {
            Self::Link(LinkError::Unreachable { reason }) => PeerError::Unreachable { address, reason },
            Self::Link(LinkError::Untrusted { reason }) => PeerError::Untrusted { address, reason },
            Self::Link(LinkError::Refused { reason }) => {
                PeerError::Refused { address, refusal: PeerRefusal::Identity { reason } }
            }
            Self::Link(error @ LinkError::Unread) => {
                PeerError::Unreachable { address, reason: error.to_string() }
            }
            Self::Refused(refusal) => PeerError::Refused { address, refusal },
            Self::OutOfTime => PeerError::Timeout { address, timeout },
        }
    }
}

fn count(method: PeerMethod, outcome: &Result<Bytes, CallError>, took: Duration) {
    let method = method_name(method);
    let outcome = outcome.as_ref().map_or_else(CallError::outcome, |_| "answered");
    metrics::counter!("strongroom_peer_calls_total", "method" => method, "outcome" => outcome).increment(1);
    metrics::histogram!("strongroom_peer_call_seconds", "method" => method).record(took);
}

/// For labels.
fn method_name(method: PeerMethod) -> &'static str {
    match method {
        PeerMethod::NodeInfo => "node_info",
        PeerMethod::Promise => "promise",
        PeerMethod::Settle => "settle",
        PeerMethod::Join => "join",
        PeerMethod::Vote => "vote",
        PeerMethod::PreVote => "pre_vote",
        PeerMethod::Append => "append",
        PeerMethod::TransferLeader => "transfer_leader",
        PeerMethod::SnapshotOffer => "snapshot_offer",
        PeerMethod::SnapshotChunk => "snapshot_chunk",
        PeerMethod::SnapshotInstall => "snapshot_install",
        PeerMethod::ReadIndex => "read_index",
        PeerMethod::Propose => "propose",
        PeerMethod::Checkpoint => "checkpoint",
        PeerMethod::Tips => "tips",
        PeerMethod::Membership => "membership",
        PeerMethod::WriteState => "write_state",
        PeerMethod::Compare => "compare",
        PeerMethod::Repair => "repair",
        PeerMethod::LedgerKey => "ledger_key",
        _ => "other",
    }
}
