//! The log tree against whole lists of leaves (`ledger_verify::log`) and against `ct-merkle` as oracles.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ledger_core::log_tree::{LogTree, LogTreeError, RestoreError, TILE_WIDTH, Tile, TileError, TileSource};
use ledger_verify::Hash;
use ledger_verify::hash::{log_empty, log_leaf};
use ledger_verify::log::{consistency_path, inclusion_path, root_of, verify_consistency, verify_inclusion};
use proptest::prelude::*;
use sha2::Sha256;

/// Keeps emitted tiles and the list of reads.
#[derive(Default)]
struct Tiles {
    stored: BTreeMap<(u8, u64), Vec<Hash>>,
    reads: RefCell<Vec<(u8, u64)>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Missing;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such tile")
    }
}

impl std::error::Error for Missing {}

impl TileSource for Tiles {
    type Error = Missing;

    fn tile(&self, level: u8, number: u64) -> Result<Vec<Hash>, Missing> {
        self.reads.borrow_mut().push((level, number));
        self.stored.get(&(level, number)).cloned().ok_or(Missing)
    }
}

impl Tiles {
    fn store(&mut self, tiles: Vec<Tile>) {
        for tile in tiles {
            assert_eq!(tile.hashes.len(), TILE_WIDTH);
            let earlier = self.stored.insert((tile.level, tile.number), tile.hashes);
            assert!(earlier.is_none(), "tile {} of level {} was emitted twice", tile.number, tile.level);
        }
    }

    fn take_reads(&self) -> Vec<(u8, u64)> {
        self.reads.take()
    }
}

/// A log with its tiles, its whole list of leaves and its `ct-merkle` twin.
#[derive(Default)]
struct Log {
    tree: LogTree,
    tiles: Tiles,
    leaves: Vec<Hash>,
    ct: MemoryBackedTree<Sha256, Vec<u8>>,
    /// The root at every size so far.
    roots: Vec<Hash>,
}

impl Log {
    fn of(size: u64) -> Self {
        let mut log = Self::default();
        log.grow(size);
        log
    }

    fn grow(&mut self, size: u64) {
        if self.roots.is_empty() {
            self.roots.push(self.tree.root());
        }
        for index in self.tree.size()..size {
            let leaf = log_leaf(&data(index));
            self.tiles.store(self.tree.append(leaf));
            self.leaves.push(leaf);
            self.ct.push(data(index));
            self.roots.push(self.tree.root());
        }
    }

    fn prefix(&self, size: u64) -> &[Hash] {
        &self.leaves[..size as usize]
    }

