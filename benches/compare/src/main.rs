//! `etcd-load`: closed-loop load on one etcd server, with the flags and the output of `strongroom bench ledger`.
//!
//! Each client sends its next request when the previous one is answered. One JSON object per line and per number of
//! clients goes to stdout (`--json`), or a table row for people.

mod connector;
mod etcd;
mod latency;
mod workload;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::etcd::Etcd;
use crate::workload::{Outcome, Workload};

/// Most clients that one run may ask for.
const CLIENTS_MAX: usize = 4_096;
/// Most connections that one run may open.
const CONNECTIONS_MAX: usize = 256;

/// Closed-loop load on one etcd server.
#[derive(Debug, Parser)]
#[command(name = "etcd-load", version)]
struct Arguments {
    /// Where the server answers, for example http://127.0.0.1:2379.
    #[arg(long)]
    url: String,
    /// Numbers of concurrent clients, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    clients: Vec<usize>,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// What every client does.
    #[arg(long, value_enum, default_value_t = Operation::Write)]
    op: Operation,
    /// Connections that the clients share in turn.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Distinct keys; reads preload them when they are missing.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Worker threads of the generator; 1 runs everything on one thread.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// One JSON object per line instead of text.
    #[arg(long)]
    json: bool,
}

/// The operation of a closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    /// A durable put of one key.
    Write,
    /// A linearizable read of one key.
    Read,
    /// A read of one key from the server's own state.
    ReadEventual,
    /// A durable transaction of 100 puts; it counts once.
    Txn100,
}

/// One measurement, as printed.
#[derive(Debug, Serialize)]
struct Report {
    op: Operation,
    clients: usize,
    connections: usize,
    value_bytes: usize,
    seconds: f64,
    ops: u64,
    errors: u64,
    ops_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    validate(&arguments)?;
    let mut builder = if arguments.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(arguments.threads);
        builder
    };
    builder.enable_all().build().context("start the runtime")?.block_on(run(arguments))
}

fn validate(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(!arguments.clients.is_empty(), "--clients needs at least one number");
    for clients in &arguments.clients {
        ensure!((1..=CLIENTS_MAX).contains(clients), "--clients takes 1 to {CLIENTS_MAX}, not {clients}");
    }
    ensure!(
        (1..=CONNECTIONS_MAX).contains(&arguments.connections),
        "--connections takes 1 to {CONNECTIONS_MAX}, not {}",
        arguments.connections
    );
    ensure!(arguments.seconds > 0, "--seconds must be at least 1");
    ensure!(arguments.keys > 0, "--keys must be at least 1");
    ensure!(arguments.threads > 0, "--threads must be at least 1");
    Ok(())
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let peer = Etcd::connect(&arguments.url, arguments.connections).await?;
    let workload = Workload {
        operation: arguments.op,
        keys: arguments.keys,
        value_bytes: arguments.value_bytes,
        duration: std::time::Duration::from_secs(arguments.seconds),
    };
    if matches!(arguments.op, Operation::Read | Operation::ReadEventual) {
        peer.preload(&workload).await.context("preload the keys")?;
    }
    for clients in arguments.clients {
        let outcome = workload::run(&peer, workload, clients).await?;
        let report = report(arguments.op, clients, arguments.connections, arguments.value_bytes, &outcome);
        if arguments.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!(
                "{:>12} {:>4} clients {:>10.0} ops/s  p50 {} us  p99 {} us  p99.9 {} us  max {} us  errors {}",
                format!("{:?}", report.op),
                report.clients,
                report.ops_per_s,
                report.p50_us,
                report.p99_us,
                report.p999_us,
                report.max_us,
                report.errors
            );
        }
        ensure!(outcome.latencies.count() > 0, "no operation succeeded with {clients} clients");
    }
    Ok(())
}

fn report(
    op: Operation,
    clients: usize,
    connections: usize,
    value_bytes: usize,
    outcome: &Outcome,
) -> Report {
    let seconds = outcome.elapsed.as_secs_f64();
    let ops = outcome.latencies.count();
    Report {
        op,
        clients,
        connections,
        value_bytes,
        seconds,
        ops,
        errors: outcome.errors,
        ops_per_s: ops as f64 / seconds,
        p50_us: outcome.latencies.quantile_us(0.5),
        p99_us: outcome.latencies.quantile_us(0.99),
        p999_us: outcome.latencies.quantile_us(0.999),
        max_us: outcome.latencies.max_us(),
    }
}
