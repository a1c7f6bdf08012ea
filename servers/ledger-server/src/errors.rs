//! Refusals and failures as gRPC statuses: a code, a sentence for people, `google.rpc` details for programs.
//!
//! No status carries a secret. What is not the caller's business (a failed disk, a defect) is logged under a random
//! id, and the status has only the id.

use std::fmt::Display;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledger_core::backup::BackupError;
use ledger_core::command::{AdminRefusal, ConditionFailure, WriteRefusal};
use ledger_core::ledger_state::RecoveryRefusal;
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::page_token::PageTokenError;
use ledger_node::backup::BackupFailure;
use ledger_node::{AdminError, MaintenanceError, MembershipError, ReadFailure, SnapshotFailure, WriteError};
use ledger_proto::ERROR_DOMAIN;
use ledger_verify::Hash;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::access::{Caller, Need, Scope};
use crate::reason::Reason;
use crate::tokens::TokenError;
use crate::wire::{BadField, FieldFault, REQUEST_BYTES_MAX};

fn status(code: Code, reason: Reason, message: impl Into<String>, metadata: Metadata) -> Status {
    Status::with_error_details(code, message, details(reason, metadata))
}

fn details(reason: Reason, metadata: Metadata) -> ErrorDetails {
    ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, metadata.0)
}

/// `google.rpc.ErrorInfo.metadata`.
#[derive(Default)]
struct Metadata(std::collections::HashMap<String, String>);

impl Metadata {
    fn none() -> Self {
        Self::default()
    }

    fn with(mut self, key: &str, value: impl Display) -> Self {
        self.0.insert(key.to_owned(), value.to_string());
        self
    }
}

impl From<BadField> for Status {
    fn from(bad: BadField) -> Self {
        let mut details = details(bad.reason(), Metadata::none().with("field", &bad.field));
        details.add_bad_request_violation(bad.field.as_str(), bad.fault.to_string());
        Status::with_error_details(Code::InvalidArgument, bad.to_string(), details)
    }
}

/// A page token that the engine refused.
fn page_token(error: &PageTokenError) -> Status {
    let fault = match error {
        PageTokenError::WrongQuery => FieldFault::PageTokenMismatch,
        _ => FieldFault::PageTokenMalformed,
    };
    BadField { field: "page_token".to_owned(), fault }.into()
}

/// No credential came along.
pub(crate) fn credential_missing() -> Status {
    let message = "this call needs a credential: send `authorization: Bearer TOKEN`";
    status(Code::Unauthenticated, Reason::CredentialMissing, message, Metadata::none())
}

/// A credential came along that is none.
pub(crate) fn credential_refused() -> Status {
    let message = "the credential is unknown or was revoked: ask an administrator for a new token";
    status(Code::Unauthenticated, Reason::CredentialRefused, message, Metadata::none())
}

/// The method is not in the policy.
pub(crate) fn method_unknown() -> Status {
    status(Code::Unimplemented, Reason::MethodUnknown, "there is no such method", Metadata::none())
}

/// The caller's role is too low, or does not count for the ledger as a whole.
pub(crate) fn role_denied(caller: &Caller, need: Need) -> Status {
    let needed = match need {
        Need::VaultRole(role) => format!("the role {role}"),
        Need::AdminOfEverything => "the role admin with scope *".to_owned(),
        Need::Nothing | Need::Credential | Need::CredentialUnlessLoopback => "a valid credential".to_owned(),
    };
    let message =
        format!("this call needs {needed}; the credential has the role {} on {}", caller.role, caller.scope);
    let metadata = Metadata::none().with("role", caller.role).with("scope", &caller.scope);
    status(Code::PermissionDenied, Reason::PermissionDenied, message, metadata)
}

/// The vault is outside of the caller's scope.
pub(crate) fn outside_scope(scope: &Scope, vault: &VaultRef) -> Status {
    let message = format!("the credential counts for {scope}, not for {vault}");
    let metadata = Metadata::none().with("scope", scope).with("vault", vault);
    status(Code::PermissionDenied, Reason::PermissionDenied, message, metadata)
}