    fn ct_root(&self) -> Hash {
        self.ct.root().as_bytes().as_slice().try_into().unwrap()
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<Hash> {
        let path = self.tree.inclusion_path(index, size, &self.tiles).unwrap();
        verify_inclusion(&self.leaves[index as usize], index, size, &path, &self.roots[size as usize])
            .unwrap();
        path
    }

    fn consistency(&self, old: u64, new: u64) -> Vec<Hash> {
        let path = self.tree.consistency_path(old, new, &self.tiles).unwrap();
        let [old_root, new_root] = [old, new].map(|size| self.roots[size as usize]);
        verify_consistency(old, new, &path, &old_root, &new_root).unwrap();
        path
    }

    fn restored(&self, size: u64) -> LogTree {
        let tail = self.prefix(size).chunks_exact(TILE_WIDTH).remainder();
        LogTree::restore(size, &self.tiles, tail).unwrap()
    }
}

fn data(index: u64) -> Vec<u8> {
    format!("header {index}").into_bytes()
}

fn hashes(path: &[u8]) -> Vec<Hash> {
    path.chunks(32).map(|hash| hash.try_into().unwrap()).collect()
}

#[test]
fn every_size_to_300_has_the_root_and_the_paths_of_both_oracles() {
    let mut log = Log::of(0);
    assert_eq!((log.tree.size(), log.tree.root()), (0, log_empty()));
    for size in 1..=300 {
        log.grow(size);
        assert_eq!(log.tree.size(), size);
        assert_eq!(log.tree.root(), root_of(&log.leaves));
        assert_eq!(log.tree.root(), log.ct_root());
        assert_eq!(log.tree.root(), log.tree.root_at(size, &log.tiles).unwrap());
        for index in 0..size {
            assert_eq!(log.inclusion(index, size), hashes(log.ct.prove_inclusion(index as usize).as_bytes()));
        }
        for old in 1..size {
            let added = (size - old) as usize;
            assert_eq!(log.consistency(old, size), hashes(log.ct.prove_consistency(added).as_bytes()));
        }
    }
}

#[test]
fn a_grown_log_answers_for_every_earlier_size() {
    let log = Log::of(600);
    for size in 0..=600 {
        assert_eq!(log.tree.root_at(size, &log.tiles).unwrap(), root_of(log.prefix(size)), "size {size}");
        assert_eq!(log.consistency(0, size), Vec::<Hash>::new());
        assert_eq!(log.consistency(size, size), Vec::<Hash>::new());
        assert_eq!(log.consistency(size, 600), consistency_path(log.prefix(600), size as usize).unwrap());
    }
    for (old, new) in
        [(1, 2), (255, 257), (256, 257), (255, 512), (256, 512), (257, 511), (300, 513), (511, 599)]
    {
        assert_eq!(log.consistency(old, new), consistency_path(log.prefix(new), old as usize).unwrap());
    }
    for size in [1, 2, 255, 256, 257, 300, 511, 512, 513] {
        for index in (0..size).step_by(7).chain([size - 1]) {
            assert_eq!(log.inclusion(index, size), inclusion_path(log.prefix(size), index as usize).unwrap());
        }
    }
}

#[test]
fn sizes_around_full_tiles_of_two_levels_agree_with_both_oracles() {
    let mut log = Log::default();
    for size in [65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_791, 65_792, 65_793, 66_100] {
        log.grow(size);
        assert_eq!(log.tree.root(), root_of(&log.leaves));
        assert_eq!(log.tree.root(), log.ct_root());
        for index in [0, 255, 256, 32_767, 65_000, 65_279, 65_535, 65_536, 65_792, size - 2, size - 1] {
            if index < size {
                assert_eq!(
                    log.inclusion(index, size),
                    hashes(log.ct.prove_inclusion(index as usize).as_bytes())
                );
            }
        }
        for old in [1, 255, 256, 257, 40_000, 65_279, 65_280, 65_535, 65_536, 65_537, 65_792, size - 1] {
            if old < size {
                let added = (size - old) as usize;
                assert_eq!(log.consistency(old, size), hashes(log.ct.prove_consistency(added).as_bytes()));
            }
        }
    }
    for size in [1, 256, 257, 65_280, 65_535, 65_536, 65_537, 65_900] {
        assert_eq!(log.tree.root_at(size, &log.tiles).unwrap(), root_of(log.prefix(size)), "size {size}");
    }
    assert_eq!(log.inclusion(65_279, 65_537), inclusion_path(log.prefix(65_537), 65_279).unwrap());
    assert_eq!(log.consistency(65_281, 65_999), consistency_path(log.prefix(65_999), 65_281).unwrap());
}

#[test]
fn each_tile_is_emitted_once_as_it_fills_and_holds_the_subtree_roots_of_its_place() {
    let mut tree = LogTree::new();
    let mut emitted = Tiles::default();
    let leaves: Vec<Hash> = (0..66_000).map(|index| log_leaf(&data(index))).collect();
    for (leaf, size) in leaves.iter().zip(1u64..) {
        let tiles = tree.append(*leaf);
        let places: Vec<(u8, u64)> = tiles.iter().map(|tile| (tile.level, tile.number)).collect();
        let expected = match size {
            65_536 => vec![(0, 255), (1, 0)],
            _ if size.is_multiple_of(256) => vec![(0, size / 256 - 1)],
            _ => vec![],
        };
        assert_eq!(places, expected, "at size {size}");
        emitted.store(tiles);
    }
    for (number, chunk) in (0..).zip(leaves.chunks_exact(TILE_WIDTH)) {
        assert_eq!(emitted.stored[&(0, number)], chunk);
        if number < 256 {
            assert_eq!(emitted.stored[&(1, 0)][number as usize], root_of(chunk));
        }
    }
}

#[test]
fn leaves_of_the_newest_tile_are_proved_without_reading_a_tile() {
    let mut log = Log::default();
    for size in (1..=1_100).chain(65_500..=65_600).chain(65_780..=65_800) {
        log.grow(size);
        log.inclusion(size - 1, size);
        assert_eq!(log.tiles.take_reads(), vec![], "size {size}");
        // The tile that holds the newest leaf is in memory as a whole.
        log.inclusion((size - 1) / 256 * 256, size);
        assert_eq!(log.tiles.take_reads(), vec![], "size {size}");
    }
}

#[test]
fn a_path_reads_each_tile_at_most_once_and_only_those_it_crosses() {
    let log = Log::of(66_000);
    let reads = |path: Result<Vec<Hash>, LogTreeError<Missing>>| {
        path.unwrap();
        log.tiles.take_reads()
    };
    assert_eq!(reads(log.tree.inclusion_path(5, 66_000, &log.tiles)), vec![(1, 0), (0, 0)]);
    assert_eq!(reads(log.tree.inclusion_path(65_600, 66_000, &log.tiles)), vec![(0, 256)]);
    assert_eq!(reads(log.tree.inclusion_path(65_800, 66_000, &log.tiles)), vec![]);
    // An old size has its own right edge.
    assert_eq!(reads(log.tree.inclusion_path(5, 1_000, &log.tiles)), vec![(0, 3), (1, 0), (0, 0)]);
    assert_eq!(reads(log.tree.consistency_path(700, 66_000, &log.tiles)), vec![(1, 0), (0, 2)]);
    for index in (0..66_000).step_by(997) {
        let size = 66_000 - (66_000 - index) / 3;
        let mut tiles = reads(log.tree.inclusion_path(index, size, &log.tiles));
        let count = tiles.len();
        tiles.sort_unstable();
        tiles.dedup();
        assert!(tiles.len() == count && count <= 6, "leaf {index} read {tiles:?}");
    }
}

#[test]
fn a_tree_restored_at_any_size_continues_as_the_one_that_never_stopped() {
    let log = Log::of(900);
    for size in 0..=600 {
        let mut restored = log.restored(size);
        assert_eq!(restored.size(), size);
        assert_eq!(restored.root(), root_of(log.prefix(size)), "size {size}");
        if size > 0 {
            log.tiles.take_reads();
            let path = restored.inclusion_path(size - 1, size, &log.tiles).unwrap();
            assert_eq!(path, inclusion_path(log.prefix(size), size as usize - 1).unwrap());
            assert_eq!(log.tiles.take_reads(), vec![], "a restored tree holds what a live one holds");
        }
        for leaf in &log.leaves[size as usize..] {
            for tile in restored.append(*leaf) {
                assert_eq!(log.tiles.stored[&(tile.level, tile.number)], tile.hashes);
            }
        }
        assert_eq!(restored.root(), log.tree.root(), "restored at {size}");
    }
}

#[test]
fn a_tree_restored_around_full_tiles_of_two_levels_has_the_same_root_and_paths() {
    let log = Log::of(66_100);
    for size in [65_279, 65_280, 65_535, 65_536, 65_537, 65_792, 65_793, 66_048, 66_099] {
        let mut restored = log.restored(size);
        assert_eq!(restored.root(), log.tree.root_at(size, &log.tiles).unwrap());
        for index in [0, 65_000, size - 1] {
            let path = restored.inclusion_path(index, size, &log.tiles).unwrap();
            assert_eq!(path, log.inclusion(index, size));
        }
        for leaf in &log.leaves[size as usize..] {
            let _already_stored = restored.append(*leaf);
        }
        assert_eq!(restored.root(), log.tree.root());
    }
}

#[test]
fn restoring_refuses_a_wrong_tail_and_missing_or_short_tiles() {
    let mut log = Log::of(700);
    let tail = log.leaves[512..].to_vec();
    for wrong in [&tail[1..], &log.leaves[511..], &[]] {
        let error = LogTree::restore(700, &log.tiles, wrong).unwrap_err();
        assert!(
            matches!(error, RestoreError::TailLength { size: 700, expected: 188, found } if found == wrong.len())
        );
    }
    log.tiles.stored.get_mut(&(0, 1)).unwrap().pop();
    let error = LogTree::restore(700, &log.tiles, &tail).unwrap_err();
    assert!(
        matches!(error, RestoreError::Tile(TileError::Width { level: 0, number: 1, found: 255 })),
        "{error}"
    );
    log.tiles.stored.remove(&(0, 1));
    let error = LogTree::restore(700, &log.tiles, &tail).unwrap_err();
    assert!(
        matches!(error, RestoreError::Tile(TileError::Source { level: 0, number: 1, source: Missing })),
        "{error}"
    );
}

#[test]
fn questions_beyond_the_log_are_refused_with_the_sizes() {
    let log = Log::of(10);
    let error = log.tree.root_at(11, &log.tiles).unwrap_err();
    assert!(matches!(error, LogTreeError::SizeBeyondTree { asked: 11, size: 10 }));
    let error = log.tree.inclusion_path(3, 11, &log.tiles).unwrap_err();
    assert!(matches!(error, LogTreeError::SizeBeyondTree { asked: 11, size: 10 }));
    let error = log.tree.inclusion_path(7, 7, &log.tiles).unwrap_err();
    assert!(matches!(error, LogTreeError::IndexBeyondSize { index: 7, size: 7 }));
    let error = log.tree.consistency_path(3, 11, &log.tiles).unwrap_err();
    assert!(matches!(error, LogTreeError::SizeBeyondTree { asked: 11, size: 10 }));
    let error = log.tree.consistency_path(8, 7, &log.tiles).unwrap_err();
    assert!(matches!(error, LogTreeError::SizesReversed { old: 8, new: 7 }));
    assert!(log.tree.inclusion_path(0, 0, &log.tiles).is_err());
    assert!(LogTree::new().inclusion_path(0, u64::MAX, &log.tiles).is_err());
}

#[test]
fn a_missing_or_short_tile_fails_the_path_that_crosses_it_and_no_other() {
    let mut log = Log::of(700);
    log.tiles.stored.get_mut(&(0, 0)).unwrap().truncate(255);
    log.tiles.stored.remove(&(0, 1));
    let error = log.tree.inclusion_path(0, 700, &log.tiles).unwrap_err();
    assert!(
        matches!(error, LogTreeError::Tile(TileError::Width { level: 0, number: 0, found: 255 })),
        "{error}"
    );
    let error = log.tree.inclusion_path(256, 700, &log.tiles).unwrap_err();
    assert!(
        matches!(error, LogTreeError::Tile(TileError::Source { level: 0, number: 1, source: Missing })),
        "{error}"
    );
    log.inclusion(600, 700);
    log.consistency(512, 700);
}

#[test]
fn a_path_proves_no_other_leaf_index_size_or_root() {
    let log = Log::of(300);
    let (index, size) = (129, 300);
    let path = log.inclusion(index, size);
    let root = log.tree.root();
    assert!(verify_inclusion(&log.leaves[130], index, size, &path, &root).is_err());
    assert!(verify_inclusion(&log.leaves[129], 130, size, &path, &root).is_err());
    assert!(verify_inclusion(&log.leaves[129], index, size, &path, &root_of(log.prefix(299))).is_err());
    assert!(verify_inclusion(&log.leaves[129], index, size, &path[1..], &root).is_err());
    let steps = log.consistency(129, size);
    assert!(verify_consistency(130, size, &steps, &root_of(log.prefix(130)), &root).is_err());
    assert!(verify_consistency(129, size, &steps, &root_of(log.prefix(128)), &root).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_two_sizes_and_any_leaf_agree_with_the_whole_list(new in 1u64..2_000, a in any::<u64>(), b in any::<u64>()) {
        let log = Log::of(new + b % 300);
        let (old, index) = (a % (new + 1), b % new);
        prop_assert_eq!(log.inclusion(index, new), inclusion_path(log.prefix(new), index as usize).unwrap());
        prop_assert_eq!(log.consistency(old, new), consistency_path(log.prefix(new), old as usize).unwrap());
        prop_assert_eq!(log.restored(new).root(), root_of(log.prefix(new)));
    }
}
