//! Power cuts behind every effect, with any subset of what was not synced lost, and again while the log
//! recovers from them.

use ledger_core::ports::LogStore;
use storage_adapters::wal::{SEGMENT_BYTES_MIN, Upkeep, WalLogStore, WalOptions};

use super::disk::{Dice, Disk, Effect, Image, Syncs, Unsynced, cut};
use super::workload::{Content, Workload, append, content};

const INLINE: WalOptions = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, upkeep: Upkeep::Inline };
const BACKGROUND: WalOptions = WalOptions { upkeep: Upkeep::Background, ..INLINE };

fn open(disk: &Disk, options: WalOptions) -> Result<WalLogStore, String> {
    WalLogStore::with_files(&disk.files(), options).map_err(|error| format!("it does not open: {error}"))
}

/// The effects of a workload, with an acknowledgement after each batch. Now and then the log is closed and
/// opened again.
fn record(workload: &Workload, options: WalOptions) -> Vec<Effect> {
    let disk = Disk::default();
    let mut store = open(&disk, options).expect("an empty disk");
    for (number, batch) in workload.batches.iter().enumerate() {
        store.commit(batch).expect("the batch is valid");
        disk.acknowledge();
        if number % 17 == 16 {
            drop(store);
            store = open(&disk, options).expect("a sound log");
        }
    }
    drop(store);
    assert_eq!(content(&open(&disk, options).expect("a sound log")).expect("a sound log"), last(workload));
    disk.effects()
}

fn last(workload: &Workload) -> Content {
    workload.contents.last().expect("there is the empty log").clone()
}

fn acknowledged(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Acknowledged)).count()
}

/// Opens a disk after a power cut: it must hold what was acknowledged, or one batch more, and keep it.
fn check(image: &Image, workload: &Workload, acknowledged: usize) -> Result<(Content, Vec<Effect>), String> {
    let disk = Disk::of(image);
    let store = open(&disk, INLINE)?;
    let found = content(&store).map_err(|error| format!("it cannot be read: {error}"))?;
    let allowed = &workload.contents[acknowledged..workload.contents.len().min(acknowledged + 2)];
    if !allowed.contains(&found) {
        return Err(format!("after {acknowledged} batches it holds {:?}", found.0));
    }
    let recovery = disk.effects();
    let after = cut(image, &recovery, Syncs::Work, Unsynced::Lost);
    let again = content(&open(&Disk::of(&after), INLINE)?).map_err(|error| error.to_string())?;
    if again != found {
        return Err("what was found is not durable".to_owned());
    }
    let next = found.0.last.map_or(1, |last| last.index + 1);
    store.commit(&[append(9, next, vec![1; 100])]).map_err(|error| format!("it does not go on: {error}"))?;
    let after = cut(image, &disk.effects(), Syncs::Work, Unsynced::Lost);
    let reopened = open(&Disk::of(&after), INLINE)?;
    match reopened.snapshot().map_err(|error| error.to_string())?.last {
        Some(last) if last.index == next => Ok((found, recovery)),
        last => Err(format!("the batch after the recovery is lost: {last:?}")),
    }
}

/// Cuts the power behind every effect, `rounds` times with other losses, and again inside the recovery.
fn enumerate(workload: &Workload, effects: &[Effect], syncs: Syncs, rounds: u64) -> Result<u64, String> {
    let mut cuts = 0;
    for count in 0..=effects.len() {
        let effects = &effects[..count];
        let acknowledged = acknowledged(effects);
        let seeds = (0..rounds).map(|round| Unsynced::Torn(round << 32 | count as u64));
        for unsynced in [Unsynced::Lost, Unsynced::Kept].into_iter().chain(seeds) {
            let context = |error| format!("cut behind effect {count}, {unsynced:?}: {error}");
            let image = cut(&Image::default(), effects, syncs, unsynced);
            let (_, recovery) = check(&image, workload, acknowledged).map_err(context)?;
            cuts += 1;
            let Unsynced::Torn(seed) = unsynced else { continue };
            let mut dice = Dice(seed);
            for _ in 0..2 {
                let inside = usize::try_from(dice.below(recovery.len() as u64 + 1)).expect("it is small");
                let torn = Unsynced::Torn(dice.roll());
                let again = cut(&image, &recovery[..inside], syncs, torn);
                check(&again, workload, acknowledged).map_err(|error| {
                    context(format!("again behind effect {inside} of the recovery: {error}"))
                })?;
                cuts += 1;
            }
        }
    }
    Ok(cuts)
}

