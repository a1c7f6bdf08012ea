//! The fuzz targets on the stable toolchain: committed seeds, and the same damage to them every time.

use std::time::{Duration, Instant};

use strongroom_fuzz::mutation::{Dice, mutated};
use strongroom_fuzz::{TARGETS, made_seeds};

/// Damaged inputs of each target.
const MUTATIONS: usize = 1_500;
/// No input takes longer, in a build without optimisation.
const HANG: Duration = Duration::from_secs(10);

#[test]
fn every_committed_seed_runs_and_every_target_has_one_that_it_accepts() {
    for target in TARGETS {
        let seeds = target.seeds();
        let accepted = seeds.iter().filter(|seed| (target.run)(seed)).count();
        assert!(accepted > 0, "{} accepts none of its {} seeds", target.name, seeds.len());
    }
}

#[test]
fn damaged_seeds_are_refused_or_decoded_and_never_panic_or_hang() {
    for (number, target) in TARGETS.iter().enumerate() {
        let (seeds, mut dice) = (target.seeds(), Dice::new(number as u64));
        let mut accepted = 0;
        for _ in 0..MUTATIONS {
            let input = mutated(&seeds, &mut dice);
            let started = Instant::now();
            accepted += usize::from((target.run)(&input));
            assert!(started.elapsed() < HANG, "{}: {:?} for {input:02x?}", target.name, started.elapsed());
        }
        println!("{}: {accepted} of {MUTATIONS} accepted", target.name);
        assert!(accepted < MUTATIONS, "{} accepts whatever it is given", target.name);
    }
}

/// The seeds are what the program writes today: a format that changes needs new ones.
#[test]
fn made_seeds_are_accepted_as_they_are() {
    let made = made_seeds();
    for target in
        ["proposal", "page_token", "state_rows", "undo_rows", "wal_segments", "redb_rows", "increment"]
    {
        let run = strongroom_fuzz::Target::named(target).run;
        let seeds = made.iter().filter(|(of, ..)| *of == target);
        let accepted = seeds.filter(|(_, _, bytes)| run(bytes)).count();
        assert!(accepted >= 3, "{target} accepts {accepted} of what is made for it");
    }
}

/// These seeds are sound ones of every kind: a layout that changes needs new ones.
#[test]
fn every_seed_of_what_nodes_of_a_cluster_exchange_is_accepted() {
    for name in ["peer_messages", "cluster_files"] {
        let target = strongroom_fuzz::Target::named(name);
        for seed in target.seeds() {
            assert!((target.run)(&seed), "{name}: {seed:02x?}");
        }
    }
}
