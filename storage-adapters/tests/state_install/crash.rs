//! Power cuts behind every effect, and every effect failing once.

use std::io;

use storage_adapters::redb::{OlderFormat, OpenCheck, RedbOptions, RedbStateStore};
use storage_adapters::wal::WalFiles;

use super::disk::{Dice, Disk, Effect, Image, Syncs, Unsynced, cut};
use super::files::RedbDisk;
use super::steps::{Content, Rows, Step, carry_out, steps};

pub const OPTIONS: RedbOptions = RedbOptions {
    log_cache_bytes: 1 << 20,
    state_cache_bytes: 1 << 20,
    blocks_cache_bytes: 1 << 20,
    check: OpenCheck::Log,
    older_format: OlderFormat::Refuse,
};

fn open(disk: &Disk) -> Result<RedbStateStore, String> {
    RedbStateStore::with_files(RedbDisk(disk.clone()).files(), OPTIONS)
        .map_err(|error| format!("it does not open: {error}"))
}

/// A disk with a new store on it: how that came into being is another test's matter.
fn new_image() -> Image {
    let disk = Disk::default();
    for name in ["blocks.db", "state.db"] {
        WalFiles::create(&disk, name).expect("an empty disk");
    }
    drop(open(&disk).expect("an empty disk"));
    disk.image()
}

/// The effects of all steps, with an acknowledgement after each.
fn record(base: &Image, steps: &[Step]) -> Vec<Effect> {
    let disk = Disk::of(base);
    let store = open(&disk).expect("a sound store");
    for step in steps {
        carry_out(&store, step).expect("a sound disk");
        disk.acknowledge();
    }
    drop(store);
    disk.effects()
}

fn contents(steps: &[Step]) -> Vec<Content> {
    let mut contents = vec![Content::default()];
    for step in steps {
        let after = contents.last().expect("there is one").after(step);
        contents.push(after);
    }
    contents
}

/// What may be there after `done` steps, while the next was under way.
fn allowed(steps: &[Step], done: usize) -> Vec<Content> {
    let contents = contents(steps);
    let before = contents[done].clone();
    let mut allowed = vec![before.clone()];
    if let (Some(step), Some(after)) = (steps.get(done), contents.get(done + 1)) {
        allowed.push(after.clone());
        if matches!(step, Step::Commit(_)) {
            // Rows of append-only tables may come ahead of the mark of their batch.
            allowed.push(Content { blocks: after.blocks.clone(), ..before });
        }
    }
    allowed
}

/// Opens a disk after a power cut; returns what the recovery did.
fn check(image: &Image, steps: &[Step], done: usize, then: Then) -> Result<Vec<Effect>, String> {
    let disk = Disk::of(image);
    let store = open(&disk)?;
    let found = Content::of(&store).map_err(|error| format!("it cannot be read: {error}"))?;
    if !allowed(steps, done).contains(&found) {
        return Err(mix(&found, &contents(steps)[done], done));
    }
    let recovery = disk.effects();
    let names: Vec<String> = disk.image().names.into_keys().collect();
    if names != ["blocks.db", "state.db"] {
        return Err(format!("files are left over: {names:?}"));
    }
    if then == Then::GoOn {
        // With a commit and with an install; and what it says is durable is.
        for step in super::steps::steps(99).iter().skip(2).take(2) {
            carry_out(&store, step).map_err(|error| format!("it does not go on: {error}"))?;
        }
        let gone_on = Content::of(&store).map_err(|error| error.to_string())?;
        let after = cut(image, &disk.effects(), Syncs::Work, Unsynced::Lost);
        let again = Content::of(&open(&Disk::of(&after))?).map_err(|error| error.to_string())?;
        if again != gone_on {
            return Err("what was committed since is lost".to_owned());
        }
    }
    Ok(recovery)
}

/// What is done with a store that recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    GoOn,
}

fn mix(found: &Content, before: &Content, done: usize) -> String {
    let count = |rows: &Rows, other: &Rows| rows.iter().filter(|row| other.get(row.0) != Some(row.1)).count();
    format!(
        "after {done} steps it holds a mix, up to {:?}: {} and {} rows that were not there, {} and {} missing",
        found.applied.as_ref().map(|applied| applied.last_applied.index),
        count(&found.state, &before.state),
        count(&found.blocks, &before.blocks),
        count(&before.state, &found.state),
        count(&before.blocks, &found.blocks),
    )
}

