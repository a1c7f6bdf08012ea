//! Commits a second and processor time a commit of the log stores, in one run on one disk.
//!
//! `cargo run --release -p storage-adapters --example log_store_speed [DIRECTORY]`
//!
//! Records have 300 bytes; each commit waits for its own fsync. The rounds of the stores alternate, and
//! the medians are printed. Processor time is that of the whole process, in the kernel too.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_core::ports::{LogChange, LogId, LogKind, LogRecord, LogStore, StoreError};
use storage_adapters::redb::{RedbLogStore, RedbOptions};
use storage_adapters::wal::{WalLogStore, WalOptions};

const RECORD_BYTES: usize = 300;
const BATCHES: [u64; 3] = [1, 64, 256];
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1_200);
/// Records that stay when older ones are purged.
const HELD: u64 = 100_000;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    println!("| store | batch | commits/s | records/s | µs of processor a commit | p50 µs | p99 µs |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for batch in BATCHES {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let [wal, redb] = &mut rounds;
            wal.push(measure(&parent, batch, |dir| WalLogStore::open(dir, WalOptions::default()))?);
            redb.push(measure(&parent, batch, |dir| RedbLogStore::open(dir, RedbOptions::default()))?);
        }
        for (name, rounds) in ["wal", "redb"].iter().zip(&mut rounds) {
            rounds.sort_by(|one, other| one.commits_per_s.total_cmp(&other.commits_per_s));
            let Round { commits_per_s, cpu_us, p50_us, p99_us } = rounds[ROUNDS / 2];
            let records = commits_per_s * batch as f64;
            println!(
                "| {name} | {batch} | {commits_per_s:.0} | {records:.0} | {cpu_us:.1} | {p50_us:.0} | {p99_us:.0} |"
            );
        }
    }
    Ok(())
}

struct Round {
    commits_per_s: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

fn measure<S: LogStore>(
    parent: &str,
    batch: u64,
    open: impl Fn(&Path) -> Result<S, StoreError>,
) -> Result<Round, Error> {
    let dir = tempfile::tempdir_in(parent)?;
    let store = open(dir.path())?;
    let payload = Bytes::from(vec![7; RECORD_BYTES]);
    let mut next = 0;
    let mut changes = |purges: bool| {
        let first = next;
        next += batch;
        let record = |index| LogRecord { id: id(index), kind: LogKind::Proposal, payload: payload.clone() };
        let mut changes: Vec<LogChange> =
            (first..next).map(|index| LogChange::Append(record(index))).collect();
        if purges && next > HELD {
            changes.push(LogChange::PurgeThrough(id(next - HELD)));
        }
        changes
    };
    for _ in 0..100 {
        store.commit(&changes(false))?;
    }
    let mut latencies_us = Vec::new();
    let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
    while started.elapsed() < ROUND {
        let changes = changes(latencies_us.len() % 64 == 0);
        let commit = Instant::now();
        store.commit(&changes)?;
        latencies_us.push(commit.elapsed().as_secs_f64() * 1e6);
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_before);
    let commits = latencies_us.len() as f64;
    latencies_us.sort_by(f64::total_cmp);
    let at = |share: usize| latencies_us[(latencies_us.len() - 1) * share / 100];
    Ok(Round {
        commits_per_s: commits / seconds,
        cpu_us: cpu * 1e6 / commits,
        p50_us: at(50),
        p99_us: at(99),
    })
}

fn id(index: u64) -> LogId {
    LogId { term: 1, node: 1, index }
}

/// Processor time of this process, from `/proc`: hundredths of a second, user and kernel.
fn cpu_seconds() -> Result<f64, Error> {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; the times are fields 14 and 15.
    let after = stat.rsplit_once(')').ok_or("an unexpected /proc/self/stat")?.1;
    let mut fields = after.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = fields.next().ok_or("no user time")??;
    let kernel = fields.next().ok_or("no kernel time")??;
    Ok((user + kernel) / TICKS_PER_S)
}
