//! The power is cut behind every effect on the disk, and whatever of the unsynced effects survives, no cell is admitted twice.

use std::collections::BTreeMap;

use ratelimit_core::KeyParts;
use ratelimit_core::ports::{Policy, RateStore};
use storage_adapters::redb::rates::{RedbRateError, RedbRateStore};

use super::disk::{Dice, Disk, Effect, Image, Syncs, Unsynced, cut};
use super::files::RedbDisk;
use super::world::{START, admits, bucket, charge, key, left, options, policy, run, window};

const SIZE: u64 = 12;

/// What every policy has, but for the one whose limit changes in the run.
fn policies(raised: bool) -> Vec<Policy> {
    let first = if raised { SIZE + 5 } else { SIZE };
    vec![policy("bucket", bucket(first)), policy("window", window(SIZE))]
}

fn open(disk: &Disk, raised: bool) -> Result<RedbRateStore, RedbRateError> {
    RedbRateStore::with_files(RedbDisk(disk.clone()).files(), "rates.db", policies(raised), options(), START)
}

fn clients() -> [KeyParts; 3] {
    [key("a"), key("b"), key("c")]
}

/// What was admitted of each policy and client.
type Used = BTreeMap<(u32, usize), u64>;

/// A run: its effects, and what had been answered at each acknowledgement.
struct Recorded {
    effects: Vec<Effect>,
    answered: Vec<Used>,
    /// Acknowledgements before the limit was raised.
    raised_at: usize,
}

fn record(seed: u64) -> Recorded {
    let disk = Disk::default();
    let mut store = open(&disk, false).expect("a sound disk");
    let mut dice = Dice(seed);
    let (mut used, mut answered) = (Used::new(), vec![Used::new()]);
    let mut raised_at = usize::MAX;
    for step in 0..60 {
        match step {
            // A clean end, a crash, and another limit on the way.
            20 => {
                run(store.close(START)).expect("a sound disk");
                drop(store);
                store = open(&disk, false).expect("a sound disk");
            }
            35 => {
                drop(store);
                store = open(&disk, false).expect("a sound disk");
            }
            50 => {
                raised_at = answered.len();
                run(store.reopen(policies(true), START)).expect("a sound disk");
            }
            _ => {}
        }
        let policy = u32::from(dice.below(2) == 1);
        let client = usize::try_from(dice.below(3)).expect("small");
        let cost = 1 + dice.below(3);
        if admits(&store, policy, &clients()[client], cost, START) {
            *used.entry((policy, client)).or_default() += cost;
        }
        answered.push(used.clone());
        disk.acknowledge();
    }
    assert!(used.values().all(|used| *used <= SIZE), "{used:?}");
    Recorded { effects: disk.effects(), answered, raised_at }
}

/// Opens what a cut has left, and takes all there is.
fn check(image: &Image, used: &Used, raised: bool) -> Result<(), String> {
    let disk = Disk::of(image);
    let store = open(&disk, raised).map_err(|error| format!("it does not open: {error}"))?;
    for policy in 0..2 {
        for (number, client) in clients().iter().enumerate() {
            let used = used.get(&(policy, number)).copied().unwrap_or(0);
            let left = left(&store, policy, client, START);
            // Raised or not: nobody has more than was left of the smaller limit, unless nothing was used.
            let size = if used == 0 && raised && policy == 0 { SIZE + 5 } else { SIZE };
            if left + used > size {
                return Err(format!(
                    "policy {policy}, client {number}: {used} were answered, {left} are left"
                ));
            }
            let looked = run(store.check(&[charge(policy, client, left)], START));
            if !looked.is_ok_and(|(verdict, _)| verdict.is_allowed())
                || admits(&store, policy, client, 1, START)
            {
                return Err(format!("policy {policy}, client {number}: not {left} are left"));
            }
        }
    }
    Ok(())
}

fn cut_everywhere(recorded: &Recorded, syncs: Syncs) -> Result<u64, String> {
    let (mut cuts, mut done) = (0, 0);
    for count in 0..=recorded.effects.len() {
        if let Some(Effect::Acknowledged) = count.checked_sub(1).and_then(|last| recorded.effects.get(last)) {
            done += 1;
        }
        let seed = (done as u64) << 32 | count as u64;
        let whole = if count % 2 == 0 { Unsynced::Lost } else { Unsynced::Kept };
        for unsynced in [whole, Unsynced::Torn(seed), Unsynced::Torn(!seed)] {
            let image = cut(&Image::default(), &recorded.effects[..count], syncs, unsynced);
            let raised = done >= recorded.raised_at;
            check(&image, &recorded.answered[done], raised)
                .map_err(|error| format!("cut behind effect {count}, {unsynced:?}: {error}"))?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_behind_any_effect_admits_no_cell_twice() {
    let recorded = record(1);
    let cuts = cut_everywhere(&recorded, Syncs::Work).unwrap_or_else(|error| panic!("{error}"));
    println!("{cuts} power cuts");
    assert!(cuts > 300, "every effect was a place to cut: {cuts}");
}

/// The same cuts on a disk that lies when it syncs must find a cell that is admitted twice, or a file that does not open.
#[test]
fn without_syncs_the_same_power_cuts_find_cells_that_are_admitted_twice() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = cut_everywhere(&record(1), Syncs::Lie);
    std::panic::set_hook(others);
    assert!(found.is_err(), "the harness misses what a lost sync does");
}
