//! What the metrics page shows.

use std::time::{Duration, Instant};

use ledger_proto::v1;
use service_kit::metrics::MetricsHandle;

use crate::support::{TestServer, set, vault_ref};

/// Waits until the page has a line that starts so, and answers its value.
async fn value_of(metrics: &MetricsHandle, line: &str) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let page = metrics.render();
        let found = page.lines().find_map(|text| text.strip_prefix(line)?.trim().parse::<f64>().ok());
        match found {
            Some(value) if value > 0.0 => return value,
            _ if Instant::now() > deadline => panic!("no {line} in\n{page}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_the_engine_are_counted() {
    let metrics = MetricsHandle::install().unwrap();
    let server = TestServer::start().await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    clients.write(&vault_ref("acme", "main"), vec![set("k", "v")]).await.unwrap();
    clients.admin.create_snapshot(v1::CreateSnapshotRequest {}).await.unwrap();
    let get = v1::GetRequest { vault: None, key: "k".into(), consistency: 0 };
    clients.reads.get(get.clone()).await.unwrap_err();
    server.clients(None).await.reads.get(get).await.unwrap_err();
    let write = r#"method="/strongroom.ledger.v1.WriteService/Write""#;
    let read = r#"method="/strongroom.ledger.v1.ReadService/Get""#;
    for line in [
        format!("ledger_grpc_requests_total{{{write},code=\"OK\"}}"),
        format!("ledger_grpc_requests_total{{{read},code=\"INVALID_ARGUMENT\"}}"),
        format!("ledger_grpc_requests_total{{{read},code=\"UNAUTHENTICATED\"}}"),
        format!("ledger_grpc_request_latency_seconds_count{{{write}}}"),
        "ledger_writes_total".to_owned(),
        "ledger_log_syncs_total".to_owned(),
        "ledger_log_bytes_total".to_owned(),
        "ledger_log_entries_total".to_owned(),
        "ledger_applied_index".to_owned(),
        "ledger_durable_applied_index".to_owned(),
        "ledger_vaults".to_owned(),
        "ledger_raft_is_leader".to_owned(),
        "ledger_snapshots_written_total".to_owned(),
        "ledger_snapshot_bytes_total".to_owned(),
        "ledger_snapshot_index".to_owned(),
        "ledger_snapshot_created_at_ms".to_owned(),
    ] {
        value_of(&metrics, &line).await;
    }
    server.stop().await;
}
