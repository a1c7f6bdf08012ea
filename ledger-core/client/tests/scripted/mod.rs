//! A ledger that answers from a script, over real gRPC on a loopback port.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_client::{ClientOptions, LedgerClient, MemoryPins, PinStore, RetryPolicy};
use ledger_proto::v1;
use ledger_proto::v1::admin_service_server::{AdminService, AdminServiceServer};
use ledger_proto::v1::read_service_server::{ReadService, ReadServiceServer};
use ledger_proto::v1::write_service_server::{WriteService, WriteServiceServer};
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::log;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey};
use ledger_verify::proof::{log_key_name, log_origin};
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use tonic::{Request, Response, Status};

pub const LEDGER: [u8; 16] = [7; 16];
pub const VAULT: [u8; 16] = [9; 16];
pub const KEY: &str = "door";

/// One entity under `KEY`, rewritten by every block: enough for real proofs.
#[derive(Clone)]
pub struct Chain {
    pub headers: Vec<BlockHeader>,
    pub values: Vec<Vec<u8>>,
    pub signer: SigningKey,
}

impl Chain {
    pub fn new() -> Self {
        let signer = SigningKey::from_seed(&log_key_name(&LEDGER), &[3; 32]).expect("a valid name");
        let mut chain = Self { headers: Vec::new(), values: Vec::new(), signer };
        chain.grow(b"closed");
        chain
    }

    pub fn grow(&mut self, value: &[u8]) {
        let height = self.headers.len() as u64;
        let leaf = Self::leaf_at(height, value);
        let header = BlockHeader {
            version: 1,
            ledger_id: LEDGER,
            vault_id: VAULT,
            height,
            previous: self.headers.last().map_or([0; 32], BlockHeader::leaf_hash),
            tx_root: ledger_verify::hash::log_empty(),
            tx_count: 0,
            state_root: ledger_verify::hash::state_leaf(&StateKey::Entity { key: KEY }.hash(), &leaf.hash()),
            time_ms: 1_800_000_000_000 + height,
            term: 1,
            index: height + 1,
            first_sequence: 1,
            last_sequence: 0,
        };
        self.headers.push(header);
        self.values.push(value.to_vec());
    }

    fn leaf_at(height: u64, value: &[u8]) -> LeafValue<'_> {
        LeafValue {
            kind: LeafKind::Entity,
            modified_height: height,
            version: height + 1,
            expires_at_ms: 0,
            value,
        }
    }

    fn leaves(&self) -> Vec<Hash> {
        self.headers.iter().map(BlockHeader::leaf_hash).collect()
    }

    pub fn checkpoint(&self) -> String {
        let leaves = self.leaves();
        let checkpoint = Checkpoint {
            origin: log_origin(&LEDGER, &VAULT),
            size: leaves.len() as u64,
            root: log::root_of(&leaves),
        };
        SignedCheckpoint::sign(&checkpoint, &self.signer)
    }

    fn consistency(&self, old: u64) -> Vec<bytes::Bytes> {
        let leaves = self.leaves();
        let old = old as usize;
        if old == 0 || old >= leaves.len() {
            return Vec::new();
        }
        subproof(old, &leaves, true).iter().map(|hash| bytes::Bytes::copy_from_slice(hash)).collect()
    }

    fn verified_read(&self, trusted_size: u64) -> v1::VerifiedReadResponse {
        let height = self.headers.len() - 1;
        let path = log::inclusion_path(&self.leaves(), height).expect("the height exists");
        v1::VerifiedReadResponse {
            leaf: Some(Self::leaf_at(height as u64, &self.values[height]).encode().into()),
            siblings: Vec::new(),
            other_leaf: None,
            header: self.headers[height].encode().to_vec().into(),
            inclusion: path.iter().map(|hash| bytes::Bytes::copy_from_slice(hash)).collect(),
            checkpoint: self.checkpoint(),
            consistency: self.consistency(trusted_size),
            log_time_ms: 1_800_000_000_000,
        }
    }
}

/// RFC 6962, section 2.1.2.
fn subproof(old: usize, leaves: &[Hash], complete: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if complete { Vec::new() } else { vec![log::root_of(leaves)] };
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    if old <= split {
        let mut path = subproof(old, left, complete);
        path.push(log::root_of(right));
        path
    } else {
        let mut path = subproof(old - split, right, false);
        path.push(log::root_of(left));
        path
    }
}

