//! Seeds, one after the other, each twice.

use ledger_simulation::run::{Report, RunOptions, run};
use ledger_simulation::trace::Telling;

fn run_seed(seed: u64, telling: Telling) -> Report {
    run(RunOptions { telling, ..RunOptions::of(seed) }).unwrap()
}

#[test]
fn one() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let started = std::time::Instant::now();
    let telling = if std::env::var("TELL").is_ok() { Telling::Aloud } else { Telling::Quiet };
    let report = run_seed(seed, telling);
    println!("{:#?} in {:?}", report.counters, started.elapsed());
    for violation in &report.violations {
        println!("{violation}");
    }
    println!("{:x}", report.trace_hash);
    assert!(report.violations.is_empty());
}
