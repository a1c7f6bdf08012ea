//! `AdminService`: namespaces, vaults, tokens, snapshots and the node.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledger_core::command::{Retention, VaultInfo};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_node::Ledger;
use ledger_proto::v1;
use ledger_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::backup_stream::{self, BackupPieces};
use crate::cluster_calls::NodeFinder;
use crate::errors;
use crate::tokens::TokenRegistry;
use crate::watch_stream::Closing;
use crate::wire::cluster as cluster_wire;
use crate::wire::paging::{DirectoryQuery, page_size, page_token};
use crate::wire::snapshot::snapshot_answer;
use crate::wire::{AtField, FieldFault, address, history, maintenance, read, token};
use crate::write_gate::WriteGate;

/// How long a call waits for the end of a snapshot: well below the time of a request.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);
/// Most snapshots in one answer, the newest: it stays far below the limit of a message.
const SNAPSHOTS_LISTED_MAX: usize = 1_000;

/// Administers a ledger.
#[derive(Debug, Clone)]
pub struct LedgerAdminService {
    pub(crate) ledger: Ledger,
    tokens: Arc<TokenRegistry>,
    gate: WriteGate,
    pub(crate) finder: Option<Arc<dyn NodeFinder>>,
    closing: Closing,
}

impl LedgerAdminService {
    /// A service over an open ledger and its tokens that changes them while the gate is open. Tokens are revoked
    /// also when it is closed: that needs no room, and may not wait.
    pub fn new(ledger: Ledger, tokens: Arc<TokenRegistry>, gate: WriteGate) -> Self {
        Self { ledger, tokens, gate, finder: None, closing: Closing::default() }
    }

    /// The same that can ask a node at its peer address who it is.
    #[must_use]
    pub fn finding_nodes_with(self, finder: Option<Arc<dyn NodeFinder>>) -> Self {
        Self { finder, ..self }
    }

    /// The same, whose streams end when the server drains.
    pub(crate) fn closing_with(self, closing: Closing) -> Self {
        Self { closing, ..self }
    }

    /// What was acknowledged before is seen here too: a node that follows may be behind.
    async fn catch_up(&self) -> Result<(), Status> {
        self.ledger.catch_up().await.map_err(errors::read_failed)
    }

    fn vault_answer(&self, vault: VaultInfo) -> v1::Vault {
        let origin = self.ledger.origin(vault.id);
        read::vault_answer(vault, origin)
    }
}

#[tonic::async_trait]
impl AdminService for LedgerAdminService {
    type StreamBackupStream = BackupPieces;

    async fn stream_backup(
        &self,
        request: Request<v1::StreamBackupRequest>,
    ) -> Result<Response<BackupPieces>, Status> {
        backup_stream::begin(&self.ledger, request.into_inner(), self.closing.clone()).await
    }