/// What the server does next, and what it saw.
pub struct Script {
    pub chain: Mutex<Chain>,
    /// Answers to writes, in order; when empty, writes succeed.
    pub write_answers: Mutex<VecDeque<Result<v1::WriteResponse, Status>>>,
    /// Answers to lists, in order.
    pub list_answers: Mutex<VecDeque<Result<v1::VerifiedListResponse, Status>>>,
    pub lists_seen: Mutex<Vec<v1::VerifiedListRequest>>,
    pub writes_seen: Mutex<Vec<(tokio::time::Instant, v1::WriteRequest)>>,
    pub trusted_sizes_seen: Mutex<Vec<u64>>,
    pub authorizations_seen: Mutex<Vec<String>>,
    pub log_time_ms: Mutex<u64>,
    pub node_info_calls: Mutex<u32>,
    /// What each watch sends, in order of their connections; the last message may be an error.
    pub watches: Mutex<VecDeque<Vec<Result<v1::WatchBlocksResponse, Status>>>>,
    pub watches_seen: Mutex<Vec<v1::WatchBlocksRequest>>,
    pub tips_seen: Mutex<u32>,
    /// Answers to new namespaces, in order; when empty, they succeed.
    pub namespace_answers: Mutex<VecDeque<Result<v1::Namespace, Status>>>,
    pub namespace_calls: Mutex<u32>,
    /// Which node leads, for the header of every answer.
    pub leader_header: Mutex<Option<String>>,
    /// Writes wait while it is there, until their connection ends.
    pub frozen: tokio::sync::watch::Sender<bool>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            chain: Mutex::new(Chain::new()),
            write_answers: Mutex::default(),
            list_answers: Mutex::default(),
            lists_seen: Mutex::default(),
            writes_seen: Mutex::default(),
            trusted_sizes_seen: Mutex::default(),
            authorizations_seen: Mutex::default(),
            log_time_ms: Mutex::new(1_800_000_000_000),
            node_info_calls: Mutex::default(),
            watches: Mutex::default(),
            watches_seen: Mutex::default(),
            tips_seen: Mutex::default(),
            namespace_answers: Mutex::default(),
            namespace_calls: Mutex::default(),
            leader_header: Mutex::default(),
            frozen: tokio::sync::watch::Sender::new(false),
        })
    }

    fn answer<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(header) = &*lock(&self.leader_header) {
            let value = header.parse().expect("a header value");
            response.metadata_mut().insert(ledger_proto::LEADER_HEADER, value);
        }
        response
    }

    /// Serves the script until the test's runtime ends; returns its URL.
    pub async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(ReadServiceServer::new(Service(Arc::clone(self))))
            .add_service(WriteServiceServer::new(Service(Arc::clone(self))))
            .add_service(AdminServiceServer::new(Service(Arc::clone(self))))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        url
    }
}

pub fn options(url: &str) -> ClientOptions {
    let mut options = ClientOptions::new(url).with_token("sr_0123456789abcdef_x".to_owned());
    options.retry = RetryPolicy {
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(10),
        ..RetryPolicy::default()
    };
    options
}

pub async fn client(script: &Arc<Script>) -> LedgerClient {
    client_with_pins(script, Arc::new(MemoryPins::default())).await
}

pub async fn client_with_pins(script: &Arc<Script>, pins: Arc<dyn PinStore>) -> LedgerClient {
    LedgerClient::connect(options(&script.serve().await), pins).expect("valid options")
}

pub fn receipt() -> v1::Receipt {
    v1::Receipt {
        vault_id: VAULT.to_vec().into(),
        height: 1,
        version: 1,
        index_in_block: 0,
        block_hash: vec![1; 32].into(),
        time_ms: 1_800_000_000_500,
    }
}

struct Service(Arc<Script>);

fn unscripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in the script"))
}

macro_rules! unscripted {
    ($($method:ident($request:ident) -> $response:ident;)*) => {$(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _request: Request<v1::$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { unscripted() })
        }
    )*};
}

#[tonic::async_trait]
impl ReadService for Service {
    async fn get_tip(&self, _: Request<v1::GetTipRequest>) -> Result<Response<v1::GetTipResponse>, Status> {
        *lock(&self.0.tips_seen) += 1;
        let chain = lock(&self.0.chain);
        let header = chain.headers[chain.headers.len() - 1];
        Ok(self.0.answer(v1::GetTipResponse {
            header: header.encode().to_vec().into(),
            block_hash: header.leaf_hash().to_vec().into(),
            log_root: log::root_of(&chain.leaves()).to_vec().into(),
            position: Some(v1::ReadPosition {
                height: header.height,
                log_time_ms: *lock(&self.0.log_time_ms),
            }),
        }))
    }

