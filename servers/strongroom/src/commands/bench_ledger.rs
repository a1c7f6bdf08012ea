//! `strongroom bench ledger`

mod latencies;
mod load;

use std::time::Duration;

use clap::{Args, ValueEnum};
use ledger_client::{CallPath, ErrorCode, LedgerClient, UnlistedNodes};
use ledger_core::names::VaultRef;
use serde_json::json;

use self::latencies::Latencies;
use self::load::{Load, Measured};
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{table, ttl};

/// Measure a ledger with closed-loop clients: each waits for its answer before it asks again. Writes into a vault
/// `bench/…` that it makes and deletes.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  strongroom bench ledger --clients 1,64,256 --seconds 10 --op write --json"
)]
pub struct BenchLedger {
    /// Numbers of clients, one round each.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Vec<u32>,
    /// Length of a round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Length of the unmeasured start of a round.
    #[arg(long, default_value = "1s", value_parser = ttl::parse, value_name = "DURATION")]
    warm_up: Duration,
    /// What the clients do.
    #[arg(long, default_value = "write")]
    op: BenchOp,
    /// HTTP/2 connections that the clients share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How calls travel: all of a connection over one stream, as clients do, or each as a request of its own.
    #[arg(long, default_value = "stream")]
    calls: BenchCalls,
    /// Stay at the nodes of --url, even where another leads.
    #[arg(long)]
    stay: bool,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Keys that are written and read.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    #[command(flatten)]
    server: ServerArgs,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchOp {
    /// One put per transaction.
    Write,
    /// Linearizable reads.
    Read,
    /// Reads of what the node has.
    ReadEventual,
    /// One hundred puts per transaction; a transaction counts once.
    Txn100,
}

/// How calls travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchCalls {
    /// Over one stream per connection.
    Stream,
    /// Each as a request of its own.
    Request,
}

impl BenchOp {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::ReadEventual => "read-eventual",
            Self::Txn100 => "txn100",
        }
    }
}

impl BenchLedger {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::error(format!("cannot start the runtime: {error}")))?;
        runtime.block_on(self.rounds(output))
    }

    async fn rounds(self, output: Output) -> Result<(), Failure> {
        let calls = match self.calls {
            BenchCalls::Stream => CallPath::Streamed,
            BenchCalls::Request => CallPath::Requests,
        };
        let connections = usize::from(self.connections);
        let unlisted = if self.stay { UnlistedNodes::Ignore } else { UnlistedNodes::Use };
        let client = self.server.client_for_load(connections, calls, unlisted)?;
        let vault = make_vault(&client).await?;
        let measured = self.measure_all(&client, &vault, output).await;
        // The vault goes, whatever the rounds did; their error is the one to report.
        let removed = client.delete_vault(&vault).await;
        // It stays while other benchmarks run in it.
        let _ = client.delete_namespace(&vault.namespace).await;
        measured?;
        removed?;
        Ok(())
    }

    async fn measure_all(
        &self,
        client: &LedgerClient,
        vault: &VaultRef,
        output: Output,
    ) -> Result<(), Failure> {
        let load = Load::new(client.clone(), vault.clone(), self.op, self.keys, self.value_bytes);
        if matches!(self.op, BenchOp::Read | BenchOp::ReadEventual) {
            output.note(&format!("writing {} keys", self.keys));
            load.fill().await?;
        }
        let mut rows = Vec::new();
        for clients in &self.clients {
            let measured = load.run(*clients, self.warm_up, Duration::from_secs(self.seconds)).await?;
            if output.is_json() {
                output.json_line(&document(self.op, *clients, &measured))?;
            }
            rows.push(row(*clients, &measured));
        }
        if output.is_json() {
            return Ok(());
        }
        output.text(&table::render(
            &["clients", "ops/s", "p50 us", "p99 us", "p99.9 us", "max us", "errors"],
            &rows,
        ))
    }
}

fn document(op: BenchOp, clients: u32, measured: &Measured) -> serde_json::Value {
    let latencies = &measured.latencies;
    json!({
        "op": op.name(),
        "clients": clients,
        "ops_per_s": measured.ops_per_s().round(),
        "p50_us": latencies.percentile_us(50.0),
        "p99_us": latencies.percentile_us(99.0),
        "p999_us": latencies.percentile_us(99.9),
        "max_us": latencies.max_us(),
        "errors": measured.errors,
    })
}

fn row(clients: u32, measured: &Measured) -> Vec<String> {
    let latencies: &Latencies = &measured.latencies;
    let percentiles = [50.0, 99.0, 99.9].map(|percent| latencies.percentile_us(percent).to_string());
    let mut row = vec![clients.to_string(), format!("{:.0}", measured.ops_per_s())];
    row.extend(percentiles);
    row.extend([latencies.max_us().to_string(), measured.errors.to_string()]);
    row
}

/// A vault of its own: a benchmark must not touch data.
async fn make_vault(client: &LedgerClient) -> Result<VaultRef, Failure> {
    let namespace =
        ledger_core::names::NamespaceName::new("bench").map_err(|error| Failure::error(error.to_string()))?;
    match client.create_namespace(&namespace).await {
        Err(error) if error.code() != ErrorCode::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let key = client.new_key().await?;
    let name = format!("bench/{}", hex::encode(key.as_bytes()));
    let vault: VaultRef =
        name.parse().map_err(|error: ledger_core::names::NameError| Failure::error(error.to_string()))?;
    client.create_vault(&vault).await?;
    Ok(vault)
}
