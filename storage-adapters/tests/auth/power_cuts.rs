//! The power is cut behind every effect on the disk: whatever of the unsynced effects survives, the file opens with whole
//! commits, all of them that were answered, and knows their ids.

use std::collections::BTreeMap;

use auth_core::Millis;
use auth_core::ports::{AuthStore, Commit, Expect, Position, ReadSet, Version, Write};
use storage_adapters::redb::auth::{RedbAuthError, RedbAuthStore};

use super::disk::{Dice, Disk, Effect, Image, Syncs, Unsynced, cut};
use super::files::RedbDisk;
use super::world::{START, commit, key, options, run, try_commit};

const KEYS: u64 = 6;

/// What is in a store: value and version of each key.
type Content = BTreeMap<u64, (Vec<u8>, Version)>;

/// A run: its effects, its commits, and the content behind each of them.
struct Recorded {
    effects: Vec<Effect>,
    commits: Vec<Commit>,
    contents: Vec<Content>,
}

fn open(disk: &Disk) -> Result<RedbAuthStore, RedbAuthError> {
    RedbAuthStore::with_files(RedbDisk(disk.clone()).files(), "auth.db", options())
}

fn record(seed: u64, steps: u64) -> Recorded {
    let disk = Disk::default();
    let mut store = open(&disk).expect("a sound disk");
    let mut dice = Dice(seed);
    let (mut commits, mut content, mut contents) = (Vec::new(), Content::new(), vec![Content::new()]);
    for step in 1..=steps {
        // A clean end and a start on the way.
        if step == steps / 2 {
            drop(store);
            store = open(&disk).expect("a sound disk");
        }
        let mut asked = commit(step);
        let first = dice.below(KEYS);
        for number in (first..first + 1 + dice.below(3)).map(|number| number % KEYS) {
            let expect =
                content.get(&number).map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
            asked = asked.expect(&key(number), expect);
            if dice.below(4) == 0 {
                content.remove(&number);
                asked = asked.delete(&key(number));
            } else {
                let value =
                    vec![step.to_le_bytes()[0]; usize::try_from(1 + dice.below(3_000)).expect("small")];
                let end = (dice.below(2) == 0).then_some(Millis(START.0 + 1 + dice.below(9)));
                asked = asked.put(&key(number), &value, end);
                content.insert(number, (value, Version(step)));
            }
        }
        assert_eq!(try_commit(&store, &asked).expect("a sound disk"), Position(step));
        disk.acknowledge();
        commits.push(asked);
        contents.push(content.clone());
    }
    Recorded { effects: disk.effects(), commits, contents }
}

/// Opens what a cut has left.
fn check(image: &Image, recorded: &Recorded, answered: usize) -> Result<(), String> {
    let disk = Disk::of(image);
    let store = open(&disk).map_err(|error| format!("it does not open: {error}"))?;
    let told = |error: auth_core::ports::AuthStoreError| error.to_string();
    let snapshot = run(store.read(&ReadSet::of((0..KEYS).map(key)), START)).map_err(told)?;
    let found: Content = (0..)
        .zip(&snapshot.records)
        .filter_map(|(number, record)| {
            record.as_ref().map(|record| (number, (record.value.to_vec(), record.version)))
        })
        .collect();
    let last = usize::try_from(snapshot.position.0).map_err(|error| error.to_string())?;
    if !(answered..=answered + 1).contains(&last) {
        return Err(format!("{answered} commits were answered, {last} are there"));
    }
    if recorded.contents.get(last) != Some(&found) {
        return Err(format!("not what commit {last} has left"));
    }
    let feed = run(store.changes(Position::START, 1_000)).map_err(told)?;
    let keys: Vec<usize> = feed.changes.iter().map(|change| change.keys.len()).collect();
    let written: Vec<usize> = recorded.commits[..last].iter().map(|commit| commit.writes.len()).collect();
    if keys != written {
        return Err(format!("the feed tells {keys:?}, not {written:?}"));
    }
    let expired = run(store.scan_expired(Millis(u64::MAX), 1_000)).map_err(told)?;
    let with_end = snapshot.records.iter().flatten().filter(|record| record.expires_at.is_some()).count();
    if expired.len() != with_end {
        return Err(format!("{} ends for {with_end} records", expired.len()));
    }
    // Each is known by its id; the one that was under way is known, or is applied now.
    for (number, asked) in (1..).zip(recorded.commits.iter().take(answered + 1)) {
        let position = run(store.commit(asked, START)).map_err(told)?;
        if position != Position(number) {
            return Err(format!("commit {number} is {position:?} when it comes again"));
        }
    }
    let after = run(store.read(&ReadSet::default(), START)).map_err(told)?.position;
    let expected = (answered + 1).min(recorded.commits.len()) as u64;
    if after != Position(expected) {
        return Err(format!("a commit that came again had a second effect: {after:?}, not {expected}"));
    }
    Ok(())
}

fn cut_everywhere(recorded: &Recorded, syncs: Syncs) -> Result<u64, String> {
    let (mut cuts, mut answered) = (0, 0);
    for count in 0..=recorded.effects.len() {
        if let Some(Effect::Acknowledged) = count.checked_sub(1).and_then(|last| recorded.effects.get(last)) {
            answered += 1;
        }
        let seed = (answered as u64) << 32 | count as u64;
        let whole = if count % 2 == 0 { Unsynced::Lost } else { Unsynced::Kept };
        for unsynced in [whole, Unsynced::Torn(seed), Unsynced::Torn(!seed)] {
            let image = cut(&Image::default(), &recorded.effects[..count], syncs, unsynced);
            check(&image, recorded, answered)
                .map_err(|error| format!("cut behind effect {count}, {unsynced:?}: {error}"))?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_behind_any_effect_leaves_whole_commits_and_their_ids() {
    let recorded = record(1, 16);
    let deletes = recorded.commits.iter().flat_map(|commit| &commit.writes);
    assert!(deletes.filter(|write| matches!(write, Write::Delete { .. })).count() > 3);
    let cuts = cut_everywhere(&recorded, Syncs::Work).unwrap_or_else(|error| panic!("{error}"));
    println!("{cuts} power cuts");
    assert!(cuts > 300, "every effect was a place to cut: {cuts}");
}

/// The same cuts on a disk that lies when it syncs must find a commit that is lost or torn.
#[test]
fn without_syncs_the_same_power_cuts_find_what_is_lost() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = cut_everywhere(&record(1, 16), Syncs::Lie);
    std::panic::set_hook(others);
    assert!(found.is_err(), "the harness misses what a lost sync does");
}
