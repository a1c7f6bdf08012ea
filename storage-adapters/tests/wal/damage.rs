//! Damage of every byte: it is refused, or harmless, or takes exactly the batch that was never
//! acknowledged. It never yields other bytes.

use ledger_core::ports::{LogStore, StoreError};
use storage_adapters::wal::{SEGMENT_BYTES_MIN, Upkeep, WalError, WalLogStore, WalOptions};

use super::disk::{Disk, Effect, Image, Syncs, Unsynced, cut};
use super::workload::{Content, append, content};

const OPTIONS: WalOptions = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, upkeep: Upkeep::Inline };

fn open(disk: &Disk) -> Result<WalLogStore, StoreError> {
    WalLogStore::with_files(&disk.files(), OPTIONS)
}

fn open_content(image: &Image) -> Result<Content, StoreError> {
    content(&open(&Disk::of(image))?)
}

/// What a log over three segments holds after each of its batches, and the effects of making it.
fn small_log() -> (Vec<Content>, Vec<Effect>) {
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    let mut contents = vec![content(&store).expect("a sound log")];
    for index in 1..=24 {
        let payload = vec![u8::try_from(index).expect("it is small"); 330];
        store.commit(&[append(1, index, payload)]).expect("the batch is valid");
        disk.acknowledge();
        contents.push(content(&store).expect("a sound log"));
    }
    assert_eq!(store.rotations(), 2, "three segments are in use");
    drop(store);
    (contents, disk.effects())
}

/// A log that was closed: its last batch is sealed.
fn sealed() -> (Vec<Content>, Image) {
    let (contents, effects) = small_log();
    (contents, cut(&Image::default(), &effects, Syncs::Work, Unsynced::Lost))
}

/// A log that lost the seal of its last batch in a power cut.
fn unsealed() -> (Vec<Content>, Image) {
    let (contents, effects) = small_log();
    let end =
        effects.iter().rposition(|effect| matches!(effect, Effect::Acknowledged)).expect("there is one");
    (contents, cut(&Image::default(), &effects[..=end], Syncs::Work, Unsynced::Lost))
}

fn segments(image: &Image) -> Vec<String> {
    image.names.keys().cloned().collect()
}

/// Flips bits of every byte. Returns how many flips were refused, harmless, and cost the last batch.
fn flip_all(contents: &[Content], image: &Image) -> (u64, u64, u64) {
    let (mut refused, mut harmless, mut cost_the_last) = (0, 0, 0);
    let [.., before, all] = contents else { panic!("the log has batches") };
    for name in segments(image) {
        for at in 0..image.bytes(&name).len() {
            let mut damaged = image.clone();
            damaged.content(&name)[at] ^= 1 << (at % 8);
            let disk = Disk::of(&damaged);
            match open(&disk).and_then(|store| content(&store)) {
                Err(_) => {
                    refused += 1;
                    assert_eq!(disk.image(), damaged, "what is refused is not changed: {name} at {at}");
                }
                Ok(found) if found == *all => harmless += 1,
                Ok(found) if found == *before => cost_the_last += 1,
                Ok(found) => panic!("{name} at {at}: other bytes: {:?}", found.0),
            }
        }
    }
    (refused, harmless, cost_the_last)
}

#[test]
fn a_flipped_bit_of_a_closed_log_is_refused_or_harmless() {
    let (contents, image) = sealed();
    assert_eq!(&open_content(&image).expect("a sound log"), contents.last().expect("it has batches"));
    let (refused, harmless, cost_the_last) = flip_all(&contents, &image);
    println!("{refused} refused, {harmless} harmless");
    assert_eq!(cost_the_last, 0, "a sealed batch is never taken for one that was not finished");
    assert!(refused > 24 * 330, "every record is guarded: {refused}");
    assert!(harmless > 0, "zeros behind the log hold nothing");
}

#[test]
fn a_flipped_bit_of_a_log_without_its_last_seal_costs_at_most_the_last_batch() {
    let (contents, image) = unsealed();
    assert_eq!(&open_content(&image).expect("a sound log"), contents.last().expect("it has batches"));
    let (refused, _, cost_the_last) = flip_all(&contents, &image);
    println!("{refused} refused, {cost_the_last} took the last batch for unfinished");
    assert!(refused > 23 * 330, "every record but the last is guarded: {refused}");
    assert!((330..450).contains(&cost_the_last), "exactly the last frame: {cost_the_last}");
}

#[test]
fn a_segment_of_any_other_length_is_refused() {
    let (_, image) = sealed();
    for name in segments(&image) {
        let length = image.bytes(&name).len();
        for shorter in (0..length).chain([length + 1, length + 4096]) {
            let mut damaged = image.clone();
            damaged.content(&name).resize(shorter, 0);
            let refused = open_content(&damaged).map(|found| found.0);
            assert!(refused.is_err(), "{name} with {shorter} of {length} bytes: {refused:?}");
        }
    }
}

