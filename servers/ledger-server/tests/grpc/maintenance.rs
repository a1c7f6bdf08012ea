//! Checks, fences, recoveries and garbage collection over the wire.

use bytes::Bytes;
use ledger_core::ports::{RowChange, StateBatch, StateStore, Table};
use ledger_proto::v1;
use ledger_server::access::Role;
use storage_adapters::redb::{RedbOptions, RedbStateStore};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Setup, TestServer, refused, set, vault_ref};

/// Changes the value of an entity in the first vault, as someone with access to the disk would.
fn damage(directory: &std::path::Path, key: &str) {
    let state = RedbStateStore::open(directory, RedbOptions::default()).unwrap();
    let key = [1_u64.to_be_bytes().as_slice(), key.as_bytes()].concat();
    let mut row = state.get(Table::Entities, &key).unwrap().unwrap().to_vec();
    *row.last_mut().unwrap() ^= 1;
    let rows = vec![RowChange { table: Table::Entities, key, value: Some(Bytes::from(row)) }];
    let applied = state.applied().unwrap().unwrap();
    state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
}

fn get(vault: &v1::VaultRef) -> v1::GetRequest {
    v1::GetRequest { vault: Some(vault.clone()), key: "k".into(), consistency: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_vault_answers_unavailable_is_shown_checked_and_recovered_while_another_serves() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    for name in ["main", "other"] {
        clients.create("acme", name).await;
        clients.write(&vault_ref("acme", name), vec![set("k", "v")]).await.unwrap();
    }
    let directory = server.stop().await;
    damage(directory.path(), "k");
    let server = TestServer::start_in(directory, Setup::default()).await;
    let mut clients = server.admin().await;
    let (main, other) = (vault_ref("acme", "main"), vault_ref("acme", "other"));

    let read = clients.reads.get(get(&main)).await;
    let status = refused(read, Code::Unavailable, "VAULT_DIVERGED");
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["height"], "1");
    assert!(metadata["expected_root"] != metadata["computed_root"], "{metadata:?}");
    let write = clients.write(&main, vec![set("k", "w")]).await;
    refused(write, Code::Unavailable, "VAULT_DIVERGED");
    clients.write(&other, vec![set("k", "w")]).await.unwrap();
    let read = clients.reads.get(get(&other)).await.unwrap().into_inner();
    assert_eq!(read.entity.unwrap().value, "w");

    let show = v1::GetVaultRequest { vault: Some(main.clone()) };
    let shown = clients.admin.get_vault(show.clone()).await.unwrap().into_inner();
    assert_eq!(shown.fence.unwrap().height, 1);
    let info = clients.admin.get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.fenced_vault_count, 1);

    let check = |vault: &v1::VaultRef, full| v1::CheckIntegrityRequest { vault: Some(vault.clone()), full };
    let report = clients.admin.check_integrity(check(&main, true)).await.unwrap().into_inner();
    assert!(report.fenced && report.issue_count > 0);
    assert_eq!(report.issues[0].kind, "state_divergence");
    let recover = v1::RecoverVaultRequest { vault: Some(main.clone()) };
    let recovered = clients.admin.recover_vault(recover.clone()).await.unwrap().into_inner();
    assert_eq!((recovered.height, recovered.rows_repaired), (1, 1));
    refused(clients.admin.recover_vault(recover).await, Code::FailedPrecondition, "VAULT_NOT_DIVERGED");
    for full in [false, true] {
        let report = clients.admin.check_integrity(check(&main, full)).await.unwrap().into_inner();
        assert_eq!((report.issue_count, report.fenced), (0, false), "{report:?}");
    }
    assert!(clients.admin.get_vault(show).await.unwrap().into_inner().fence.is_none());
    let read = clients.reads.get(get(&main)).await.unwrap().into_inner();
    assert_eq!(read.entity.unwrap().value, "v");
    let unknown = clients.admin.check_integrity(check(&vault_ref("acme", "nothing"), false)).await;
    refused(unknown, Code::NotFound, "VAULT_NOT_FOUND");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_whose_blocks_are_damaged_is_not_recoverable_and_says_why() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    clients.write(&vault_ref("acme", "main"), vec![set("k", "v")]).await.unwrap();
    let directory = server.stop().await;
    damage(directory.path(), "k");
    {
        let state = RedbStateStore::open(directory.path(), RedbOptions::default()).unwrap();
        let key = [1_u64.to_be_bytes().as_slice(), &1_u64.to_be_bytes(), &[1]].concat();
        let rows = vec![RowChange { table: Table::Blocks, key, value: None }];
        let applied = state.applied().unwrap().unwrap();
        state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    }
    let server = TestServer::start_in(directory, Setup::default()).await;
    let mut clients = server.admin().await;
    let recover = v1::RecoverVaultRequest { vault: Some(vault_ref("acme", "main")) };
    let status = refused(
        clients.admin.recover_vault(recover).await,
        Code::FailedPrecondition,
        "VAULT_NOT_RECOVERABLE",
    );
    assert!(status.message().contains("block 1 ") && status.message().contains("missing_entry"), "{status}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_a_vault_checks_and_recovers_that_vault_only_and_garbage_needs_an_admin_of_everything() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let check =
        |vault: &str| v1::CheckIntegrityRequest { vault: Some(vault_ref("acme", vault)), full: false };
    let (_, text) = server.token(Role::Admin, "acme/main").await;
    let mut of_vault = server.clients(Some(&text)).await;
    of_vault.admin.check_integrity(check("main")).await.unwrap();
    refused(
        of_vault.admin.check_integrity(check("other")).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    let recover = v1::RecoverVaultRequest { vault: Some(vault_ref("acme", "main")) };
    refused(of_vault.admin.recover_vault(recover).await, Code::FailedPrecondition, "VAULT_NOT_DIVERGED");
    refused(
        of_vault.admin.force_gc(v1::ForceGcRequest {}).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    let (_, text) = server.token(Role::Writer, "acme/main").await;
    let mut writer = server.clients(Some(&text)).await;
    refused(writer.admin.check_integrity(check("main")).await, Code::PermissionDenied, "PERMISSION_DENIED");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut brief = set("brief", "v");
    if let Some(v1::operation::Action::SetEntity(set)) = &mut brief.action {
        set.expires_at_ms = now + 50;
    }
    clients.write(&vault_ref("acme", "main"), vec![brief]).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while clients.admin.force_gc(v1::ForceGcRequest {}).await.unwrap().into_inner().entities_expired == 0 {
        assert!(std::time::Instant::now() < deadline, "it expires");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.ledger.vault(&"acme/main".parse().unwrap()).unwrap().key_count, 0);
    server.stop().await;
}
