//! Clients that ask, wait, and ask again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_client::{ClientError, Consistency, LedgerClient};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, Operation};
use tokio::task::JoinSet;

use super::BenchOp;
use super::latencies::Latencies;
use crate::failure::Failure;

/// Operations of a `txn100`, and of the transactions that fill a vault.
const TRANSACTION_OPERATIONS: u32 = 100;
/// Transactions under way while a vault is filled.
const FILL_IN_FLIGHT: u32 = 32;

/// What the clients do.
#[derive(Clone)]
pub struct Load {
    client: LedgerClient,
    vault: VaultRef,
    op: BenchOp,
    keys: u32,
    value: Bytes,
}

/// What a round gave.
pub struct Measured {
    /// Of the calls that succeeded.
    pub latencies: Latencies,
    /// Calls that failed.
    pub errors: u64,
    elapsed: Duration,
}

impl Measured {
    /// Successful calls per second.
    pub fn ops_per_s(&self) -> f64 {
        self.latencies.total() as f64 / self.elapsed.as_secs_f64()
    }
}

impl Load {
    /// Clients of one vault.
    pub fn new(client: LedgerClient, vault: VaultRef, op: BenchOp, keys: u32, value_bytes: u32) -> Self {
        let value = (0..value_bytes).map(|index| (index % 251) as u8).collect::<Vec<_>>().into();
        Self { client, vault, op, keys, value }
    }

    /// Writes every key once.
    pub async fn fill(&self) -> Result<(), Failure> {
        let next = Arc::new(AtomicU32::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..FILL_IN_FLIGHT {
            let (load, next) = (self.clone(), Arc::clone(&next));
            writers.spawn(async move {
                loop {
                    let first = next.fetch_add(TRANSACTION_OPERATIONS, Ordering::Relaxed);
                    if first >= load.keys {
                        return Ok::<(), Failure>(());
                    }
                    let last = load.keys.min(first.saturating_add(TRANSACTION_OPERATIONS));
                    let operations =
                        (first..last).map(|number| load.put(number)).collect::<Result<_, _>>()?;
                    load.client.write(&load.vault, operations).await?;
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.map_err(|error| Failure::error(error.to_string()))??;
        }
        Ok(())
    }

    /// One round.
    pub async fn run(&self, clients: u32, warm_up: Duration, length: Duration) -> Result<Measured, Failure> {
        let (measuring, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut loops = JoinSet::new();
        for number in 0..clients {
            let (load, measuring, stop) = (self.clone(), Arc::clone(&measuring), Arc::clone(&stop));
            loops.spawn(async move { load.client_loop(number, &measuring, &stop).await });
        }
        tokio::time::sleep(warm_up).await;
        let started = Instant::now();
        measuring.store(true, Ordering::Relaxed);
        tokio::time::sleep(length).await;
        measuring.store(false, Ordering::Relaxed);
        let elapsed = started.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut measured = Measured { latencies: Latencies::default(), errors: 0, elapsed };
        while let Some(done) = loops.join_next().await {
            let (latencies, errors) = done.map_err(|error| Failure::error(error.to_string()))??;
            measured.latencies.merge(&latencies);
            measured.errors += errors;
        }
        Ok(measured)
    }

    async fn client_loop(
        &self,
        number: u32,
        measuring: &AtomicBool,
        stop: &AtomicBool,
    ) -> Result<(Latencies, u64), Failure> {
        let (mut latencies, mut errors) = (Latencies::default(), 0);
        let mut random = Sequence::new(number);
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let answer = self.call(&mut random).await?;
            if measuring.load(Ordering::Relaxed) {
                match answer {
                    Ok(()) => {
                        latencies.record(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
                    }
                    Err(_) => errors += 1,
                }
            }
        }
        Ok((latencies, errors))
    }

    /// One call; the outer error is one of this program.
    async fn call(&self, random: &mut Sequence) -> Result<Result<(), ClientError>, Failure> {
        let operations = match self.op {
            BenchOp::Read => return self.read(random, Consistency::Linearizable).await,
            BenchOp::ReadEventual => return self.read(random, Consistency::Eventual).await,
            BenchOp::Write => vec![self.put(random.below(self.keys))?],
            BenchOp::Txn100 => {
                let puts = (0..TRANSACTION_OPERATIONS).map(|_| self.put(random.below(self.keys)));
                puts.collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(self.client.write(&self.vault, operations).await.map(|_| ()))
    }

    async fn read(
        &self,
        random: &mut Sequence,
        consistency: Consistency,
    ) -> Result<Result<(), ClientError>, Failure> {
        let key = key(random.below(self.keys))?;
        match self.client.get(&self.vault, &key, consistency).await {
            Ok(read) if read.value.is_none() => Err(Failure::error(format!("{} is missing", key.as_str()))),
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        }
    }

    fn put(&self, number: u32) -> Result<Operation, Failure> {
        let value =
            EntityValue::new(self.value.clone()).map_err(|error| Failure::usage(error.to_string()))?;
        let action = Action::SetEntity { key: key(number)?, value, expires_at_ms: 0 };
        Ok(Operation { action, condition: None })
    }
}

fn key(number: u32) -> Result<EntityKey, Failure> {
    EntityKey::new(&format!("key:{number:08}")).map_err(|error| Failure::error(error.to_string()))
}

/// A fast sequence of numbers that differs from client to client (xorshift64*, Vigna 2016): which keys are used
/// must not cost anything.
struct Sequence(u64);

impl Sequence {
    fn new(client: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (u64::from(client) + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // The product of two 32-bit numbers, shifted down, is below `end`.
        ((number * u64::from(end)) >> 32) as u32
    }
}