    async fn verified_read(
        &self,
        request: Request<v1::VerifiedReadRequest>,
    ) -> Result<Response<v1::VerifiedReadResponse>, Status> {
        let trusted_size = request.get_ref().trusted_size;
        lock(&self.0.trusted_sizes_seen).push(trusted_size);
        let chain = lock(&self.0.chain);
        if trusted_size > chain.headers.len() as u64 {
            return Err(Status::failed_precondition("the log is shorter"));
        }
        Ok(Response::new(chain.verified_read(trusted_size)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let trusted_size = request.get_ref().trusted_size;
        let chain = lock(&self.0.chain);
        Ok(Response::new(v1::GetCheckpointResponse {
            checkpoint: chain.checkpoint(),
            consistency: chain.consistency(trusted_size),
        }))
    }

    async fn verified_list(
        &self,
        request: Request<v1::VerifiedListRequest>,
    ) -> Result<Response<v1::VerifiedListResponse>, Status> {
        lock(&self.0.lists_seen).push(request.into_inner());
        let answer = lock(&self.0.list_answers).pop_front();
        answer.unwrap_or_else(|| Err(Status::unimplemented("not in the script"))).map(Response::new)
    }

    type WatchBlocksStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::WatchBlocksResponse, Status>>>;

    async fn watch_blocks(
        &self,
        request: Request<v1::WatchBlocksRequest>,
    ) -> Result<Response<Self::WatchBlocksStream>, Status> {
        lock(&self.0.watches_seen).push(request.into_inner());
        match lock(&self.0.watches).pop_front() {
            Some(messages) => match &messages[..] {
                // A refusal before the stream.
                [Err(status)] => Err(status.clone()),
                _ => Ok(Response::new(tokio_stream::iter(messages))),
            },
            None => Err(Status::unimplemented("not in the script")),
        }
    }

    unscripted! {
        get_block_range(GetBlockRangeRequest) -> GetBlockRangeResponse;
        historical_read(HistoricalReadRequest) -> HistoricalReadResponse;
        history(HistoryRequest) -> HistoryResponse;
        get(GetRequest) -> GetResponse;
        batch_get(BatchGetRequest) -> BatchGetResponse;
        check(CheckRequest) -> CheckResponse;
        list_entities(ListEntitiesRequest) -> ListEntitiesResponse;
        list_relationships(ListRelationshipsRequest) -> ListRelationshipsResponse;
        get_block(GetBlockRequest) -> GetBlockResponse;
        get_client_state(GetClientStateRequest) -> GetClientStateResponse;
    }
}

#[tonic::async_trait]
impl WriteService for Service {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        lock(&self.0.authorizations_seen).push(authorization.unwrap_or_default().to_owned());
        let count = request.get_ref().operations.len();
        lock(&self.0.writes_seen).push((tokio::time::Instant::now(), request.into_inner()));
        let mut frozen = self.0.frozen.subscribe();
        frozen.wait_for(|frozen| !*frozen).await.expect("the script lives");
        match lock(&self.0.write_answers).pop_front() {
            Some(answer) => answer.map(|message| self.0.answer(message)),
            None => Ok(self.0.answer(v1::WriteResponse {
                receipt: Some(receipt()),
                results: vec![v1::OperationResult::Created.into(); count],
                replayed: false,
            })),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    type StreamBackupStream = tokio_stream::Empty<Result<v1::StreamBackupResponse, Status>>;

    async fn stream_backup(
        &self,
        _: Request<v1::StreamBackupRequest>,
    ) -> Result<Response<Self::StreamBackupStream>, Status> {
        Err(Status::unimplemented("not part of this script"))
    }

    async fn get_node_info(
        &self,
        _: Request<v1::GetNodeInfoRequest>,
    ) -> Result<Response<v1::NodeInfo>, Status> {
        *lock(&self.0.node_info_calls) += 1;
        Ok(Response::new(v1::NodeInfo {
            ledger_id: LEDGER.to_vec().into(),
            verifier_key: lock(&self.0.chain).signer.verifier_key().to_string(),
            log_time_ms: *lock(&self.0.log_time_ms),
            ..v1::NodeInfo::default()
        }))
    }

    async fn create_namespace(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::Namespace>, Status> {
        *lock(&self.0.namespace_calls) += 1;
        let created = v1::Namespace { name: request.into_inner().name, ..v1::Namespace::default() };
        lock(&self.0.namespace_answers).pop_front().unwrap_or(Ok(created)).map(|answer| self.0.answer(answer))
    }

    unscripted! {
        get_namespace(GetNamespaceRequest) -> Namespace;
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        delete_namespace(DeleteNamespaceRequest) -> Namespace;
        create_vault(CreateVaultRequest) -> Vault;
        get_vault(GetVaultRequest) -> Vault;
        list_vaults(ListVaultsRequest) -> ListVaultsResponse;
        delete_vault(DeleteVaultRequest) -> Vault;
        create_token(CreateTokenRequest) -> CreateTokenResponse;
        list_tokens(ListTokensRequest) -> ListTokensResponse;
        revoke_token(RevokeTokenRequest) -> Token;
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        set_retention(SetRetentionRequest) -> Vault;
        check_integrity(CheckIntegrityRequest) -> CheckIntegrityResponse;
        recover_vault(RecoverVaultRequest) -> RecoverVaultResponse;
        force_gc(ForceGcRequest) -> ForceGcResponse;
        join_cluster(JoinClusterRequest) -> MembershipChange;
        leave_cluster(LeaveClusterRequest) -> MembershipChange;
        remove_node(RemoveNodeRequest) -> MembershipChange;
        get_cluster_info(GetClusterInfoRequest) -> ClusterInfo;
        transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse;
    }
}
