//! Namespaces, vaults, tokens and the node. Everything but [`LedgerClient::node_info`] needs an admin token.

use ledger_core::command::{NamespaceInfo, Retention};
use ledger_core::names::{LedgerId, NamespaceName, VaultId, VaultRef};
use ledger_proto::v1;
use ledger_proto::v1::admin_service_client::AdminServiceClient;
use ledger_verify::Hash;
use ledger_verify::note::VerifierKey;
use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, LedgerClient};
use crate::error::ClientError;
use crate::history;
use crate::maintenance::{self, VaultFence};
use crate::read::{Listing, PageRequest};
use crate::retry::Repeatable;
use crate::wire;

/// A page of an administrative list.
pub type AdminPage<T> = Listing<T>;

/// A vault as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// Its name.
    pub vault: VaultRef,
    /// Its identity.
    pub id: VaultId,
    /// Height of its newest block.
    pub height: u64,
    /// RFC 6962 leaf hash of the newest header.
    pub block_hash: Hash,
    /// State root of the newest header.
    pub state_root: Hash,
    /// Sequence number of the last transaction; 0 = none.
    pub version: u64,
    /// Entities and relationships in its state.
    pub key_count: u64,
    /// Log time of its creation, unix milliseconds.
    pub created_at_ms: u64,
    /// Origin line of its checkpoints.
    pub origin: String,
    /// How much of its past it keeps.
    pub retention: Retention,
    /// Lowest height at which values and transactions can be read; headers can be read from 0.
    pub first_height: u64,
    /// Why it is fenced; `None` = it is not.
    pub fence: Option<VaultFence>,
}

/// The node that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Snowflake.
    pub node_id: u64,
    /// The ledger.
    pub ledger_id: LedgerId,
    /// Version and commit of the program.
    pub version: String,
    /// C2SP verifier key of the log key, as the node states it: not verified.
    pub verifier_key: String,
    /// Raft term.
    pub term: u64,
    /// Index of the newest applied entry.
    pub last_applied: u64,
    /// Index up to which the state store is durable.
    pub durable_applied: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// The ledger's time, unix milliseconds.
    pub log_time_ms: u64,
    /// Namespaces of the ledger.
    pub namespace_count: u64,
    /// Vaults of the ledger.
    pub vault_count: u64,
    /// Vaults that are fenced.
    pub fenced_vault_count: u64,
    /// Its name in the cluster; empty when it runs alone.
    pub node_name: String,
    /// Process id of the server; 0 = an older server.
    pub pid: u32,
    /// Who leads, as far as the node knows.
    pub leader_id: Option<u64>,
}

impl NodeInfo {
    /// The verifier key, parsed.
    pub fn parsed_verifier_key(&self) -> Result<VerifierKey, ClientError> {
        self.verifier_key.parse().map_err(|_| ClientError::Answer { what: "the node's verifier key" })
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Everything inside its scope; namespaces, vaults and tokens need the scope `*`.
    Admin,
}

impl TokenRole {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// 16 hex digits.
    pub id: String,
    /// What it allows.
    pub role: TokenRole,
    /// Where: `*`, `NAMESPACE` or `NAMESPACE/VAULT`.
    pub scope: String,
    /// The actor of what is written with it.
    pub actor: String,
    /// When it was made, unix milliseconds.
    pub created_at_ms: u64,
}

/// A new token with its secret, which is shown once.
#[derive(Clone)]
pub struct MintedToken {
    /// The token.
    pub token: TokenInfo,
    /// `sr_<id>_<secret>`.
    pub secret: String,
}

impl std::fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedToken").field("token", &self.token).field("secret", &"[redacted]").finish()
    }
}

/// A snapshot in the folder of the node that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name in the folder `snapshots` of the data directory.
    pub file_name: String,
    /// Its path on the node.
    pub path: String,
    /// Index of the last log entry that it holds.
    pub applied_index: u64,
    /// By the clock of the node, unix milliseconds.
    pub created_at_ms: u64,
    /// Its size.
    pub file_bytes: u64,
    /// SHA-256 over all bytes of the file but its last 32, which are this hash; `None` when they cannot be read.
    pub sha256: Option<Hash>,
    /// Vaults in it.
    pub vault_count: u64,
    /// Entities and relationships in it.
    pub key_count: u64,
    /// Why its header or trailer cannot be read.
    pub problem: Option<String>,
}

/// The snapshots of the node that answered, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshots {
    /// Those that are there.
    pub snapshots: Vec<SnapshotInfo>,
    /// Bytes so far of the file that is being written, when one is.
    pub writing_file_bytes: Option<u64>,
    /// Why the last one was not written.
    pub last_failure: Option<String>,
}

/// Calls one RPC of the admin service.
macro_rules! admin_call {
    ($client:expr, $repeatable:expr, $method:ident, $request:expr) => {
        $client
            .call(
                $repeatable,
                $request,
                |channel, request| async move { admin(channel).$method(request).await },
            )
            .await
    };
}

