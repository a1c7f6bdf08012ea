//! Writes beside snapshots: throughput and latency with none, and with one after the other all the time.
//!
//! `cargo run --release -p ledger-node --example snapshot_load -- [KEYS] [WRITERS] [SECONDS] [ROUNDS]`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, OPERATIONS_MAX, Operation, Transaction};
use ledger_node::{DataDirectory, Ledger, Options, Stores};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

const VALUE_BYTES: usize = 256;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (keys, writers, seconds, rounds) = (next(200_000)?, next(64)?, next(5)?, next(3)?);
    let directory = DataDirectory::ephemeral()?;
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default())?;
    let parts = Stores { log: stores.log, state: stores.state };
    let options = Options { snapshot_every: Duration::ZERO, ..Options::default() };
    let ledger = Ledger::open(directory, parts, options).await?;
    let vault: VaultRef = "bench/bench".parse()?;
    ledger.create_namespace(NamespaceName::new("bench")?).await?;
    ledger.create_vault(vault.clone()).await?;
    let numbers: Vec<u64> = (0..keys).collect();
    for chunk in numbers.chunks(OPERATIONS_MAX) {
        write(&ledger, &vault, chunk).await?;
    }
    let made = ledger.create_snapshot().await?;
    let bytes = std::fs::metadata(&made.path)?.len();
    println!("{keys} keys, a snapshot of {} MB, {writers} writers", bytes / 1_000_000);
    for _ in 0..rounds {
        let alone = run(&ledger, &vault, keys, writers, seconds).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let snapshots = tokio::spawn(snapshots(ledger.clone(), Arc::clone(&stop)));
        let beside = run(&ledger, &vault, keys, writers, seconds).await?;
        stop.store(true, Ordering::SeqCst);
        let (written, took) = snapshots.await??;
        println!(
            "alone {:.0}/s p99 {:.2} ms; beside {written} snapshots of {took:.1} s each {:.0}/s p99 {:.2} ms: {:.0} % of \
             the throughput, p99 x {:.2}",
            alone.0,
            alone.1,
            beside.0,
            beside.1,
            100.0 * beside.0 / alone.0,
            beside.1 / alone.1
        );
    }
    ledger.shutdown().await?;
    Ok(())
}

async fn snapshots(ledger: Ledger, stop: Arc<AtomicBool>) -> Outcome<(u32, f64)> {
    let (mut written, started) = (0, Instant::now());
    while !stop.load(Ordering::SeqCst) {
        ledger.create_snapshot().await?;
        written += 1;
    }
    Ok((written, started.elapsed().as_secs_f64() / f64::from(written.max(1))))
}

/// Writes per second, and the 99th percentile of their latency in milliseconds.
async fn run(
    ledger: &Ledger,
    vault: &VaultRef,
    keys: u64,
    writers: u64,
    seconds: u64,
) -> Outcome<(f64, f64)> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let tasks = (0..writers).map(|writer| {
        let (ledger, vault) = (ledger.clone(), vault.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut turn = writer;
            while Instant::now() < deadline {
                let began = Instant::now();
                turn = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(writer);
                write(&ledger, &vault, &[(turn >> 20) % keys]).await?;
                latencies.push(began.elapsed());
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(latencies)
        })
    });
    let mut latencies = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    let p99 =
        latencies.get(latencies.len() * 99 / 100).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0);
    Ok((latencies.len() as f64 / seconds as f64, p99))
}

async fn write(ledger: &Ledger, vault: &VaultRef, numbers: &[u64]) -> Outcome<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&unique.to_be_bytes());
    let mut operations = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut noise = number.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ unique;
        let value = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 33) as u8
        });
        operations.push(Operation {
            action: Action::SetEntity {
                key: EntityKey::new(&format!("key-{number:08}"))?,
                value: EntityValue::new(value.take(VALUE_BYTES).collect::<Vec<_>>())?,
                expires_at_ms: 0,
            },
            condition: None,
        });
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let key = IdempotencyKey::from_parts(u64::try_from(now)?, random);
    ledger.write(vault, &Actor::new("client:bench")?, Transaction::new(key, operations)?).await?;
    Ok(())
}
