//! Three real nodes under faults, judged by what their clients saw.
//!
//! `STRONGROOM_SIMULATION_SEEDS=FROM..TO` runs other seeds; `STRONGROOM_SIMULATION_TELL=1` prints what happens.

use std::time::Instant;

use ledger_simulation::run::{Report, RunCounters, RunOptions, run};
use ledger_simulation::trace::Telling;

/// Seeds of a short run.
const SEEDS: std::ops::Range<u64> = 1..5;

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("STRONGROOM_SIMULATION_SEEDS").unwrap_or_default();
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.unwrap_or(SEEDS)
}

fn run_seed(seed: u64) -> Report {
    let told = std::env::var_os("STRONGROOM_SIMULATION_TELL").is_some();
    let telling = if told { Telling::Aloud } else { Telling::Quiet };
    run(RunOptions { telling, ..RunOptions::of(seed) }).unwrap()
}

/// Everything that a campaign must have met: zero of one means that it tested less than it says.
fn happened(counters: &RunCounters) -> [(&'static str, u64); 14] {
    let RunCounters { workload, nemesis, network, disks, .. } = counters;
    [
        ("elections", counters.elections),
        ("leader changes", counters.leader_changes),
        ("blocks", counters.blocks),
        ("writes", workload.writes),
        ("reads", workload.reads),
        ("checkpoints", workload.checkpoints),
        ("refused conditions", workload.refusals),
        ("unknown outcomes", workload.unknown),
        ("replayed writes", workload.replays),
        ("crashes", nemesis.crashes),
        ("cuts", nemesis.cuts),
        ("messages lost to cuts", network.cut),
        ("messages out of order", network.overtaken),
        ("truncations", disks.truncations),
    ]
}

#[test]
#[ignore = "not seen to pass yet: cargo test -p ledger-simulation --test campaign -- --ignored --nocapture"]
fn campaign_no_seed_breaks_a_promise_and_each_repeats_itself() {
    let (seeds, started) = (seeds(), Instant::now());
    let (mut total, mut broken, mut differing) = (RunCounters::default(), Vec::new(), Vec::new());
    for seed in seeds.clone() {
        let (first, second) = (run_seed(seed), run_seed(seed));
        total += first.counters;
        if first.trace_hash != second.trace_hash {
            differing.push(seed);
        }
        for violation in &first.violations {
            println!("seed {seed}: {violation}");
        }
        if !first.violations.is_empty() {
            broken.push(seed);
        }
    }
    let told: Vec<String> = happened(&total).iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!(
        "soak: simulation | {} | {} s simulated twice in {:.0?}, {} seeds differ when repeated, {}",
        total.runs,
        total.simulated_ms / 1_000,
        started.elapsed(),
        differing.len(),
        told.join(", ")
    );
    let again = |seed| {
        format!(
            "STRONGROOM_SIMULATION_SEEDS={seed}..{} cargo test -p ledger-simulation --test campaign -- --nocapture",
            seed + 1
        )
    };
    assert!(
        broken.is_empty(),
        "broken promises; to see one again: {}",
        broken.first().map_or_else(String::new, |seed| again(*seed))
    );
    assert!(differing.len() * 100 <= total.runs as usize, "seeds {differing:?} do not repeat themselves");
    for (what, count) in happened(&total) {
        assert!(count > 0, "no {what} in seeds {seeds:?}");
    }
}