impl LedgerClient {
    /// Creates a namespace.
    pub async fn create_namespace(&self, name: &NamespaceName) -> Result<NamespaceInfo, ClientError> {
        let request = v1::CreateNamespaceRequest { name: name.as_str().to_owned() };
        namespace_from(&admin_call!(self, Repeatable::Never, create_namespace, request)?)
    }

    /// Shows a namespace.
    pub async fn namespace(&self, name: &NamespaceName) -> Result<NamespaceInfo, ClientError> {
        let request = v1::GetNamespaceRequest { name: name.as_str().to_owned() };
        namespace_from(&admin_call!(self, Repeatable::Always, get_namespace, request)?)
    }

    /// One page of namespaces, in name order.
    pub async fn namespaces(&self, page: &PageRequest) -> Result<AdminPage<NamespaceInfo>, ClientError> {
        let request =
            v1::ListNamespacesRequest { page_size: page.page_size, page_token: page.page_token.clone() };
        let answer = admin_call!(self, Repeatable::Always, list_namespaces, request)?;
        let items = answer.namespaces.iter().map(namespace_from).collect::<Result<_, _>>()?;
        Ok(Listing { items, next_page_token: answer.next_page_token })
    }

    /// Deletes an empty namespace; answers what it was.
    pub async fn delete_namespace(&self, name: &NamespaceName) -> Result<NamespaceInfo, ClientError> {
        let request = v1::DeleteNamespaceRequest { name: name.as_str().to_owned() };
        namespace_from(&admin_call!(self, Repeatable::Never, delete_namespace, request)?)
    }

    /// Creates a vault with its genesis block.
    pub async fn create_vault(&self, vault: &VaultRef) -> Result<Vault, ClientError> {
        self.create_vault_retaining(vault, Retention::Full).await
    }

    /// Creates a vault that keeps as much of its past as is said.
    pub async fn create_vault_retaining(
        &self,
        vault: &VaultRef,
        retention: Retention,
    ) -> Result<Vault, ClientError> {
        let retained_blocks = history::retained_blocks(retention);
        let request = v1::CreateVaultRequest { vault: wire::vault_ref(vault), retained_blocks };
        vault_from(admin_call!(self, Repeatable::Never, create_vault, request)?)
    }

    /// Changes how much of its past a vault keeps. What is no longer covered is dropped in the background and does
    /// not come back.
    pub async fn set_retention(&self, vault: &VaultRef, retention: Retention) -> Result<Vault, ClientError> {
        let retained_blocks = history::retained_blocks(retention);
        let request = v1::SetRetentionRequest { vault: wire::vault_ref(vault), retained_blocks };
        vault_from(admin_call!(self, Repeatable::Always, set_retention, request)?)
    }

    /// Shows a vault.
    pub async fn vault(&self, vault: &VaultRef) -> Result<Vault, ClientError> {
        let request = v1::GetVaultRequest { vault: wire::vault_ref(vault) };
        vault_from(admin_call!(self, Repeatable::Always, get_vault, request)?)
    }

    /// One page of vaults, in name order, of one namespace or of all.
    pub async fn vaults(
        &self,
        namespace: Option<&NamespaceName>,
        page: &PageRequest,
    ) -> Result<AdminPage<Vault>, ClientError> {
        let request = v1::ListVaultsRequest {
            namespace: namespace.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            page_size: page.page_size,
            page_token: page.page_token.clone(),
        };
        let answer = admin_call!(self, Repeatable::Always, list_vaults, request)?;
        let items = answer.vaults.into_iter().map(vault_from).collect::<Result<_, _>>()?;
        Ok(Listing { items, next_page_token: answer.next_page_token })
    }

    /// Deletes a vault and all that it holds; answers what it was.
    pub async fn delete_vault(&self, vault: &VaultRef) -> Result<Vault, ClientError> {
        let request = v1::DeleteVaultRequest { vault: wire::vault_ref(vault) };
        let deleted = vault_from(admin_call!(self, Repeatable::Never, delete_vault, request)?)?;
        self.forget_vault(vault);
        Ok(deleted)
    }

    /// Identity, version and position of the node that answers.
    pub async fn node_info(&self) -> Result<NodeInfo, ClientError> {
        let answer = admin_call!(self, Repeatable::Always, get_node_info, v1::GetNodeInfoRequest {})?;
        self.inner.clock.learn(answer.log_time_ms);
        Ok(NodeInfo {
            node_id: answer.node_id,
            ledger_id: LedgerId(wire::id_from(&answer.ledger_id, "the ledger id")?),
            version: answer.version,
            verifier_key: answer.verifier_key,
            term: answer.term,
            last_applied: answer.last_applied,
            durable_applied: answer.durable_applied,
            is_leader: answer.is_leader,
            log_time_ms: answer.log_time_ms,
            namespace_count: answer.namespace_count,
            vault_count: answer.vault_count,
            fenced_vault_count: answer.fenced_vault_count,
            node_name: answer.node_name,
            pid: answer.pid,
            leader_id: Some(answer.leader_id).filter(|id| *id != 0),
        })
    }

