//! `limiters`: what one decision of a keyed limiter costs, ours beside governor's, in turns and in one process.
//!
//! Both count by GCRA, have integer keys and read the same kind of clock at each decision. Keys come in no order. Each round
//! measures both; the table tells the medians and the ratio of ours to governor's.

mod contender;
mod memory;
mod pace;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::contender::{Contender, Governed, Ours, Policy, Time};
use crate::memory::Held;
use crate::pace::{Load, median, nanoseconds_per_decision};

/// Most rounds and seconds that one run may ask for.
const ROUNDS_MAX: usize = 100;
const SECONDS_MAX: f64 = 60.0;

/// A keyed limiter's decision beside governor's.
#[derive(Debug, Parser)]
#[command(name = "limiters", version)]
struct Arguments {
    /// How often both are measured, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// What both read at each decision.
    #[arg(long, value_enum, default_value_t = ClockKind::Tsc)]
    clock: ClockKind,
    /// One JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
    /// Only what one of them takes of memory, in bytes per key: each is measured in a process of its own.
    #[arg(long, value_enum, hide = true)]
    memory: Option<Held>,
}

/// A clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ClockKind {
    /// The processor's time stamp counter, by the quanta crate: governor's default.
    Tsc,
    /// The monotonic clock of the operating system.
    Monotonic,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    keys: u64,
    threads: usize,
    clock: ClockKind,
    ours_ns: f64,
    governor_ns: f64,
    ratio: f64,
}

const CASES: [(&str, Load); 7] = [
    ("admit", Load { keys: 1_000, threads: 1, policy: Policy::Admits }),
    ("admit", Load { keys: 1_000_000, threads: 1, policy: Policy::Admits }),
    ("admit", Load { keys: 1_000_000, threads: 2, policy: Policy::Admits }),
    ("deny", Load { keys: 1_000, threads: 1, policy: Policy::Denies }),
    ("deny", Load { keys: 1_000_000, threads: 1, policy: Policy::Denies }),
    ("deny one hot key", Load { keys: 1, threads: 1, policy: Policy::Denies }),
    ("deny one hot key", Load { keys: 1, threads: 2, policy: Policy::Denies }),
];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!((1..=ROUNDS_MAX).contains(&arguments.rounds), "--rounds is 1 to {ROUNDS_MAX}");
    ensure!(
        arguments.seconds > 0.0 && arguments.seconds <= SECONDS_MAX,
        "--seconds is above 0 and at most {SECONDS_MAX}"
    );
    if let Some(held) = arguments.memory {
        println!("{}", held.bytes_per_key()?);
        return Ok(());
    }
    if !arguments.json {
        println!(
            "nanoseconds of processor time for each decision of a thread, medians of {} rounds",
            arguments.rounds
        );
        println!("{:<18} {:>9} {:>7} {:>9} {:>9} {:>6}", "", "keys", "threads", "ours", "governor", "ratio");
    }
    for (case, load) in CASES {
        let row = match arguments.clock {
            ClockKind::Tsc => measure(case, load, &arguments, contender::Tsc::default()),
            ClockKind::Monotonic => measure(case, load, &arguments, contender::Monotonic::default()),
        };
        if arguments.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!(
                "{:<18} {:>9} {:>7} {:>9.1} {:>9.1} {:>6.2}",
                row.case, row.keys, row.threads, row.ours_ns, row.governor_ns, row.ratio
            );
        }
    }
    memory::report(arguments.json)
}

fn measure<T: Time>(case: &'static str, load: Load, arguments: &Arguments, time: T) -> Row {
    let ours = Ours::new(load.policy, load.keys, time.clone());
    let governed = Governed::new(load.policy, time);
    ours.fill(load.keys);
    governed.fill(load.keys);
    let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let mut ours_again = || our_rounds.push(nanoseconds_per_decision(&ours, load, arguments.seconds));
        let mut theirs_again =
            || their_rounds.push(nanoseconds_per_decision(&governed, load, arguments.seconds));
        if round % 2 == 0 {
            ours_again();
            theirs_again();
        } else {
            theirs_again();
            ours_again();
        }
    }
    let (ours_ns, governor_ns) = (median(&mut our_rounds), median(&mut their_rounds));
    Row {
        case,
        keys: load.keys,
        threads: load.threads,
        clock: arguments.clock,
        ours_ns,
        governor_ns,
        ratio: ours_ns / governor_ns,
    }
}
