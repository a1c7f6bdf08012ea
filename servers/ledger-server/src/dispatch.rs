//! From the path of a request to its service.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use ledger_proto::v1::admin_service_server::AdminServiceServer;
use ledger_proto::v1::call_service_server::CallServiceServer;
use ledger_proto::v1::read_service_server::ReadServiceServer;
use ledger_proto::v1::write_service_server::WriteServiceServer;
use tonic::body::Body;
use tonic::codegen::Body as HttpBody;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::admin_service::LedgerAdminService;
use crate::call_stream::LedgerCallService;
use crate::read_service::LedgerReadService;
use crate::write_service::LedgerWriteService;

pub(crate) type Reads = ReadServiceServer<LedgerReadService>;
pub(crate) type Writes = WriteServiceServer<LedgerWriteService>;
pub(crate) type Calls = CallServiceServer<LedgerCallService>;
pub(crate) type Administration = AdminServiceServer<LedgerAdminService>;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The ledger's services behind one `call`, and others behind tonic's router: a general router clones, boxes and
/// moves every request, which a read of some microseconds would notice.
#[derive(Debug, Clone)]
pub struct Dispatch {
    reads: Reads,
    writes: Writes,
    calls: Calls,
    administration: Administration,
    others: Routes,
}

impl Dispatch {
    pub(crate) fn new(
        reads: Reads,
        writes: Writes,
        calls: Calls,
        administration: Administration,
        others: Routes,
    ) -> Self {
        Self { reads, writes, calls, administration, others: others.prepare() }
    }
}

impl<B> Service<Request<B>> for Dispatch
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Error> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated services, and the router, are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match service_name(request.uri().path()) {
            <Reads as NamedService>::NAME => self.reads.call(request),
            <Writes as NamedService>::NAME => self.writes.call(request),
            <Calls as NamedService>::NAME => self.calls.call(request),
            <Administration as NamedService>::NAME => self.administration.call(request),
            _ => Box::pin(self.others.call(request)),
        }
    }
}

/// `strongroom.ledger.v1.ReadService` of `/strongroom.ledger.v1.ReadService/Get`.
fn service_name(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}