    /// Makes a token; an empty `actor` means `client:<token id>`.
    pub async fn create_token(
        &self,
        role: TokenRole,
        scope: &str,
        actor: &str,
    ) -> Result<MintedToken, ClientError> {
        let role = match role {
            TokenRole::Reader => v1::Role::Reader,
            TokenRole::Writer => v1::Role::Writer,
            TokenRole::Admin => v1::Role::Admin,
        };
        let request =
            v1::CreateTokenRequest { role: role.into(), scope: scope.to_owned(), actor: actor.to_owned() };
        let answer = admin_call!(self, Repeatable::Never, create_token, request)?;
        let token =
            answer.token.ok_or(ClientError::Answer { what: "a new token without its description" })?;
        Ok(MintedToken { token: token_from(token)?, secret: answer.secret })
    }

    /// All tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, ClientError> {
        let answer = admin_call!(self, Repeatable::Always, list_tokens, v1::ListTokensRequest {})?;
        answer.tokens.into_iter().map(token_from).collect()
    }

    /// Revokes a token; answers what it was.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenInfo, ClientError> {
        let request = v1::RevokeTokenRequest { id: id.to_owned() };
        token_from(admin_call!(self, Repeatable::Never, revoke_token, request)?)
    }

    /// Has the node write a snapshot. `None` = it is not finished yet, and goes on: [`snapshots`](Self::snapshots)
    /// tells when it is.
    pub async fn create_snapshot(&self) -> Result<Option<SnapshotInfo>, ClientError> {
        let request = v1::CreateSnapshotRequest {};
        let answer = admin_call!(self, Repeatable::Never, create_snapshot, request)?;
        answer.snapshot.map(snapshot_from).transpose()
    }

    /// The snapshots of the node that answers.
    pub async fn snapshots(&self) -> Result<Snapshots, ClientError> {
        let answer = admin_call!(self, Repeatable::Always, list_snapshots, v1::ListSnapshotsRequest {})?;
        Ok(Snapshots {
            snapshots: answer.snapshots.into_iter().map(snapshot_from).collect::<Result<_, _>>()?,
            writing_file_bytes: answer.writing.map(|progress| progress.file_bytes),
            last_failure: Some(answer.last_failure).filter(|text| !text.is_empty()),
        })
    }
}

pub(crate) fn admin(channel: Channel) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn namespace_from(namespace: &v1::Namespace) -> Result<NamespaceInfo, ClientError> {
    let name = NamespaceName::new(&namespace.name)
        .map_err(|_| ClientError::Answer { what: "a namespace's name" })?;
    Ok(NamespaceInfo { name, vault_count: namespace.vault_count, created_at_ms: namespace.created_at_ms })
}

fn vault_from(vault: v1::Vault) -> Result<Vault, ClientError> {
    let name = vault.vault.unwrap_or_default();
    let name = format!("{}/{}", name.namespace, name.vault);
    Ok(Vault {
        vault: name.parse().map_err(|_| ClientError::Answer { what: "a vault's name" })?,
        id: VaultId(wire::id_from(&vault.id, "a vault's id")?),
        height: vault.height,
        block_hash: wire::hash_from(&vault.block_hash, "a vault's block hash")?,
        state_root: wire::hash_from(&vault.state_root, "a vault's state root")?,
        version: vault.version,
        key_count: vault.key_count,
        created_at_ms: vault.created_at_ms,
        origin: vault.origin,
        retention: history::retention_from(vault.retained_blocks),
        first_height: vault.first_height,
        fence: vault.fence.map(maintenance::fence_from).transpose()?,
    })
}

fn snapshot_from(snapshot: v1::Snapshot) -> Result<SnapshotInfo, ClientError> {
    let sha256 = match snapshot.problem.is_empty() {
        true => Some(wire::hash_from(&snapshot.sha256, "a snapshot's SHA-256")?),
        false => None,
    };
    Ok(SnapshotInfo {
        file_name: snapshot.file_name,
        path: snapshot.path,
        applied_index: snapshot.applied_index,
        created_at_ms: snapshot.created_at_ms,
        file_bytes: snapshot.file_bytes,
        sha256,
        vault_count: snapshot.vault_count,
        key_count: snapshot.key_count,
        problem: Some(snapshot.problem).filter(|text| !text.is_empty()),
    })
}

fn token_from(token: v1::Token) -> Result<TokenInfo, ClientError> {
    let role = match v1::Role::try_from(token.role) {
        Ok(v1::Role::Reader) => TokenRole::Reader,
        Ok(v1::Role::Writer) => TokenRole::Writer,
        Ok(v1::Role::Admin) => TokenRole::Admin,
        Ok(v1::Role::Unspecified) | Err(_) => return Err(ClientError::Answer { what: "a token's role" }),
    };
    Ok(TokenInfo {
        id: token.id,
        role,
        scope: token.scope,
        actor: token.actor,
        created_at_ms: token.created_at_ms,
    })
}
