//! What a live key takes of resident memory.

use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use ratelimit_core::{HashSecret, Limit, Limiter, Nanos, Rate, TableSize};
use serde::Serialize;

use crate::contender::{Contender as _, Governed, Monotonic, Policy};

const KEYS: u64 = 1_000_000;
const PAGE_BYTES: u64 = 4_096;

/// Who holds the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Held {
    /// Our table alone: of the keys, one in 150 finds no slot and is denied.
    Ours,
    /// Our table and the sketch.
    OursWithSketch,
    /// Governor's map.
    Governor,
}

#[derive(Debug, Serialize)]
struct Memory {
    keys: u64,
    ours_bytes_per_key: f64,
    sketch_bytes_per_key: f64,
    governor_bytes_per_key: f64,
}

/// Measures all and prints it.
pub fn report(json: bool) -> anyhow::Result<()> {
    let ours = elsewhere(Held::Ours)?;
    let memory = Memory {
        keys: KEYS,
        ours_bytes_per_key: ours,
        sketch_bytes_per_key: elsewhere(Held::OursWithSketch)? - ours,
        governor_bytes_per_key: elsewhere(Held::Governor)?,
    };
    if json {
        println!("{}", serde_json::to_string(&memory)?);
    } else {
        println!(
            "resident bytes for each of {KEYS} live keys: ours {ours:.1}, the sketch {:.1} more; governor {:.1}",
            memory.sketch_bytes_per_key, memory.governor_bytes_per_key
        );
    }
    Ok(())
}

/// In a process of its own: what others have freed would be used again, and not be seen to grow.
fn elsewhere(held: Held) -> anyhow::Result<f64> {
    let name = held.to_possible_value().context("a name")?;
    let said = Command::new(std::env::current_exe()?).args(["--memory", name.get_name()]).output()?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8(said.stdout)?.trim().parse()?)
}

impl Held {
    /// Fills it, and tells by how much the process has grown.
    pub fn bytes_per_key(self) -> anyhow::Result<f64> {
        let before = resident_bytes()?;
        let grown = || anyhow::Ok(resident_bytes()?.saturating_sub(before) as f64 / KEYS as f64);
        let sketch_bytes = match self {
            Self::Ours => 0,
            Self::OursWithSketch => TableSize::SKETCH_BYTES_DEFAULT,
            Self::Governor => {
                let governed = Governed::new(Policy::Denies, Monotonic::default());
                governed.fill(KEYS);
                return grown();
            }
        };
        let size = TableSize { keys: KEYS, sketch_bytes };
        let limiter = Limiter::<u64>::new(Limit::gcra(Rate::per_hour(1), 1)?, size, HashSecret([9; 16]))?;
        for key in 0..KEYS {
            limiter.check(&key, Nanos(1));
        }
        let bytes = grown()?;
        ensure!(limiter.live_keys(Nanos(1)) > KEYS * 9 / 10, "the keys are not live");
        Ok(bytes)
    }
}

fn resident_bytes() -> anyhow::Result<u64> {
    let sizes = std::fs::read_to_string("/proc/self/statm").context("it takes Linux's /proc")?;
    let pages = sizes.split_whitespace().nth(1).context("a second number in /proc/self/statm")?;
    Ok(pages.parse::<u64>()? * PAGE_BYTES)
}