    async fn create_namespace(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::Namespace>, Status> {
        let name = address::namespace(&request.get_ref().name, "name")?;
        self.gate.admit()?;
        let created = self.ledger.create_namespace(name).await.map_err(errors::admin_failed)?;
        Ok(Response::new(read::namespace_answer(created)))
    }

    async fn get_namespace(
        &self,
        request: Request<v1::GetNamespaceRequest>,
    ) -> Result<Response<v1::Namespace>, Status> {
        let name = address::namespace(&request.get_ref().name, "name")?;
        self.catch_up().await?;
        let found = self.ledger.namespace(&name).ok_or_else(|| errors::namespace_not_found(name))?;
        Ok(Response::new(read::namespace_answer(found)))
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size)? as usize;
        let query = DirectoryQuery::Namespaces;
        let after = query
            .last_row(&page_token(request.page_token)?)?
            .map(|last| {
                NamespaceName::new(&last).map_err(|_| FieldFault::PageTokenMalformed).at("page_token")
            })
            .transpose()?;
        self.catch_up().await?;
        // One more row tells whether there is a next page.
        let mut found = self.ledger.namespaces(after.as_ref(), limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more).map(|last| query.token_after(last.name.as_str()));
        Ok(Response::new(v1::ListNamespacesResponse {
            namespaces: found.into_iter().map(read::namespace_answer).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn delete_namespace(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::Namespace>, Status> {
        let name = address::namespace(&request.get_ref().name, "name")?;
        self.gate.admit()?;
        let deleted = self.ledger.delete_namespace(name).await.map_err(errors::admin_failed)?;
        Ok(Response::new(read::namespace_answer(deleted)))
    }

    async fn create_vault(
        &self,
        request: Request<v1::CreateVaultRequest>,
    ) -> Result<Response<v1::Vault>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        self.gate.admit()?;
        let created = match history::retention(request.retained_blocks) {
            Retention::Full => self.ledger.create_vault(vault).await,
            retention => self.ledger.create_vault_retaining(vault, retention).await,
        };
        let created = created.map_err(errors::admin_failed)?;
        Ok(Response::new(self.vault_answer(created)))
    }

    async fn get_vault(&self, request: Request<v1::GetVaultRequest>) -> Result<Response<v1::Vault>, Status> {
        let vault = Caller::of(&request)?.vault(request.into_inner().vault)?;
        self.catch_up().await?;
        let found = self.ledger.vault(&vault).ok_or_else(|| errors::vault_not_found(vault))?;
        Ok(Response::new(self.vault_answer(found)))
    }

    async fn list_vaults(
        &self,
        request: Request<v1::ListVaultsRequest>,
    ) -> Result<Response<v1::ListVaultsResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size)? as usize;
        let namespace = match request.namespace.as_str() {
            "" => None,
            name => Some(address::namespace(name, "namespace")?),
        };
        let query = DirectoryQuery::Vaults { namespace: &request.namespace };
        let after = query
            .last_row(&page_token(request.page_token)?)?
            .map(|last| last.parse::<VaultRef>().map_err(|_| FieldFault::PageTokenMalformed).at("page_token"))
            .transpose()?;
        self.catch_up().await?;
        let mut found = self.ledger.vaults(namespace.as_ref(), after.as_ref(), limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| query.token_after(&format!("{}/{}", last.namespace, last.name)));
        Ok(Response::new(v1::ListVaultsResponse {
            vaults: found.into_iter().map(|vault| self.vault_answer(vault)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn delete_vault(
        &self,
        request: Request<v1::DeleteVaultRequest>,
    ) -> Result<Response<v1::Vault>, Status> {
        let vault = Caller::of(&request)?.vault(request.into_inner().vault)?;
        self.gate.admit()?;
        let deleted = self.ledger.delete_vault(vault).await.map_err(errors::admin_failed)?;
        Ok(Response::new(self.vault_answer(deleted)))
    }

    async fn get_node_info(
        &self,
        _request: Request<v1::GetNodeInfoRequest>,
    ) -> Result<Response<v1::NodeInfo>, Status> {
        let node = self.ledger.node_info();
        let cluster = self.cluster().status();
        let own = cluster.members.iter().find(|member| member.node_id == node.node_id);
        let own_name = own.and_then(|member| Some(member.record.as_ref()?.identity.name.as_str()));
        Ok(Response::new(v1::NodeInfo {
            node_id: node.node_id,
            ledger_id: self.ledger.ledger_id().0.to_vec().into(),
            version: service_kit::VERSION_WITH_COMMIT.to_owned(),
            verifier_key: self.ledger.verifier_key().to_string(),
            term: node.term,
            last_applied: node.last_applied,
            durable_applied: node.durable_applied,
            is_leader: node.is_leader,
            log_time_ms: self.ledger.log_time_ms(),
            namespace_count: node.namespace_count,
            vault_count: node.vault_count,
            fenced_vault_count: node.fenced_vault_count,
            node_name: own_name.unwrap_or_default().to_owned(),
            cluster_id: cluster.cluster_id.map(|id| id.0.to_vec()).unwrap_or_default().into(),
            pid: std::process::id(),
            leader_id: cluster.leader.unwrap_or(0),
            leader_url: cluster_wire::leader_url(&cluster).unwrap_or_default().to_owned(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let new = token::new_token(request.get_ref(), unix_ms())?;
        self.gate.admit()?;
        let (created, text) = self.tokens.create(&new).await.map_err(errors::token_error)?;
        let token = Some(token::token_answer(&created));
        Ok(Response::new(v1::CreateTokenResponse { token, secret: text.expose().to_owned() }))
    }

    async fn list_tokens(
        &self,
        _request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        self.catch_up().await?;
        let tokens = self.tokens.list().iter().map(token::token_answer).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::Token>, Status> {
        let id = token::token_id(&request.get_ref().id)?;
        let revoked = self.tokens.revoke(id).await.map_err(errors::token_error)?;
        Ok(Response::new(token::token_answer(&revoked)))
    }

    async fn set_retention(
        &self,
        request: Request<v1::SetRetentionRequest>,
    ) -> Result<Response<v1::Vault>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        self.gate.admit()?;
        let retention = history::retention(request.retained_blocks);
        let changed = self.ledger.set_retention(vault, retention).await.map_err(errors::admin_failed)?;
        Ok(Response::new(self.vault_answer(changed)))
    }

    async fn create_snapshot(
        &self,
        _request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        self.gate.admit()?;
        let made = tokio::time::timeout(SNAPSHOT_WAIT, self.ledger.create_snapshot()).await;
        // It goes on without this call.
        let Ok(made) = made else { return Ok(Response::new(v1::CreateSnapshotResponse::default())) };
        let made = made.map_err(errors::snapshot_failed)?;
        Ok(Response::new(v1::CreateSnapshotResponse { snapshot: Some(snapshot_answer(&made)) }))
    }

    async fn list_snapshots(
        &self,
        _request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let work = self.ledger.snapshot_work();
        let folder = self.ledger.snapshots();
        let listed = tokio::task::spawn_blocking(move || folder.list()).await;
        let listed = listed.map_err(|panicked| errors::internal(&panicked))?;
        let listed = listed.map_err(|error| errors::internal(&error))?;
        let newest = listed.iter().skip(listed.len().saturating_sub(SNAPSHOTS_LISTED_MAX));
        Ok(Response::new(v1::ListSnapshotsResponse {
            snapshots: newest.map(snapshot_answer).collect(),
            writing: work.writing.map(|progress| v1::SnapshotProgress {
                rows: progress.rows,
                plain_bytes: progress.plain_bytes,
                file_bytes: progress.file_bytes,
            }),
            last_failure: work.last_failure.unwrap_or_default(),
        }))
    }

    async fn check_integrity(
        &self,
        request: Request<v1::CheckIntegrityRequest>,
    ) -> Result<Response<v1::CheckIntegrityResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let checked = self.ledger.check_integrity(&vault, maintenance::depth(request.full)).await;
        Ok(Response::new(maintenance::report_answer(checked.map_err(errors::maintenance_failed)?)))
    }

    async fn recover_vault(
        &self,
        request: Request<v1::RecoverVaultRequest>,
    ) -> Result<Response<v1::RecoverVaultResponse>, Status> {
        let vault = Caller::of(&request)?.vault(request.into_inner().vault)?;
        self.gate.admit()?;
        let recovered = self.ledger.recover_vault(&vault).await.map_err(errors::maintenance_failed)?;
        Ok(Response::new(maintenance::recovered_answer(recovered)))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::MembershipChange>, Status> {
        self.join(request.into_inner()).await
    }

    async fn leave_cluster(
        &self,
        _request: Request<v1::LeaveClusterRequest>,
    ) -> Result<Response<v1::MembershipChange>, Status> {
        self.remove(self.ledger.node_info().node_id).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::MembershipChange>, Status> {
        self.remove(cluster_wire::node_id(request.get_ref().node_id, "node_id")?).await
    }

    async fn get_cluster_info(
        &self,
        _request: Request<v1::GetClusterInfoRequest>,
    ) -> Result<Response<v1::ClusterInfo>, Status> {
        Ok(Response::new(cluster_wire::info_answer(self.cluster().status())))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.transfer(request.get_ref()).await
    }

    async fn force_gc(
        &self,
        _request: Request<v1::ForceGcRequest>,
    ) -> Result<Response<v1::ForceGcResponse>, Status> {
        self.gate.admit()?;
        let entities_expired = self.ledger.collect_garbage().await;
        Ok(Response::new(v1::ForceGcResponse { entities_expired }))
    }
}

/// The clock of the node: a token's age is for people, nothing depends on it.
fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
