//! Snapshots over gRPC.

use std::fs::File;
use std::ops::ControlFlow;

use ledger_core::snapshot;
use ledger_proto::v1;
use ledger_server::access::Role;
use tonic::Code;

use crate::support::{TestServer, refused, set, vault_ref};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_created_and_listed_with_what_it_holds() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    clients.write(&vault_ref("acme", "main"), vec![set("a", "1"), set("b", "2")]).await.unwrap();
    let none = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await.unwrap().into_inner();
    assert_eq!(none, v1::ListSnapshotsResponse::default());
    let made = clients.admin.create_snapshot(v1::CreateSnapshotRequest {}).await.unwrap().into_inner();
    let made = made.snapshot.expect("a small snapshot is written at once");
    assert_eq!((made.vault_count, made.key_count, made.problem.as_str()), (1, 2, ""));
    assert!(made.path.ends_with(&made.file_name) && made.created_at_ms > 0);
    let keys = [server.ledger.verifier_key()];
    let file = File::open(&made.path).unwrap();
    let verified = snapshot::verify(file, &keys, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((verified.file_bytes, verified.sha256.as_slice()), (made.file_bytes, made.sha256.as_ref()));
    assert_eq!(verified.trailer.row_count(), made.row_count);
    let listed = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.snapshots.as_slice(), listed.writing), ([made.clone()].as_slice(), None));

    std::fs::write(&made.path, "no snapshot").unwrap();
    let listed = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await.unwrap().into_inner();
    assert!(listed.snapshots[0].problem.contains("no snapshot"), "{listed:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_is_an_error_and_is_remembered() {
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    server.ledger.hold_back_snapshots();
    let refusal = clients.admin.create_snapshot(v1::CreateSnapshotRequest {}).await;
    refused(refusal, Code::ResourceExhausted, "DISK_FULL");
    let listed = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await.unwrap().into_inner();
    assert!(listed.last_failure.contains("disk is nearly full"), "{listed:?}");
    server.ledger.release_snapshots();
    clients.admin.create_snapshot(v1::CreateSnapshotRequest {}).await.unwrap();
    let listed = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.last_failure.as_str(), listed.snapshots.len()), ("", 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_need_an_administrator_of_everything() {
    let server = TestServer::start().await;
    for (role, scope) in [(Role::Writer, "*"), (Role::Admin, "acme")] {
        let (_, secret) = server.token(role, scope).await;
        let mut clients = server.clients(Some(&secret)).await;
        let created = clients.admin.create_snapshot(v1::CreateSnapshotRequest {}).await;
        refused(created, Code::PermissionDenied, "PERMISSION_DENIED");
        let listed = clients.admin.list_snapshots(v1::ListSnapshotsRequest {}).await;
        refused(listed, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    server.stop().await;
}