/// Cuts the power behind every effect, and again in a recovery now and then.
fn enumerate(base: &Image, steps: &[Step], effects: &[Effect], syncs: Syncs) -> Result<u64, String> {
    let mut cuts = 0;
    let mut done = 0;
    for count in 0..=effects.len() {
        if let Some(Effect::Acknowledged) = count.checked_sub(1).and_then(|last| effects.get(last)) {
            done += 1;
        }
        let seed = (done as u64) << 32 | count as u64;
        let whole = if count % 2 == 0 { Unsynced::Lost } else { Unsynced::Kept };
        for unsynced in [whole, Unsynced::Torn(seed), Unsynced::Torn(!seed)] {
            let context = |error| format!("cut behind effect {count}, {unsynced:?}: {error}");
            let image = cut(base, &effects[..count], syncs, unsynced);
            let then = if count % 5 == 0 { Then::GoOn } else { Then::Nothing };
            let recovery = check(&image, steps, done, then).map_err(context)?;
            cuts += 1;
            let Unsynced::Torn(seed) = unsynced else { continue };
            if count % 3 != 0 {
                continue;
            }
            let mut dice = Dice(seed);
            let inside = usize::try_from(dice.below(recovery.len() as u64 + 1)).expect("it is small");
            let again = cut(&image, &recovery[..inside], syncs, Unsynced::Torn(dice.roll()));
            let context = |error| context(format!("again behind effect {inside} of the recovery: {error}"));
            check(&again, steps, done, Then::Nothing).map_err(context)?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_behind_any_effect_of_an_install_leaves_the_old_content_or_the_new_one() {
    let base = new_image();
    let mut cuts = 0;
    for seed in 0..1 {
        let steps = steps(seed);
        let effects = record(&base, &steps);
        cuts += enumerate(&base, &steps, &effects, Syncs::Work)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    println!("{cuts} power cuts");
    assert!(cuts > 1_000, "every effect was a place to cut: {cuts}");
}

/// The same cuts on a disk that lies when it syncs must find a mix or a loss: otherwise they prove nothing.
#[test]
fn without_syncs_the_same_power_cuts_find_broken_contents() {
    let base = new_image();
    let steps = steps(0);
    let effects = record(&base, &steps);
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = enumerate(&base, &steps, &effects, Syncs::Lie);
    std::panic::set_hook(others);
    assert!(found.is_err(), "the harness misses what a lost sync does");
}

#[test]
fn any_effect_of_an_install_may_fail_and_the_content_is_the_old_one_or_the_new_one() {
    let base = new_image();
    let steps = &steps(3)[..2];
    let disk = Disk::of(&base);
    let store = open(&disk).expect("a sound store");
    steps.iter().take(1).try_for_each(|step| carry_out(&store, step)).expect("a sound disk");
    let first = disk.operations();
    carry_out(&store, &steps[1]).expect("a sound disk");
    let last = disk.operations();
    drop(store);
    let (mut went_on, mut stopped) = (0, 0);
    for operation in first..last {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let disk = Disk::of(&base);
            let store = open(&disk).expect("a sound store");
            steps.iter().take(1).try_for_each(|step| carry_out(&store, step)).expect("a sound disk");
            disk.fail(operation, kind);
            let installed = carry_out(&store, &steps[1]).is_ok();
            let after = Content::of(&store).expect("reads go on");
            if installed {
                // What failed came after the new content had taken the place of the old, such as removing that: it is
                // there, and a power cut does not take it back.
                let new = &contents(steps)[2];
                assert_eq!(after, *new, "operation {operation}, {kind:?}: it says it is installed");
                drop(store);
                let after = Disk::of(&cut(&base, &disk.effects(), Syncs::Work, Unsynced::Lost));
                let found = Content::of(&open(&after).expect("it opens")).expect("it can be read");
                assert_eq!(found, *new, "operation {operation}, {kind:?}: what was installed is there again");
                went_on += 1;
                continue;
            }
            let goes_on = carry_out(&store, &super::steps::steps(99)[2]);
            if goes_on.is_ok() {
                assert_eq!(after, contents(steps)[1], "operation {operation}: the old content is untouched");
                went_on += 1;
            } else {
                stopped += 1;
            }
            drop(store);
            let found = Content::of(&open(&disk).expect("it opens")).expect("it can be read");
            let mut may_be = vec![contents(steps)[1].clone(), contents(steps)[2].clone()];
            may_be.extend(goes_on.is_ok().then(|| contents(steps)[1].after(&super::steps::steps(99)[2])));
            assert!(
                may_be.contains(&found),
                "operation {operation}, {kind:?}: a mix, up to {:?}",
                found.applied
            );
        }
    }
    println!("{went_on} went on, {stopped} stopped");
    assert!(
        went_on > 20 && stopped >= 6,
        "before the decision it goes on, behind it it stops: {went_on}, {stopped}"
    );
}