#[test]
fn power_cuts_behind_every_effect_lose_nothing_acknowledged() {
    let mut cuts = 0;
    for seed in 0..6 {
        let workload = Workload::new(seed, 60);
        let effects = record(&workload, INLINE);
        cuts += enumerate(&workload, &effects, Syncs::Work, 2)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    println!("{cuts} power cuts");
    assert!(cuts > 5_000, "every effect was a place to cut: {cuts}");
}

#[test]
fn power_cuts_while_a_thread_prepares_segments_lose_nothing_acknowledged() {
    for seed in 100..102 {
        let workload = Workload::new(seed, 40);
        let effects = record(&workload, BACKGROUND);
        enumerate(&workload, &effects, Syncs::Work, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn many_random_lives_with_a_power_cut_lose_nothing_acknowledged() {
    for seed in 1_000..1_400 {
        let workload = Workload::new(seed, 12);
        let effects = record(&workload, INLINE);
        let mut dice = Dice(seed);
        let count = usize::try_from(dice.below(effects.len() as u64 + 1)).expect("it is small");
        let effects = &effects[..count];
        let image = cut(&Image::default(), effects, Syncs::Work, Unsynced::Torn(seed));
        let checked = check(&image, &workload, acknowledged(effects));
        checked.unwrap_or_else(|error| panic!("seed {seed}, cut behind effect {count}: {error}"));
    }
}

#[test]
fn the_same_cuts_find_a_disk_that_lies_about_syncs() {
    let workload = Workload::new(1, 30);
    let effects = record(&workload, INLINE);
    enumerate(&workload, &effects, Syncs::Work, 1).expect("a disk that syncs loses nothing");
    let found = enumerate(&workload, &effects, Syncs::Lie, 1);
    assert!(found.is_err(), "a log that was never synced cannot survive");
}

#[test]
fn the_same_cuts_find_a_commit_without_its_sync() {
    let workload = Workload::new(2, 30);
    let mut effects = record(&workload, INLINE);
    // The sync right before an acknowledged batch's seal.
    let seals: Vec<usize> = (1..effects.len())
        .filter(|at| matches!((&effects[at - 1], &effects[*at]), (Effect::Sync(_), Effect::Write { bytes, .. }) if bytes.len() == 40))
        .collect();
    assert!(seals.len() >= 25, "almost every batch has a seal: {}", seals.len());
    effects.remove(seals[seals.len() / 2] - 1);
    assert!(enumerate(&workload, &effects, Syncs::Work, 2).is_err(), "one missing sync is found");
}

#[test]
fn random_lives_equal_the_memory_store() {
    for seed in 0..40 {
        let workload = Workload::new(seed + 500, 80);
        let disk = Disk::default();
        let options = if seed % 2 == 0 { INLINE } else { BACKGROUND };
        let mut store = open(&disk, options).expect("an empty disk");
        let mut dice = Dice(seed);
        for (batch, expected) in workload.batches.iter().zip(&workload.contents[1..]) {
            store.commit(batch).expect("the batch is valid");
            assert_eq!(&content(&store).expect("a sound log"), expected, "seed {seed}");
            if dice.below(6) == 0 {
                drop(store);
                store = open(&disk, options).expect("a sound log");
                assert_eq!(&content(&store).expect("a sound log"), expected, "opened again, seed {seed}");
            }
        }
    }
}