/// A transaction that changed nothing.
fn write_refused(refusal: &WriteRefusal) -> Status {
    let (code, reason, metadata) = match refusal {
        WriteRefusal::VaultNotFound => (Code::NotFound, Reason::VaultNotFound, Metadata::none()),
        WriteRefusal::ConditionFailed { op_index, failure, current_version, current_value } => {
            let mut metadata = Metadata::none().with("op_index", op_index);
            if let Some(version) = current_version {
                metadata = metadata.with("current_version", version);
            }
            if let Some(value) = current_value {
                metadata = metadata.with("current_value_base64", STANDARD.encode(value));
            }
            (Code::FailedPrecondition, condition_reason(*failure), metadata)
        }
        WriteRefusal::IdempotencyKeyExpired { floor_ms } => {
            let metadata = Metadata::none().with("floor_ms", floor_ms);
            (Code::FailedPrecondition, Reason::IdempotencyKeyExpired, metadata)
        }
        WriteRefusal::IdempotencyKeyInFuture { log_time_ms } => {
            let metadata = Metadata::none().with("log_time_ms", log_time_ms);
            (Code::FailedPrecondition, Reason::IdempotencyKeyInFuture, metadata)
        }
        WriteRefusal::IdempotencyMismatch => {
            (Code::FailedPrecondition, Reason::IdempotencyMismatch, Metadata::none())
        }
        WriteRefusal::ExpireForbidden { op_index } => {
            let metadata = Metadata::none().with("op_index", op_index);
            (Code::PermissionDenied, Reason::PermissionDenied, metadata)
        }
        WriteRefusal::VaultDiverged { height, expected_root, computed_root } => {
            let metadata = diverged(*height, expected_root, computed_root.as_ref());
            (Code::Unavailable, Reason::VaultDiverged, metadata)
        }
        WriteRefusal::VaultFull { limit } => {
            (Code::ResourceExhausted, Reason::VaultFull, Metadata::none().with("limit", limit))
        }
        other => return internal(other),
    };
    status(code, reason, refusal.to_string(), metadata)
}

/// Where a fenced vault stands.
fn diverged(height: u64, expected_root: &Hash, computed_root: Option<&Hash>) -> Metadata {
    let metadata = Metadata::none().with("height", height).with("expected_root", hex::encode(expected_root));
    match computed_root {
        Some(root) => metadata.with("computed_root", hex::encode(root)),
        None => metadata,
    }
}

/// A check or a recovery that was not carried out.
pub(crate) fn maintenance_failed(failure: MaintenanceError) -> Status {
    match &failure {
        MaintenanceError::VaultNotFound { vault } => vault_not_found(vault.clone()),
        MaintenanceError::Busy { retry_after } => overloaded(*retry_after),
        MaintenanceError::NotRecovered { vault, refusal } => {
            let metadata = Metadata::none().with("vault", vault);
            match refusal {
                RecoveryRefusal::VaultNotFound => vault_not_found(vault.clone()),
                RecoveryRefusal::State(error) => internal(error),
                RecoveryRefusal::NotFenced => {
                    status(Code::FailedPrecondition, Reason::VaultNotDiverged, failure.to_string(), metadata)
                }
                _ => {
                    let reason = Reason::VaultNotRecoverable;
                    status(Code::FailedPrecondition, reason, failure.to_string(), metadata)
                }
            }
        }
        MaintenanceError::NotFromPeer { vault, .. } => {
            let metadata = Metadata::none().with("vault", vault);
            status(Code::FailedPrecondition, Reason::VaultNotRecoverable, failure.to_string(), metadata)
        }
        MaintenanceError::NotCompared { .. } => unavailable(&failure),
        MaintenanceError::Stopped => stopping(&failure),
        MaintenanceError::Read(_) => match failure {
            MaintenanceError::Read(failure) => read_failed(failure),
            other => internal(&other),
        },
        other => internal(other),
    }
}

fn condition_reason(failure: ConditionFailure) -> Reason {
    match failure {
        ConditionFailure::Exists => Reason::KeyExists,
        ConditionFailure::VersionDiffers => Reason::VersionMismatch,
        ConditionFailure::ValueDiffers => Reason::ValueMismatch,
        // Also `VersionEquals` and `ValueEquals` of what does not exist.
        _ => Reason::KeyNotFound,
    }
}

