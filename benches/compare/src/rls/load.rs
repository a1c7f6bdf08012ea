//! Closed loops of questions: each client asks again when it was answered.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::connector::Connector;
use crate::latency::Latencies;
use crate::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use crate::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use crate::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks a server.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Where it answers.
    #[arg(long)]
    url: String,
    /// Concurrent clients.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// Connections that they share in turn.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Distinct values of the descriptor's second entry.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
}

/// What was measured, as one line of JSON.
#[derive(Debug, Serialize)]
struct Report {
    ops: u64,
    denied: u64,
    errors: u64,
    ops_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

type Client = RateLimitServiceClient<Channel>;

impl Load {
    /// Runs, and prints the report.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut connections = Vec::new();
        for _ in 0..self.connections.max(1) {
            let endpoint = Endpoint::from_shared(self.url.clone())?;
            let connector = Connector { timeout: CONNECT_TIMEOUT };
            let channel = endpoint.connect_with_connector(connector).await.context("no connection")?;
            connections.push(Client::new(channel));
        }
        let started = Instant::now();
        let deadline = started + Duration::from_secs(self.seconds);
        let mut loops = JoinSet::new();
        for (client, connection) in (0..self.clients).zip(connections.iter().cycle()) {
            loops.spawn(ask(connection.clone(), client, self.keys.max(1), deadline));
        }
        let (mut latencies, mut denied, mut errors) = (Latencies::new(), 0, 0);
        while let Some(done) = loops.join_next().await {
            let (of_client, denied_here, errors_here) = done.context("a client stopped")?;
            latencies.merge(&of_client);
            (denied, errors) = (denied + denied_here, errors + errors_here);
        }
        let ops = latencies.count();
        let report = Report {
            ops,
            denied,
            errors,
            ops_per_s: ops as f64 / started.elapsed().as_secs_f64(),
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            max_us: latencies.max_us(),
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

async fn ask(mut connection: Client, seed: u64, keys: u64, deadline: Instant) -> (Latencies, u64, u64) {
    let (mut latencies, mut denied, mut errors, mut state) = (Latencies::new(), 0, 0, seed);
    loop {
        let sent = Instant::now();
        if sent >= deadline || errors > 100 {
            return (latencies, denied, errors);
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = ((u128::from(state) * u128::from(keys)) >> 64) as u64;
        match connection.should_rate_limit(question(key)).await {
            Ok(answer) => {
                denied += u64::from(answer.get_ref().overall_code() == Code::OverLimit);
                latencies.record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                if errors == 0 {
                    eprintln!("client {seed}: {error}");
                }
                errors += 1;
            }
        }
    }
}

/// As a proxy asks: a path and an address.
fn question(key: u64) -> RateLimitRequest {
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let address = format!("10.{}.{}.{}", key >> 16 & 255, key >> 8 & 255, key & 255);
    let entries = vec![entry("path", "/v1/things".to_owned()), entry("remote_address", address)];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    RateLimitRequest { domain: "bench".to_owned(), descriptors, hits_addend: 0 }
}
