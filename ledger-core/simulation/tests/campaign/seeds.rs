//! The campaign over seeds.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

use ledger_simulation::run::{RunCounters, RunOptions, run};
use ledger_simulation::trace::Telling;

use super::{run_as_asked, seeds_or};

/// Seeds of a short run.
const SEEDS: Range<u64> = 1..17;
/// Of so many runs one may part from its repetition: none has been seen to.
const DIFFERING_PER_RUNS: usize = 100;

/// Where two runs of a seed part, when they do so again.
fn parting(seed: u64) -> String {
    let told = || run(RunOptions { telling: Telling::Kept, ..RunOptions::of(seed) }).unwrap().told;
    let (first, second) = (told(), told());
    let same = first.iter().zip(&second).take_while(|(one, other)| one == other).count();
    format!("after {same} lines: {:?} / {:?}", first.get(same), second.get(same))
}

/// What a campaign found.
#[derive(Default)]
struct Campaign {
    total: RunCounters,
    broken: Vec<u64>,
    differing: Vec<u64>,
}

/// Runs seeds on as many threads as there are processors: a run never leaves its thread.
fn campaign(seeds: Range<u64>) -> Campaign {
    let (queue, found) = (Mutex::new(seeds), Mutex::new(Campaign::default()));
    let work = || {
        loop {
            let next = queue.lock().unwrap().next();
            let Some(seed) = next else { return };
            let (first, second) = (run_as_asked(RunOptions::of(seed)), run_as_asked(RunOptions::of(seed)));
            let mut found = found.lock().unwrap();
            found.total += first.counters;
            for violation in &first.violations {
                println!("seed {seed}: {violation}");
            }
            if !first.violations.is_empty() {
                found.broken.push(seed);
            }
            if first.trace_hash != second.trace_hash {
                println!("seed {seed} does not repeat itself: {}", parting(seed));
                found.differing.push(seed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap()
}

/// Everything that a campaign must have met: zero of one means that it tested less than it says.
fn happened(counters: &RunCounters) -> [(&'static str, u64); 24] {
    let RunCounters { workload, nemesis, network, disks, replacement, divergence, .. } = counters;
    [
        ("elections", counters.elections),
        ("leader changes", counters.leader_changes),
        ("leads handed over", nemesis.transfers_done),
        ("snapshots installed", counters.snapshots_installed),
        ("nodes added", replacement.added),
        ("nodes removed", replacement.removed),
        ("disks that differ", divergence.planted),
        ("blocks that differ", divergence.blocks),
        ("nodes fenced for it", divergence.fenced),
        ("differences reported", divergence.reported),
        ("differences repaired", divergence.repaired),
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
        ("purges", disks.purges),
    ]
}

#[test]
fn campaign_no_seed_breaks_a_promise_and_each_repeats_itself() {
    let (seeds, started) = (seeds_or(SEEDS), Instant::now());
    let Campaign { total, broken, differing } = campaign(seeds.clone());
    let told: Vec<String> = happened(&total).iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!(
        "soak: simulation | {} | {} s simulated twice in {:.0?}, {} seeds differ when repeated, {} ms at most to \
         progress, {}",
        total.runs,
        total.simulated_ms / 1_000,
        started.elapsed(),
        differing.len(),
        total.progress_ms_max,
        told.join(", ")
    );
    let again = |seed| {
        format!(
            "STRONGROOM_SIMULATION_SEEDS={seed}..{} cargo test -p ledger-simulation --test campaign seeds -- --nocapture",
            seed + 1
        )
    };
    assert!(
        broken.is_empty(),
        "broken promises in {broken:?}; to see one again: {}",
        broken.first().map_or_else(String::new, |seed| again(*seed))
    );
    assert!(
        differing.len() * DIFFERING_PER_RUNS <= total.runs as usize,
        "seeds {differing:?} do not repeat themselves"
    );
    // A few seeds that somebody looks at need not have met everything.
    let is_campaign = seeds.end - seeds.start >= SEEDS.end - SEEDS.start;
    for (what, count) in happened(&total).into_iter().filter(|_| is_campaign) {
        assert!(count > 0, "no {what} in seeds {seeds:?}");
    }
}
