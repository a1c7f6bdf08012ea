//! The entry points of the fuzz targets on a bounded number of inputs: arbitrary ones and damaged real ones.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../fuzz/entry_points.rs"]
mod entry_points;

type EntryPoint = fn(&[u8]);

const TARGETS: [(&str, EntryPoint); 5] = [
    ("header", entry_points::header),
    ("list_json", entry_points::list_json),
    ("note", entry_points::note),
    ("proof_json", entry_points::proof_json),
    ("transaction", entry_points::transaction),
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_committed_seed_holds_at_every_entry_point() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target}");
        seeds.iter().for_each(|seed| run(seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        TARGETS.iter().for_each(|(_, run)| run(&bytes));
    }

    #[test]
    fn damaged_seeds_never_panic(
        target in 0..TARGETS.len(),
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6),
    ) {
        let (name, run) = TARGETS[target];
        let seeds = seeds(name);
        let mut bytes = pick.get(&seeds).clone();
        for (at, byte, kind) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        run(&bytes);
    }
}
