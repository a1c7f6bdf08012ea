//! A server on a free port with a temporary data directory, and clients for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ledger_core::transaction::IdempotencyKey;
use ledger_node::{DataDirectory, Ledger, Options, Stores};
use ledger_proto::ERROR_DOMAIN;
use ledger_proto::v1;
use ledger_proto::v1::admin_service_client::AdminServiceClient;
use ledger_proto::v1::read_service_client::ReadServiceClient;
use ledger_proto::v1::write_service_client::WriteServiceClient;
use ledger_server::access::{Authentication, Role};
use ledger_server::tokens::{NewToken, TokenId, TokenRegistry};
use ledger_server::wire::ANSWER_BYTES_MAX;
use ledger_server::write_gate::WriteGate;
use ledger_server::{LedgerServer, ServerError, ServerSettings};
use service_kit::admission::AdmissionLimits;
use service_kit::tls::{Protocol, ServerTls};
use service_kit::{Listener, ListenerLimits, Phase, Readiness};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

/// How a test server differs from the usual one.
#[derive(Default)]
pub struct Setup {
    pub address: Option<SocketAddr>,
    pub tls: Option<ServerTls>,
    pub no_auth: bool,
    pub streams_max: Option<usize>,
    pub requests_max: Option<usize>,
}

pub struct TestServer {
    pub address: SocketAddr,
    pub ledger: Ledger,
    pub tokens: Arc<TokenRegistry>,
    pub readiness: Readiness,
    pub gate: WriteGate,
    pub directory: TempDir,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), Setup::default()).await
    }

    pub async fn start_with(setup: Setup) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), setup).await
    }

    pub async fn start_in(directory: TempDir, setup: Setup) -> Self {
        let ledger = open_ledger(directory.path()).await;
        let tokens = Arc::new(TokenRegistry::new(ledger.clone(), directory.path()));
        tokens.ensure_first(1).await.unwrap();
        let authentication =
            if setup.no_auth { Authentication::Off } else { Authentication::Tokens(Arc::clone(&tokens)) };
        let limits = ListenerLimits::default();
        let mut admission = AdmissionLimits::default();
        if let Some(streams_max) = setup.streams_max {
            admission.streams_max = streams_max;
        }
        if let Some(requests_max) = setup.requests_max {
            admission.requests_max = requests_max;
        }
        let settings = ServerSettings { authentication, limits: limits.clone(), admission };
        let address = setup.address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let tls = setup.tls.map(|tls| tls.config);
        let listener = Listener::bind("grpc", address, Protocol::Http2, tls, &limits).await.unwrap();
        let address = listener.local_address();
        let readiness = Readiness::starting();
        readiness.advance(Phase::Ready);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = LedgerServer::new(ledger.clone(), Arc::clone(&tokens), settings);
        let gate = server.write_gate();
        let stopped = async move { drop(stopped.await) };
        let serving = tokio::spawn(server.serve(listener, readiness.clone(), stopped));
        Self { address, ledger, tokens, readiness, gate, directory, stop, serving }
    }

    /// Ends the server and the ledger in order; the directory can be opened again.
    pub async fn stop(self) -> TempDir {
        drop(self.stop);
        self.serving.await.unwrap().unwrap();
        self.ledger.shutdown().await.unwrap();
        self.directory
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// Clients with the first administrator's token.
    pub async fn admin(&self) -> Clients {
        let path = self.tokens.admin_token_file().unwrap();
        let token = std::fs::read_to_string(path).unwrap();
        Clients::new(self.endpoint().connect().await.unwrap(), Some(token.trim_end()))
    }

    /// Clients that show this text as their bearer token.
    pub async fn clients(&self, token: Option<&str>) -> Clients {
        Clients::new(self.endpoint().connect().await.unwrap(), token)
    }

    /// A new token.
    pub async fn token(&self, role: Role, scope: &str) -> (TokenId, String) {
        let new = NewToken { role, scope: scope.parse().unwrap(), actor: None, created_at_ms: 1 };
        let (info, text) = self.tokens.create(&new).await.unwrap();
        (info.id, text.expose().to_owned())
    }

    /// All that a refused call must not change.
    pub fn fingerprint(&self) -> String {
        let namespaces = self.ledger.namespaces(None, 1_000);
        let vaults = self.ledger.vaults(None, None, 1_000);
        format!("{namespaces:?} {vaults:?} {:?}", self.tokens.list())
    }
}

pub async fn open_ledger(path: &Path) -> Ledger {
    let directory = DataDirectory::open(path).unwrap();
    let stores = EmbeddedStores::open(path, RedbOptions::default()).unwrap();
    let stores = Stores { log: stores.log, state: stores.state };
    Ledger::open(directory, stores, Options::default()).await.unwrap()
}

