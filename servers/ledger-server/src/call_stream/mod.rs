//! `CallService`: the calls of one caller over one stream.
//!
//! A request of its own costs a head, a stream of HTTP/2, a task and a timer, which together are more than a read.

mod calls;

use std::sync::Arc;
use std::time::Duration;

use ledger_node::Ledger;
use ledger_proto::v1;
use ledger_proto::v1::call_service_server::CallService;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{self, Caller};
use crate::call_metrics::{CallMetricsLayer, Method};
use crate::watch_stream::Closing;
use crate::write_service::LedgerWriteService;

pub use calls::CallStream;

/// Serves streams of calls from a ledger.
#[derive(Clone)]
pub struct LedgerCallService {
    pub(crate) ledger: Ledger,
    pub(crate) writes: LedgerWriteService,
    pub(crate) closing: Closing,
    pub(crate) call_timeout: Duration,
    methods: Methods,
}

impl std::fmt::Debug for LedgerCallService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerCallService").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// Whose numbers the calls go to: those of the requests that do the same.
#[derive(Clone)]
pub(crate) struct Methods {
    pub get: Arc<Method>,
    pub check: Arc<Method>,
    pub write: Arc<Method>,
}

/// What a caller may do on its stream, by its role: decided once.
pub(crate) struct Permissions {
    pub get: Result<(), Status>,
    pub check: Result<(), Status>,
    pub write: Result<(), Status>,
}

const GET: &str = "/strongroom.ledger.v1.ReadService/Get";
const CHECK: &str = "/strongroom.ledger.v1.ReadService/Check";
const WRITE: &str = "/strongroom.ledger.v1.WriteService/Write";

impl LedgerCallService {
    /// A service over an open ledger. A call is answered within `call_timeout`; streams end when `closing` says so.
    pub(crate) fn new(
        ledger: Ledger,
        writes: LedgerWriteService,
        metrics: &CallMetricsLayer,
        call_timeout: Duration,
        closing: Closing,
    ) -> Self {
        let methods =
            Methods { get: metrics.method(GET), check: metrics.method(CHECK), write: metrics.method(WRITE) };
        Self { ledger, writes, closing, call_timeout, methods }
    }
}

impl Permissions {
    fn of(caller: &Caller) -> Self {
        Self {
            get: access::permit(caller, GET),
            check: access::permit(caller, CHECK),
            write: access::permit(caller, WRITE),
        }
    }
}

#[tonic::async_trait]
impl CallService for LedgerCallService {
    type CallStream = CallStream;

    async fn call(&self, request: Request<Streaming<v1::CallBatch>>) -> Result<Response<CallStream>, Status> {
        let caller = Caller::of(&request)?;
        let permissions = Permissions::of(&caller);
        Ok(Response::new(CallStream::new(self.clone(), caller, permissions, request.into_inner())))
    }
}
