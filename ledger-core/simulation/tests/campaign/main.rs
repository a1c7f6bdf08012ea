//! Real nodes under faults, judged by what their clients saw: no seed may break a promise, every planted bug must be
//! found.
//!
//! `STRONGROOM_SIMULATION_SEEDS=FROM..TO` runs other seeds; `STRONGROOM_SIMULATION_TELL=1` prints what happens.

mod planted;
mod returning;
mod seeds;

use std::ops::Range;

use ledger_simulation::run::{Report, RunOptions, run};
use ledger_simulation::trace::Telling;

/// The seeds that are asked for, or else these.
fn seeds_or(usual: Range<u64>) -> Range<u64> {
    let text = std::env::var("STRONGROOM_SIMULATION_SEEDS").unwrap_or_default();
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.unwrap_or(usual)
}

fn run_as_asked(options: RunOptions) -> Report {
    let told = std::env::var_os("STRONGROOM_SIMULATION_TELL").is_some();
    let telling = if told { Telling::Aloud } else { Telling::Quiet };
    run(RunOptions { telling, ..options }).unwrap()
}