/// An administrative command that changed nothing.
fn admin_refused(refusal: &AdminRefusal) -> Status {
    let (code, reason, metadata) = match refusal {
        AdminRefusal::NamespaceExists(name) => {
            (Code::AlreadyExists, Reason::NamespaceExists, Metadata::none().with("namespace", name))
        }
        AdminRefusal::NamespaceNotFound(name) => {
            (Code::NotFound, Reason::NamespaceNotFound, Metadata::none().with("namespace", name))
        }
        AdminRefusal::NamespaceNotEmpty { name, vault_count } => (
            Code::FailedPrecondition,
            Reason::NamespaceNotEmpty,
            Metadata::none().with("namespace", name).with("vault_count", vault_count),
        ),
        AdminRefusal::VaultExists(vault) => {
            (Code::AlreadyExists, Reason::VaultExists, Metadata::none().with("vault", vault))
        }
        AdminRefusal::VaultNotFound(vault) => {
            (Code::NotFound, Reason::VaultNotFound, Metadata::none().with("vault", vault))
        }
        AdminRefusal::TooManyVaults => (Code::ResourceExhausted, Reason::TooManyVaults, Metadata::none()),
        AdminRefusal::TooManyNamespaces => {
            (Code::ResourceExhausted, Reason::TooManyNamespaces, Metadata::none())
        }
        AdminRefusal::TokenNotFound(id) => {
            (Code::NotFound, Reason::TokenNotFound, Metadata::none().with("token_id", id))
        }
        AdminRefusal::LastAdminToken(id) => {
            (Code::FailedPrecondition, Reason::LastAdminToken, Metadata::none().with("token_id", id))
        }
        AdminRefusal::TooManyTokens => (Code::ResourceExhausted, Reason::TooManyTokens, Metadata::none()),
        // The node mints ids at random: meeting a used one is its defect, not the caller's.
        other => return internal(other),
    };
    status(code, reason, refusal.to_string(), metadata)
}

/// A namespace that was asked for and is not there.
pub(crate) fn namespace_not_found(name: NamespaceName) -> Status {
    admin_refused(&AdminRefusal::NamespaceNotFound(name))
}

/// A vault that was asked for and is not there.
pub(crate) fn vault_not_found(vault: VaultRef) -> Status {
    admin_refused(&AdminRefusal::VaultNotFound(vault))
}

/// A block above the newest one.
pub(crate) fn height_unavailable(height: u64, tip: u64) -> Status {
    let message = format!("there is no block at height {height}: the newest is {tip}");
    let metadata = Metadata::none().with("height", height).with("tip_height", tip);
    status(Code::OutOfRange, Reason::HeightUnavailable, message, metadata)
}

/// A height whose transactions and state were dropped.
fn height_compacted(height: u64, first: u64) -> Status {
    let message = format!("height {height} is not kept any more: the first that can be read is {first}");
    let metadata = Metadata::none().with("height", height).with("first_height", first);
    status(Code::OutOfRange, Reason::HeightUnavailable, message, metadata)
}

/// The server drains: streams end, and go on elsewhere or later.
pub(crate) fn draining() -> Status {
    let message = "the server is stopping: go on from the height after the last block";
    status(Code::Unavailable, Reason::Stopping, message, Metadata::none())
}

/// A token that was not made or not revoked.
pub(crate) fn token_error(error: TokenError) -> Status {
    match error {
        TokenError::Ledger(failure) => admin_failed(failure),
        TokenError::File(_) => internal(&error),
    }
}

/// The disk has no room for more.
pub(crate) fn disk_full() -> Status {
    let message = "the server's disk is nearly full, so it only reads: nothing was written. Add room to the disk of \
                   the data directory and try again";
    status(Code::ResourceExhausted, Reason::DiskFull, message, Metadata::none())
}

/// The request's bytes are not the message that the method takes.
pub(crate) fn message_malformed(fault: &str) -> Status {
    let message = format!("the request is not the message that this method takes: {fault}");
    status(Code::InvalidArgument, Reason::MalformedMessage, message, Metadata::none())
}

/// The request is larger than any that is decoded.
pub(crate) fn message_too_large() -> Status {
    let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes: send less in one call");
    let metadata = Metadata::none().with("limit_bytes", REQUEST_BYTES_MAX);
    status(Code::InvalidArgument, Reason::MessageTooLarge, message, metadata)
}