type Authenticated = InterceptedService<Channel, Bearer>;

/// One client per service.
#[derive(Clone)]
pub struct Clients {
    pub reads: ReadServiceClient<Authenticated>,
    pub writes: WriteServiceClient<Authenticated>,
    pub admin: AdminServiceClient<Authenticated>,
}

#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Clients {
    pub fn new(channel: Channel, token: Option<&str>) -> Self {
        let bearer = Bearer(token.map(|token| format!("Bearer {token}").parse().unwrap()));
        let reads = ReadServiceClient::with_interceptor(channel.clone(), bearer.clone());
        let writes = WriteServiceClient::with_interceptor(channel.clone(), bearer.clone());
        Self {
            reads: reads.max_decoding_message_size(ANSWER_BYTES_MAX),
            writes: writes.max_encoding_message_size(usize::MAX),
            admin: AdminServiceClient::with_interceptor(channel, bearer),
        }
    }

    /// Creates the namespace and the vault.
    pub async fn create(&mut self, namespace: &str, vault: &str) {
        let request = v1::CreateNamespaceRequest { name: namespace.to_owned() };
        match self.admin.create_namespace(request).await {
            Err(status) if status.code() != Code::AlreadyExists => panic!("{status}"),
            _ => {}
        }
        let vault = Some(vault_ref(namespace, vault));
        self.admin.create_vault(v1::CreateVaultRequest { vault, retained_blocks: 0 }).await.unwrap();
    }

    /// Writes one transaction with a new key.
    pub async fn write(
        &mut self,
        vault: &v1::VaultRef,
        operations: Vec<v1::Operation>,
    ) -> Result<v1::WriteResponse, Status> {
        let idempotency_key = new_key().into();
        let request = v1::WriteRequest { vault: Some(vault.clone()), idempotency_key, operations };
        self.writes.write(request).await.map(Response::into_inner)
    }
}

pub fn vault_ref(namespace: &str, vault: &str) -> v1::VaultRef {
    v1::VaultRef { namespace: namespace.to_owned(), vault: vault.to_owned() }
}

/// A UUIDv7 of this moment.
pub fn new_key() -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut random = [0; 10];
    getrandom::fill(&mut random).unwrap();
    IdempotencyKey::from_parts(now.as_millis() as u64, random).as_bytes().to_vec()
}

pub fn set(key: &str, value: impl Into<bytes::Bytes>) -> v1::Operation {
    let set = v1::SetEntity { key: key.to_owned(), value: value.into(), expires_at_ms: 0 };
    v1::Operation { action: Some(v1::operation::Action::SetEntity(set)), condition: None }
}

pub fn tuple(resource: &str, relation: &str, subject: &str) -> v1::Relationship {
    v1::Relationship { resource: resource.into(), relation: relation.into(), subject: subject.into() }
}

pub fn relate(tuple: v1::Relationship) -> v1::Operation {
    v1::Operation { action: Some(v1::operation::Action::CreateRelationship(tuple)), condition: None }
}

pub fn on_condition(operation: v1::Operation, kind: v1::condition::Kind) -> v1::Operation {
    v1::Operation { condition: Some(v1::Condition { kind: Some(kind) }), ..operation }
}

/// The reason of an error of this API.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status}"));
    assert_eq!(info.domain, ERROR_DOMAIN);
    info.reason.clone()
}

/// One entry of the error's metadata.
pub fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_error_details().error_info()?.metadata.get(key).cloned()
}

/// Asserts code and reason.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, wanted: &str) -> Status {
    let status = answer.expect_err("the call should have been refused");
    assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{status}");
    status
}

/// Sends these bytes as the request of a method, as a client without the definitions would; answers the first message.
pub async fn raw_call(
    channel: Channel,
    path: &str,
    authorization: Option<&str>,
    body: bytes::Bytes,
) -> Result<bytes::Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(body);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    let path = path.parse().unwrap();
    let mut answers = grpc.server_streaming(request, path, RawCodec).await?.into_inner();
    answers.message().await?.ok_or_else(|| Status::internal("an answer without a message"))
}

/// The paths of every method of the ledger's three services.
pub fn ledger_methods() -> Vec<String> {
    use prost::Message;
    let descriptors = prost_types::FileDescriptorSet::decode(ledger_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths
}

#[derive(Clone, Copy, Default)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = bytes::Bytes;
    type Decode = bytes::Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = bytes::Bytes;
    type Error = Status;
    fn encode(&mut self, item: bytes::Bytes, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut;
        buffer.put(item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = bytes::Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<bytes::Bytes>, Status> {
        use bytes::Buf;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
