//! A disk without room.

use ledger_node::WriteState;
use ledger_proto::v1;
use ledger_server::access::Role;
use service_kit::disk::DiskState;
use tonic::Code;

use crate::support::{TestServer, refused, set, vault_ref};

const FULL: (Code, &str) = (Code::ResourceExhausted, "DISK_FULL");

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_every_write_before_the_log_and_reads_go_on_until_it_has_room_again() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    clients.write(&vault, vec![set("k", "v")]).await.unwrap();
    let (revoked, _) = server.token(Role::Reader, "*").await;
    let before = (server.fingerprint(), server.ledger.node_info().last_log_index);

    server.gate.follow_disk(DiskState::ReadOnly);
    let status = refused(clients.write(&vault, vec![set("k", "w")]).await, FULL.0, FULL.1);
    assert!(status.message().contains("Add room"), "{status}");
    let name = || "other".to_owned();
    let admin = &mut clients.admin;
    let vault_of = |name: &str| Some(vault_ref("acme", name));
    refused(admin.create_namespace(v1::CreateNamespaceRequest { name: name() }).await, FULL.0, FULL.1);
    refused(
        admin.create_vault(v1::CreateVaultRequest { vault: vault_of("b"), retained_blocks: 0 }).await,
        FULL.0,
        FULL.1,
    );
    refused(admin.delete_vault(v1::DeleteVaultRequest { vault: vault_of("main") }).await, FULL.0, FULL.1);
    let delete = v1::DeleteNamespaceRequest { name: "acme".to_owned() };
    refused(admin.delete_namespace(delete).await, FULL.0, FULL.1);
    let token = v1::CreateTokenRequest { role: 1, scope: "*".to_owned(), actor: String::new() };
    refused(admin.create_token(token).await, FULL.0, FULL.1);
    refused(admin.create_snapshot(v1::CreateSnapshotRequest {}).await, FULL.0, FULL.1);
    assert_eq!((server.fingerprint(), server.ledger.node_info().last_log_index), before);

    let get = v1::GetRequest { vault: Some(vault.clone()), key: "k".into(), consistency: 0 };
    let read = clients.reads.get(get).await.unwrap().into_inner();
    assert_eq!(read.entity.unwrap().value, "v");
    clients.admin.revoke_token(v1::RevokeTokenRequest { id: revoked.to_string() }).await.unwrap();

    server.gate.follow_disk(DiskState::Warning);
    clients.write(&vault, vec![set("k", "w")]).await.unwrap();
    clients.admin.create_namespace(v1::CreateNamespaceRequest { name: name() }).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_refuses_because_of_a_full_disk_reads_like_what_the_server_refuses() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    // As a leader's disk does to a follower's clients: the server's own gate stays open.
    server.ledger.set_write_state(WriteState::DiskFull);
    let status = refused(clients.write(&vault, vec![set("k", "v")]).await, FULL.0, FULL.1);
    assert!(status.message().contains("Add room"), "{status}");
    let create = v1::CreateNamespaceRequest { name: "other".to_owned() };
    refused(clients.admin.create_namespace(create.clone()).await, FULL.0, FULL.1);
    server.ledger.set_write_state(WriteState::Open);
    clients.write(&vault, vec![set("k", "v")]).await.unwrap();
    clients.admin.create_namespace(create).await.unwrap();
    server.stop().await;
}