/// The queues are full.
fn overloaded(retry_after: Duration) -> Status {
    let mut details = details(Reason::Overloaded, Metadata::none());
    details.set_retry_info(Some(retry_after));
    let message = format!("the ledger's queue is full: try again in {} ms", retry_after.as_millis());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Nobody leads, or the leader did not take it: nothing was done.
pub(crate) fn no_leader(error: &dyn Display, leader: Option<u64>) -> Status {
    match leader {
        None => status(Code::Unavailable, Reason::NoLeader, error.to_string(), Metadata::none()),
        Some(id) => {
            let metadata = Metadata::none().with("leader_id", id);
            status(Code::Unavailable, Reason::NotLeader, error.to_string(), metadata)
        }
    }
}

/// The members were not changed, or the lead was not handed over.
pub(crate) fn membership_failed(failure: &MembershipError) -> Status {
    let none = Metadata::none;
    let (code, reason, metadata) = match failure {
        MembershipError::Alone => (Code::FailedPrecondition, Reason::NotInCluster, none()),
        MembershipError::NoLeader { leader } => return no_leader(failure, *leader),
        MembershipError::NotMember { node_id } => {
            (Code::NotFound, Reason::UnknownNode, none().with("node_id", node_id))
        }
        MembershipError::NotVoter { node_id } => {
            (Code::FailedPrecondition, Reason::NodeNotVoter, none().with("node_id", node_id))
        }
        MembershipError::Record { .. } => (Code::InvalidArgument, Reason::InvalidArgument, none()),
        MembershipError::NameTaken { node_id, .. } => {
            (Code::AlreadyExists, Reason::NodeNameTaken, none().with("node_id", node_id))
        }
        MembershipError::OtherIncarnation { node_id } => {
            (Code::FailedPrecondition, Reason::OtherIncarnation, none().with("node_id", node_id))
        }
        MembershipError::LastVoter { .. } => (Code::FailedPrecondition, Reason::WouldLoseQuorum, none()),
        MembershipError::QuorumLost { alive, voters } => {
            let metadata = none().with("alive", alive).with("voters", voters);
            (Code::FailedPrecondition, Reason::WouldLoseQuorum, metadata)
        }
        MembershipError::NoQuorum { .. } => (Code::FailedPrecondition, Reason::NoQuorum, none()),
        MembershipError::NoSuccessor => (Code::FailedPrecondition, Reason::NoSuccessor, none()),
        MembershipError::TooManyMembers { max } => {
            (Code::ResourceExhausted, Reason::TooManyNodes, none().with("limit", max))
        }
        // Whatever else it is: the change may or may not have happened.
        other => return unavailable(other),
    };
    status(code, reason, failure.to_string(), metadata)
}

/// Nobody could be asked at a node's address who it is.
pub(crate) fn node_unreachable(peer_address: &str, why: &dyn Display) -> Status {
    let message = format!("cannot find out who the node at {peer_address} is: {why}");
    let metadata = Metadata::none().with("peer_address", peer_address);
    status(Code::FailedPrecondition, Reason::NodeUnreachable, message, metadata)
}

/// The node cannot answer now, but another try may succeed.
fn unavailable(error: &dyn std::error::Error) -> Status {
    status(Code::Unavailable, Reason::Unavailable, error.to_string(), Metadata::none())
}

/// The node has no ledger open; `waits_for` may be empty.
pub(crate) fn not_serving_yet(waits_for: &str) -> Status {
    let message = match waits_for {
        "" => "this node does not serve yet: it opens its ledger".to_owned(),
        reason => format!("this node does not serve yet: {reason}"),
    };
    status(Code::Unavailable, Reason::NotServingYet, message, Metadata::none())
}

/// The node is going down.
fn stopping(error: &dyn std::error::Error) -> Status {
    status(Code::Unavailable, Reason::Stopping, error.to_string(), Metadata::none())
}

/// A write that was not answered with a receipt.
pub(crate) fn write_failed(failure: WriteError) -> Status {
    match failure {
        WriteError::Refused(refusal) => write_refused(&refusal),
        WriteError::ReservedActor { .. } => {
            status(Code::PermissionDenied, Reason::PermissionDenied, failure.to_string(), Metadata::none())
        }
        WriteError::Overloaded { retry_after } => overloaded(retry_after),
        WriteError::DiskFull => disk_full(),
        WriteError::NoLeader { leader, .. } => no_leader(&failure, leader),
        WriteError::Unavailable { .. } => unavailable(&failure),
        WriteError::Stopped => stopping(&failure),
        other => internal(&other),
    }
}

/// An administrative command that was not carried out.
pub(crate) fn admin_failed(failure: AdminError) -> Status {
    match failure {
        AdminError::Refused(refusal) => admin_refused(&refusal),
        AdminError::Overloaded { retry_after } => overloaded(retry_after),
        AdminError::DiskFull => disk_full(),
        AdminError::NoLeader { leader, .. } => no_leader(&failure, leader),
        AdminError::Unavailable { .. } => unavailable(&failure),
        AdminError::Stopped => stopping(&failure),
        other => internal(&other),
    }
}

/// A snapshot that was not written.
pub(crate) fn snapshot_failed(failure: SnapshotFailure) -> Status {
    match failure {
        SnapshotFailure::InProgress => {
            status(Code::Aborted, Reason::SnapshotInProgress, failure.to_string(), Metadata::none())
        }
        SnapshotFailure::Fenced { ref vault } => {
            let metadata = Metadata::none().with("vault", vault);
            status(Code::FailedPrecondition, Reason::VaultDiverged, failure.to_string(), metadata)
        }
        SnapshotFailure::HeldBack => disk_full(),
        SnapshotFailure::Unsettled | SnapshotFailure::NoCheckpoints { .. } => unavailable(&failure),
        SnapshotFailure::Stopped => stopping(&failure),
        other => internal(&other),
    }
}

/// A part of a backup that was not made.
pub(crate) fn backup_failed(failure: BackupFailure) -> Status {
    let message = failure.to_string();
    match failure {
        BackupFailure::Snapshot(failure) => snapshot_failed(failure),
        BackupFailure::NoSnapshot { index } => {
            let metadata = Metadata::none().with("index", index);
            status(Code::NotFound, Reason::SnapshotNotFound, message, metadata)
        }
        BackupFailure::InProgress => {
            status(Code::Aborted, Reason::BackupInProgress, message, Metadata::none())
        }
        BackupFailure::Stopped | BackupFailure::Stalled { .. } => {
            status(Code::Unavailable, Reason::Stopping, message, Metadata::none())
        }
        BackupFailure::Backup(BackupError::NeedsBase { .. }) => {
            status(Code::FailedPrecondition, Reason::BackupNeedsBase, message, Metadata::none())
        }
        BackupFailure::Backup(BackupError::Behind { after, applied }) => {
            let metadata = Metadata::none().with("after", after).with("applied", applied);
            status(Code::FailedPrecondition, Reason::BackupAhead, message, metadata)
        }
        BackupFailure::Backup(BackupError::Fenced { vault }) => {
            let metadata = Metadata::none().with("vault", vault);
            status(Code::FailedPrecondition, Reason::VaultDiverged, message, metadata)
        }
        other => internal(&other),
    }
}

/// A read that was not answered.
pub(crate) fn read_failed(failure: ReadFailure) -> Status {
    match failure {
        ReadFailure::VaultNotFound { vault } => vault_not_found(vault),
        ReadFailure::HeightUnavailable { asked, height } => height_unavailable(asked, height),
        ReadFailure::Compacted { asked, first } => height_compacted(asked, first),
        ReadFailure::TrustedSizeAhead { trusted_size, size } => {
            let metadata = Metadata::none().with("trusted_size", trusted_size).with("size", size);
            status(Code::OutOfRange, Reason::TrustedSizeAhead, failure.to_string(), metadata)
        }
        ReadFailure::ListsNotCovered { height } => {
            let metadata = Metadata::none().with("height", height);
            status(Code::FailedPrecondition, Reason::ListsNotCovered, failure.to_string(), metadata)
        }
        ReadFailure::ListTooLong { max, .. } => {
            let metadata = Metadata::none().with("limit", max);
            status(Code::FailedPrecondition, Reason::ListTooLong, failure.to_string(), metadata)
        }
        ReadFailure::ListHeightGone { height, tip } => {
            let metadata = Metadata::none().with("height", height).with("tip_height", tip);
            status(Code::OutOfRange, Reason::HeightUnavailable, failure.to_string(), metadata)
        }
        ReadFailure::VaultDiverged { ref fence, .. } => {
            let metadata = diverged(fence.height, &fence.expected_root, fence.computed_root.as_ref());
            status(Code::Unavailable, Reason::VaultDiverged, failure.to_string(), metadata)
        }
        ReadFailure::PageToken(error) => page_token(&error),
        ReadFailure::Overloaded { retry_after } => overloaded(retry_after),
        ReadFailure::NoLeader { leader, .. } => no_leader(&failure, leader),
        ReadFailure::Unavailable { .. } => unavailable(&failure),
        ReadFailure::Stopped => stopping(&failure),
        other => internal(&other),
    }
}

/// Something that is not the caller's business: logged under an id that the status names.
pub(crate) fn internal(error: &dyn std::error::Error) -> Status {
    let mut id = [0; 8];
    // Without randomness the id is zero: the log line is still there.
    let _ = getrandom::fill(&mut id);
    let error_id = hex::encode(id);
    tracing::error!(error_id, error = %Chain(error), "a call failed inside the server");
    let message = format!("internal error {error_id}: the server's log has the cause under this id");
    status(Code::Internal, Reason::Internal, message, Metadata::none().with("error_id", error_id))
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
