//! `distinct_keys [MILLIONS]` (100): as many keys as that ask once each, at a limiter with room for one million, and
//! victims among them that ask again and again for their one cell an hour.
//!
//! Prints the resident memory as it goes and what a decision took, and ends with an error when memory grew, a victim was
//! admitted twice, or the slowest in a thousand took ten times the median. All numbers are of one thread.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use ratelimit_core::{HashSecret, Limit, Limiter, Nanos, Rate, TableSize};

/// Live keys that have a slot.
const ROOM: u64 = 1_000_000;
/// Keys that have used their cell before the others come, and try again after every million of them.
const VICTIMS: u64 = 1_000;
/// Each of them is apart from the others, which count up from 0.
const FIRST_VICTIM: u64 = 1 << 60;
/// What the resident memory may vary by.
const FLAT_BYTES: u64 = 4 << 20;
const MILLION: u64 = 1_000_000;

fn main() -> ExitCode {
    let millions = match std::env::args().nth(1).map_or(Ok(100), |count| count.parse::<u64>()) {
        Ok(millions @ 3..=10_000) => millions,
        _ => {
            eprintln!("distinct_keys: give 3 to 10000 millions of keys");
            return ExitCode::from(2);
        }
    };
    let limit = Limit::gcra(Rate::per_hour(1), 1).expect("a limit");
    let limiter = Limiter::<u64>::new(limit, TableSize::for_keys(ROOM), HashSecret([9; 16])).expect("memory");
    let clock = Instant::now();
    let now = || Nanos::from_duration(clock.elapsed());
    let ask = |victim: u64| limiter.check(&(FIRST_VICTIM + victim), now()).is_allowed();
    let mut admitted: Vec<u32> = (0..VICTIMS).map(|victim| u32::from(ask(victim))).collect();

    let (mut filled_bytes, mut most_bytes) = (0, 0);
    let mut latencies = Latencies::default();
    println!("keys        resident    in slots  p50 ns  p99.9 ns");
    for million in 0..millions {
        // Keys in no order, none of them twice: multiplying by an odd number permutes all integers.
        let keys = (million * MILLION..(million + 1) * MILLION)
            .map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 4);
        let mut here = Latencies::default();
        for key in keys {
            let begin = Instant::now();
            black_box(limiter.check(&key, now()).is_allowed());
            here.record(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        for (victim, admitted) in (0..).zip(&mut admitted) {
            *admitted += u32::from(ask(victim));
        }
        let bytes = resident_bytes();
        // By then every line of the table was written to.
        if million == 2 {
            filled_bytes = bytes;
        }
        most_bytes = most_bytes.max(bytes);
        if (million + 1).is_power_of_two() || million + 1 == millions {
            let (p50, late) = (here.quantile(0.5), here.quantile(0.999));
            println!(
                "{:>4} million {:>5} MiB {:>11} {p50:>7} {late:>9}",
                million + 1,
                bytes >> 20,
                limiter.live_keys(now())
            );
        }
        latencies.merge(&here);
    }
    let (p50, late) = (latencies.quantile(0.5), latencies.quantile(0.999));
    let twice = admitted.iter().filter(|admitted| **admitted != 1).count();
    println!(
        "p50 {p50} ns, p99.9 {late} ns: {:.1} times; the slowest {} us",
        late as f64 / p50 as f64,
        latencies.max_ns / 1_000
    );
    println!("{VICTIMS} victims asked {} times each: {twice} were not admitted exactly once", millions + 1);
    let grew = most_bytes.saturating_sub(filled_bytes);
    println!("resident memory grew by {grew} bytes after the first 3 million keys");
    if grew > FLAT_BYTES || twice > 0 || late > 10 * p50 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the system holds in memory for this process.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("it takes Linux's /proc");
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4_096
}

/// Counts of latencies: by the nanosecond to 4,096, then by 32 steps for each power of two.
struct Latencies {
    counts: Vec<u64>,
    max_ns: u64,
}

const EXACT: u64 = 4_096;
const STEPS: u64 = 32;

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; (EXACT + STEPS * 52) as usize], max_ns: 0 }
    }
}

impl Latencies {
    fn record(&mut self, ns: u64) {
        let bucket = if ns < EXACT {
            ns
        } else {
            let shift = 63 - ns.leading_zeros() - 5;
            EXACT + u64::from(shift - 7) * STEPS + ((ns >> shift) - STEPS)
        };
        self.counts[bucket as usize] += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The lower end of the bucket that so large a part of all reaches.
    fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        let bucket = self.counts.iter().position(reached).unwrap_or(0) as u64;
        match bucket.checked_sub(EXACT) {
            None => bucket,
            Some(above) => (STEPS + above % STEPS) << (above / STEPS + 7),
        }
    }
}
