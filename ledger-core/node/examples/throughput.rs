//! Closed-loop writers and readers in one process, on the embedded stores.
//!
//! `cargo run --release -p ledger-node --example throughput -- [WRITERS] [SECONDS] [DIRECTORY]`

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Consistency, Counters, DataDirectory, Ledger, Options, Stores, VerifiedSubject};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

/// Distinct keys that are written.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let clients: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let directory = match arguments.next() {
        Some(path) => DataDirectory::open(PathBuf::from(path))?,
        None => DataDirectory::ephemeral()?,
    };
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default())?;
    let parts = Stores { log: stores.log.clone(), state: stores.state.clone() };
    let ledger = Ledger::open(directory, parts, Options::default()).await?;
    let vault: VaultRef = "bench/bench".parse()?;
    // Both exist already when a directory is used again.
    let _ = ledger.create_namespace(NamespaceName::new("bench")?).await;
    let _ = ledger.create_vault(vault.clone()).await;

    let syncs = stores.log.syncs();
    let before = ledger.counters();
    let target = (ledger.clone(), vault.clone());
    let written = closed_loop("writes", clients, seconds, move |client, turn| {
        let (ledger, vault) = target.clone();
        async move { write(&ledger, &vault, client, turn).await }
    })
    .await?;
    report(before, ledger.counters(), stores.log.syncs() - syncs, written);
    let target = (ledger.clone(), vault.clone());
    closed_loop("linearizable reads", clients, seconds, move |client, turn| {
        let (ledger, vault) = target.clone();
        async move {
            let key = EntityKey::new(&format!("key-{:08}", (client * 7_919 + turn) % KEYS))?;
            ledger.get(&vault, &key, Consistency::Linearizable).await?;
            Ok(())
        }
    })
    .await?;
    let target = (ledger.clone(), vault.clone());
    closed_loop("verified reads", clients, seconds, move |client, turn| {
        let (ledger, vault) = target.clone();
        async move {
            let key = EntityKey::new(&format!("key-{:08}", (client * 7_919 + turn) % KEYS))?;
            ledger.verified_read(&vault, VerifiedSubject::Entity(key), 0).await?;
            Ok(())
        }
    })
    .await?;
    ledger.shutdown().await?;
    Ok(())
}

async fn write(ledger: &Ledger, vault: &VaultRef, client: u64, turn: u64) -> Outcome<()> {
    let number = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ turn.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(client << 40 | turn).to_be_bytes());
    let operation = Operation {
        action: Action::SetEntity {
            key: EntityKey::new(&format!("key-{:08}", number % KEYS))?,
            value: EntityValue::new(vec![turn as u8; VALUE_BYTES])?,
            expires_at_ms: 0,
        },
        condition: None,
    };
    let key = IdempotencyKey::from_parts(ledger.log_time_ms(), random);
    let transaction = Transaction::new(key, vec![operation])?;
    ledger.write(vault, &Actor::new("client:bench")?, transaction).await?;
    Ok(())
}

/// Every client sends its next request when the one before is answered. Returns how many were answered.
async fn closed_loop<F>(
    name: &str,
    clients: u64,
    seconds: u64,
    request: impl Fn(u64, u64) -> F + Clone + Send + Sync + 'static,
) -> Outcome<u64>
where
    F: Future<Output = Outcome<()>> + Send,
{
    let started = Instant::now();
    let deadline = started + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let request = request.clone();
        tasks.spawn(async move {
            let mut latencies_us = Vec::new();
            while Instant::now() < deadline {
                let sent = Instant::now();
                request(client, latencies_us.len() as u64).await?;
                latencies_us.push(sent.elapsed().as_micros());
            }
            Outcome::Ok(latencies_us)
        });
    }
    let mut latencies_us = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies_us.extend(task??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let at = |share: f64| latencies_us[((latencies_us.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    let rate = latencies_us.len() as f64 / elapsed;
    println!("{name}: {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
    Ok(latencies_us.len() as u64)
}

fn report(before: Counters, after: Counters, syncs: u64, written: u64) {
    let entries = after.write_entries - before.write_entries;
    let batches = after.log_batches - before.log_batches;
    println!(
        "  {written} writes in {entries} log entries ({:.0} each), {batches} commits, {syncs} fsyncs, {} flushes, {} stalls",
        written as f64 / entries as f64,
        after.flushes - before.flushes,
        after.apply_stalls - before.apply_stalls
    );
}
