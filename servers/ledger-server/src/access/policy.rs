//! The one table of who may call what. A method that is not in it cannot be called.

use tonic::Status;

use super::{Caller, Role, Scope};
use crate::errors;

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes carry no credential.
    Nothing,
    /// Any valid credential, unless the server allows anyone on a loopback address.
    CredentialUnlessLoopback,
    /// Any valid credential.
    Credential,
    /// A role, on the vault that the request addresses.
    VaultRole(Role),
    /// The role admin on `*`.
    AdminOfEverything,
}

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Path of the HTTP request, such as `/strongroom.ledger.v1.ReadService/Get`.
    pub path: &'static str,
    /// What it needs.
    pub need: Need,
}

const fn rule(path: &'static str, need: Need) -> Rule {
    Rule { path, need }
}

const READS: Need = Need::VaultRole(Role::Reader);
const WRITES: Need = Need::VaultRole(Role::Writer);
const ADMINISTERS: Need = Need::VaultRole(Role::Admin);

/// Calls of the ledger that are streams.
pub(crate) const WATCH_BLOCKS: &str = "/strongroom.ledger.v1.ReadService/WatchBlocks";
pub(crate) const STREAM_BACKUP: &str = "/strongroom.ledger.v1.AdminService/StreamBackup";

/// A stream of calls.
pub(crate) const CALLS: &str = "/strongroom.ledger.v1.CallService/Call";

/// Every method of every service that the server mounts.
pub static POLICY: &[Rule] = &[
    rule("/strongroom.ledger.v1.ReadService/Get", READS),
    rule("/strongroom.ledger.v1.ReadService/BatchGet", READS),
    rule("/strongroom.ledger.v1.ReadService/Check", READS),
    rule("/strongroom.ledger.v1.ReadService/ListEntities", READS),
    rule("/strongroom.ledger.v1.ReadService/ListRelationships", READS),
    rule("/strongroom.ledger.v1.ReadService/GetTip", READS),
    rule("/strongroom.ledger.v1.ReadService/GetBlock", READS),
    rule("/strongroom.ledger.v1.ReadService/VerifiedRead", READS),
    rule("/strongroom.ledger.v1.ReadService/GetCheckpoint", READS),
    rule("/strongroom.ledger.v1.ReadService/GetClientState", READS),
    rule("/strongroom.ledger.v1.ReadService/VerifiedList", READS),
    rule(WATCH_BLOCKS, READS),
    rule("/strongroom.ledger.v1.ReadService/GetBlockRange", READS),
    rule("/strongroom.ledger.v1.ReadService/HistoricalRead", READS),
    rule("/strongroom.ledger.v1.ReadService/History", READS),
    rule("/strongroom.ledger.v1.WriteService/Write", WRITES),
    // Each call on the stream needs what it needs as a request.
    rule(CALLS, Need::Credential),
    rule("/strongroom.ledger.v1.AdminService/CreateNamespace", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/GetNamespace", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/ListNamespaces", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/DeleteNamespace", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/CreateVault", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/GetVault", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/ListVaults", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/DeleteVault", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/GetNodeInfo", Need::Credential),
    rule("/strongroom.ledger.v1.AdminService/CreateToken", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/ListTokens", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/RevokeToken", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/SetRetention", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/CreateSnapshot", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/ListSnapshots", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/CheckIntegrity", ADMINISTERS),
    rule("/strongroom.ledger.v1.AdminService/RecoverVault", ADMINISTERS),
    rule("/strongroom.ledger.v1.AdminService/ForceGc", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/JoinCluster", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/LeaveCluster", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/RemoveNode", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/GetClusterInfo", Need::AdminOfEverything),
    rule("/strongroom.ledger.v1.AdminService/TransferLeadership", Need::AdminOfEverything),
    rule(STREAM_BACKUP, Need::AdminOfEverything),
    rule("/grpc.health.v1.Health/Check", Need::Nothing),
    rule("/grpc.health.v1.Health/Watch", Need::Nothing),
    rule("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::CredentialUnlessLoopback),
    rule("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::CredentialUnlessLoopback),
];

/// Whether answers to a path may go on for as long as the caller likes.
pub(crate) fn is_stream(path: &str) -> bool {
    [WATCH_BLOCKS, STREAM_BACKUP, CALLS].contains(&path) || path.starts_with("/grpc.")
}

/// Whether a caller may call a method of the ledger.
pub(crate) fn permit(caller: &Caller, path: &str) -> Result<(), Status> {
    let Some(need) = need_of(path) else { return Err(errors::method_unknown()) };
    let permitted = match need {
        Need::Nothing | Need::Credential | Need::CredentialUnlessLoopback => true,
        Need::VaultRole(role) => caller.role >= role,
        Need::AdminOfEverything => caller.role == Role::Admin && caller.scope == Scope::Everything,
    };
    if permitted { Ok(()) } else { Err(errors::role_denied(caller, need)) }
}

/// The need of a path; `None` when there is no such method.
pub fn need_of(path: &str) -> Option<Need> {
    POLICY.iter().find(|rule| rule.path == path).map(|rule| rule.need)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn methods_of(descriptors: &[u8]) -> Vec<String> {
        let descriptors = FileDescriptorSet::decode(descriptors).unwrap();
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

    #[test]
    fn the_policy_has_every_method_of_the_protocol_once_and_no_other() {
        let mounted = [
            ledger_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let methods: BTreeSet<String> = mounted.into_iter().flat_map(methods_of).collect();
        let ruled: BTreeSet<String> = POLICY.iter().map(|rule| rule.path.to_owned()).collect();
        assert!(methods.len() > 25, "the descriptors were read: {methods:?}");
        assert_eq!(methods, ruled);
        assert_eq!(POLICY.len(), ruled.len(), "a path has two rules");
    }

    #[test]
    fn every_method_of_the_ledger_needs_a_credential() {
        for path in methods_of(ledger_proto::FILE_DESCRIPTOR_SET) {
            let need = need_of(&path).unwrap();
            assert!(!matches!(need, Need::Nothing | Need::CredentialUnlessLoopback), "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_has_no_need() {
        for path in ["", "/", "/strongroom.ledger.v1.ReadService/", "/strongroom.ledger.v1.ReadService/get"] {
            assert_eq!(need_of(path), None, "{path}");
        }
    }
}