#[test]
fn a_missing_or_exchanged_segment_is_refused() {
    let (_, image) = sealed();
    let names = segments(&image);
    let [first, second, third, prepared] = names.as_slice() else { panic!("four segments: {names:?}") };
    for missing in [first, second, third] {
        let mut damaged = image.clone();
        damaged.names.remove(missing);
        let error = open_content(&damaged).expect_err("a segment is missing").to_string();
        assert!(error.contains("missing") || error.contains("corrupt"), "{missing}: {error}");
    }
    for (one, other) in [(first, second), (second, third), (third, prepared)] {
        let mut damaged = image.clone();
        let file = damaged.names[one];
        damaged.names.insert(other.clone(), file);
        assert!(open_content(&damaged).is_err(), "{one} in the place of {other}");
    }
    let (_, other_log) = sealed();
    let mut mixed = image.clone();
    *mixed.content(second) = other_log.bytes(second).to_vec();
    let error = open_content(&mixed).expect_err("a segment of another log").to_string();
    assert!(error.contains("another log"), "{error}");
    let mut without_prepared = image;
    without_prepared.names.remove(prepared);
    open_content(&without_prepared).expect("a prepared segment holds nothing");
}

#[test]
fn every_sector_of_a_finished_log_set_to_zero_is_refused_or_harmless() {
    let (contents, image) = sealed();
    let mut refused = 0;
    for name in segments(&image) {
        for sector in 0..image.bytes(&name).len() / 512 {
            let mut damaged = image.clone();
            damaged.content(&name)[sector * 512..(sector + 1) * 512].fill(0);
            match open_content(&damaged) {
                Err(_) => refused += 1,
                Ok(found) => {
                    // A lost write of the last frame together with its seal leaves no trace of either.
                    let all = contents.last().expect("it has batches");
                    assert!(
                        found == *all || found == contents[contents.len() - 2],
                        "{name}, sector {sector}: {:?}",
                        found.0
                    );
                }
            }
        }
    }
    assert!(refused >= 16, "sectors with records are guarded: {refused}");
}

#[test]
fn the_error_names_segment_and_offset() {
    let (_, mut image) = sealed();
    let second = segments(&image)[1].clone();
    image.content(&second)[2_000] ^= 1;
    let error = open_content(&image).expect_err("a record is damaged");
    assert!(matches!(error, StoreError::Corrupt { table: "raft.wal", .. }), "{error}");
    assert!(error.to_string().contains("segment 2, offset "), "{error}");
}

#[test]
fn a_read_finds_damage_that_came_after_the_log_was_opened() {
    let (contents, image) = sealed();
    let all = contents.last().expect("it has batches");
    let mut refused = 0;
    let name = segments(&image)[0].clone();
    let disk = Disk::of(&image);
    let store = open(&disk).expect("a sound log");
    for at in 0..image.bytes(&name).len() {
        disk.change(|image| image.content(&name)[at] ^= 0x10);
        match content(&store) {
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Ok(found) => assert_eq!(&found, all, "other bytes after damage at {at}"),
            Err(error) => panic!("{error}"),
        }
        disk.change(|image| image.content(&name)[at] ^= 0x10);
    }
    assert!(refused > 8 * 330, "every byte of a record is guarded: {refused}");
}

#[test]
fn a_log_of_a_newer_program_is_refused_with_both_versions() {
    let (_, image) = sealed();
    let name = segments(&image)[0].clone();
    let mut newer_segment = image.clone();
    newer_segment.content(&name)[8..12].copy_from_slice(&2_u32.to_be_bytes());
    let refused = open_content(&newer_segment).expect_err("a newer segment");
    assert!(matches!(refused, StoreError::Format { found: 2, known: 1, .. }), "{refused}");

    // The first frame as a newer program would write it, checksum and all.
    let mut newer_frame = image;
    let segment = newer_frame.content(&name);
    let seed = [&segment[32..48], &1_u64.to_be_bytes(), &64_u64.to_be_bytes()].concat();
    segment[64 + 4] = 9;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&seed), &segment[64..64 + 36]);
    segment[64 + 36..64 + 40].copy_from_slice(&sum.to_be_bytes());
    let refused = open_content(&newer_frame).expect_err("a newer frame");
    assert!(matches!(refused, StoreError::Format { found: 9, known: 1, .. }), "{refused}");
}

#[test]
fn a_payload_that_looks_like_frames_is_only_a_payload() {
    let (_, image) = sealed();
    let name = segments(&image)[0].clone();
    let copied = image.bytes(&name).to_vec();
    let disk = Disk::default();
    let store = open(&disk).expect("an empty disk");
    for index in 1..20 {
        let from = usize::try_from(index).expect("it is small") * 3;
        store.commit(&[append(1, index, copied[from..from + 2_000].to_vec())]).expect("the batch is valid");
    }
    let expected = content(&store).expect("a sound log");
    drop(store);
    let mut torn = disk.image();
    let last = torn.names.keys().next_back().expect("there are segments").clone();
    // Garbage behind the log, full of frames of another log.
    let active = torn.names.keys().rev().nth(1).expect("one is in use").clone();
    let length = torn.content(&active).len();
    torn.content(&active)[length - 512..].copy_from_slice(&copied[64..576]);
    torn.content(&last)[512..1_536].copy_from_slice(&copied[..1_024]);
    assert_eq!(open_content(&torn).expect("an unfinished write"), expected);
}

#[test]
fn a_lost_log_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(WalLogStore::open(dir.path(), OPTIONS).expect("a new log"));
    let files = dir.path().join("raft.wal");
    for entry in std::fs::read_dir(&files).expect("it is there") {
        std::fs::remove_file(entry.expect("it can be listed").path()).expect("it can be removed");
    }
    let refused = WalLogStore::open(dir.path(), OPTIONS).expect_err("its votes are lost");
    let StoreError::Engine { source, .. } = refused else { panic!("{refused}") };
    assert!(matches!(source.downcast_ref(), Some(WalError::Empty)), "{source}");
}
