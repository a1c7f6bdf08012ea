//! `overshoot [SECONDS]` (1): what threads that ask without a pause are admitted of one key, beside what the limit promises.
//!
//! One row for each store, number of threads and fault, each of so many seconds. The bound of a bucket holds in every
//! interval: `burst + ⌊w / T⌋`. `worst` is the most that any interval admitted beyond what refills in it, which a burst
//! bounds; a fault that forgets or opens something, as the store says of itself, may add one burst. Ends with an error
//! when a bound was broken, so that a table that is printed is a table that holds.

mod crowd;
mod outages;
mod stores;

use std::process::ExitCode;
use std::time::Duration;

use crowd::Crowd;
use ratelimit_core::{Limit, Rate};
use stores::{Durable, Kind, Memory};

/// Cells at once, and cells a second: few enough that every thread count asks for many times as much.
const BURST: u64 = 500;
const PER_SECOND: u64 = 2_000;
const CELL_NS: u64 = 1_000_000_000 / PER_SECOND;
const THREADS: [usize; 3] = [1, 8, 64];

fn main() -> ExitCode {
    let Ok(seconds) = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse::<f64>()) else {
        eprintln!("overshoot: give seconds");
        return ExitCode::from(2);
    };
    let length = Duration::from_secs_f64(seconds.clamp(0.1, 60.0));
    println!("a bucket of {BURST} that refills {PER_SECOND} a second, asked for {length:?}");
    println!("store   threads  fault                         asked  admitted   bound    worst  allowed");
    let broken = table(|| Memory, length) | table(Durable::new, length) | without_store(length);
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints the rows of a store; whether a bound was broken.
fn table<K: Kind>(kind: impl Fn() -> K, length: Duration) -> bool {
    let mut broken = false;
    for threads in THREADS {
        for fault in stores::Fault::ALL {
            let crowd = stores::run(&kind(), threads, fault, length);
            let allowed = Some(BURST * (1 + fault.bursts(K::DURABLE)));
            broken |= Row { store: K::NAME, threads, fault: fault.name(), allowed }.print(&crowd);
        }
    }
    broken
}

/// Prints the rows of rules whose store goes down; whether a bound was broken.
fn without_store(length: Duration) -> bool {
    let mut broken = false;
    for threads in THREADS {
        for (fault, mode, allowed) in outages::MODES {
            let crowd = outages::run(mode, threads, length);
            broken |= Row { store: "engine", threads, fault, allowed }.print(&crowd);
        }
    }
    broken
}

fn bucket() -> Limit {
    Limit::gcra(Rate::per_second(PER_SECOND), BURST).expect("a limit")
}

struct Row {
    store: &'static str,
    threads: usize,
    fault: &'static str,
    /// What every interval may have beyond what refills in it; nothing bounds a rule that stands open.
    allowed: Option<u64>,
}

impl Row {
    /// Prints the row; whether a bound was broken.
    fn print(&self, crowd: &Crowd) -> bool {
        let Self { store, threads, fault, allowed } = self;
        let (asked, admitted, worst) = (crowd.asked, crowd.passed.len() as u64, crowd.worst());
        let bound = allowed.map(|allowed| allowed + crowd.span_ns() / CELL_NS);
        let is_broken = bound.is_some_and(|bound| admitted > bound)
            || allowed.is_some_and(|allowed| worst > allowed)
            || crowd.failed > 0;
        let mark = if is_broken { "  BROKEN" } else { "" };
        let shown = |bound: &Option<u64>| bound.map_or("none".to_owned(), |bound| bound.to_string());
        let (bound, allowed) = (shown(&bound), shown(allowed));
        println!(
            "{store:<7} {threads:>7}  {fault:<24} {asked:>10} {admitted:>9} {bound:>7} {worst:>8} {allowed:>8}{mark}"
        );
        is_broken
    }
}
