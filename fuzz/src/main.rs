//! Runs every target for a time on the stable toolchain: seeds, mutations of them, and mutations of what was accepted.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use strongroom_fuzz::mutation::{Dice, mutated};
use strongroom_fuzz::{TARGETS, Target, made_seeds};

const USAGE: &str = "Usage: strongroom-fuzz SECONDS [TARGET] | strongroom-fuzz --write-seeds";
/// Accepted inputs that are mutated further, of one target.
const KEPT_MAX: usize = 512;
/// An input that takes longer is a hang.
const HANG: Duration = Duration::from_secs(5);
/// More resident memory than this is unbounded growth.
const MEMORY_KIB_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--write-seeds"] => write_seeds(),
        [seconds] => run(&TARGETS, seconds),
        [seconds, target] => run(&[Target::named(target)], seconds),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn run(targets: &[Target], seconds: &str) -> ExitCode {
    let Ok(seconds) = seconds.parse::<u64>() else { return usage() };
    let each = Duration::from_secs(seconds) / u32::try_from(targets.len()).unwrap_or(1).max(1);
    let (mut total, mut accepted_total) = (0, 0);
    for (number, target) in targets.iter().enumerate() {
        let (runs, accepted) = fuzz(target, each, number as u64);
        println!("{}: {runs} inputs, {accepted} accepted", target.name);
        assert!(accepted > 0 && accepted < runs, "{} accepts everything or nothing", target.name);
        total += runs;
        accepted_total += accepted;
    }
    let memory_kib = peak_memory_kib();
    assert!(memory_kib < MEMORY_KIB_MAX, "{memory_kib} KiB of memory were in use");
    println!(
        "\nsoak: fuzzing of every decoder | {total} | {} decoders, {accepted_total} inputs accepted, {} refused, {} MiB \
         of memory at most, 0 violations",
        targets.len(),
        total - accepted_total,
        memory_kib >> 10
    );
    ExitCode::SUCCESS
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> (u64, u64) {
    let mut inputs = target.seeds();
    let seeds = inputs.len();
    let mut dice = Dice::new(seed);
    let started = Instant::now();
    let (mut runs, mut accepted) = (0, 0);
    while started.elapsed() < time {
        let input = mutated(&inputs, &mut dice);
        // A panic ends the run: what made it panic must be known by then.
        let guard = Report { target: target.name, input: &input };
        let began = Instant::now();
        let was_accepted = (target.run)(&input);
        assert!(began.elapsed() < HANG, "{} took {:?}", target.name, began.elapsed());
        std::mem::forget(guard);
        runs += 1;
        if was_accepted {
            accepted += 1;
            if inputs.len() < seeds + KEPT_MAX {
                inputs.push(input);
            } else {
                let replaced = seeds + dice.below(KEPT_MAX);
                inputs[replaced] = input;
            }
        }
    }
    (runs, accepted)
}

/// Prints the input when its run panics.
struct Report<'a> {
    target: &'static str,
    input: &'a [u8],
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        eprintln!("{} broke a promise with the input {:02x?}", self.target, self.input);
    }
}

/// The most memory that the process had at once, where the system tells.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

fn write_seeds() -> ExitCode {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (target, name, bytes) in made_seeds() {
        let folder = root.join(target);
        let written =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(&name), bytes));
        if let Err(error) = written {
            eprintln!("cannot write {target}/{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
