//! The closed loop: `clients` tasks, each with one request outstanding, until the time is over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::Operation;
use crate::etcd::{Connection, Etcd};
use crate::latency::Latencies;

/// A client that only meets errors stops after this many, so that a dead server does not spin.
const ERRORS_PER_CLIENT_MAX: u64 = 100;

/// Puts of one transaction. Their keys follow each other: etcd refuses a key that comes twice.
pub(crate) const TXN_PUTS: u64 = 100;

/// What every client of a measurement does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) operation: Operation,
    /// Distinct keys, chosen uniformly.
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) duration: Duration,
}

impl Workload {
    /// The key with this number: short, and of one length, as `strongroom bench ledger` writes them.
    pub(crate) fn key(number: u64) -> Vec<u8> {
        format!("bench/{number:010}").into_bytes()
    }
}

/// What one measurement saw.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
}

/// Runs `clients` closed loops over the peer's connections and adds up what they saw.
pub(crate) async fn run(peer: &Etcd, workload: Workload, clients: usize) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let deadline = started + workload.duration;
    let mut loops = JoinSet::new();
    for client in 0..clients {
        let connection = peer.connection(client);
        loops.spawn(client_loop(connection, workload, client as u64, deadline));
    }
    let mut outcome = Outcome { latencies: Latencies::new(), errors: 0, elapsed: Duration::ZERO };
    while let Some(finished) = loops.join_next().await {
        let (latencies, errors) = finished.context("a client loop stopped")?;
        outcome.latencies.merge(&latencies);
        outcome.errors += errors;
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

async fn client_loop(
    mut connection: Connection,
    workload: Workload,
    client: u64,
    deadline: Instant,
) -> (Latencies, u64) {
    let mut latencies = Latencies::new();
    let mut errors = 0;
    let mut random = SplitMix(client);
    let mut value = vec![0_u8; workload.value_bytes];
    loop {
        let sent = Instant::now();
        if sent >= deadline || errors >= ERRORS_PER_CLIENT_MAX {
            return (latencies, errors);
        }
        let key = Workload::key(random.next() % workload.keys);
        let answer = match workload.operation {
            Operation::Write => {
                random.fill(&mut value);
                connection.put(key, value.clone()).await
            }
            Operation::Txn100 => {
                let first = random.next();
                let mut puts = Vec::with_capacity(TXN_PUTS as usize);
                for offset in 0..TXN_PUTS {
                    random.fill(&mut value);
                    puts.push((Workload::key(first.wrapping_add(offset) % workload.keys), value.clone()));
                }
                connection.put_all(puts).await
            }
            Operation::Read => connection.read_linearizable(key).await,
            Operation::ReadEventual => connection.read_serializable(key).await,
        };
        match answer {
            Ok(()) => latencies.record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(error) => {
                if errors == 0 {
                    eprintln!("client {client}: {error:#}");
                }
                errors += 1;
            }
        }
    }
}

/// `SplitMix64`: fast, seeded by the client's number, so that every run asks for the same keys.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Fills `bytes` with fresh values, so that nothing on the way can deduplicate or compress them.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            for (byte, fresh) in chunk.iter_mut().zip(word) {
                *byte = fresh;
            }
        }
    }
}
