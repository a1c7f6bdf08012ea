//! A tile in memory with the inner nodes above its hashes.

use ledger_verify::Hash;
use ledger_verify::hash::log_node;
use ledger_verify::log::root_of;

use super::{TILE_WIDTH, TILE_WIDTH_HASHES, TileError, TileSource, read_tile};

/// Rows of nodes in a tile below its root: 256 hashes, then 128 pairs of them, down to the 2 children of the root.
pub(super) const TILE_ROWS: usize = 8;
const _: () = assert!(TILE_WIDTH == 1 << TILE_ROWS, "a tile is a complete binary tree over its hashes");

/// The leftmost hashes of a tile, and every inner node that they complete.
#[derive(Clone, Default)]
pub(super) struct HeldTile {
    number: u64,
    /// Row 0 holds the tile's hashes, row `r` the roots over each 2^r of them.
    rows: [Vec<Hash>; TILE_ROWS],
}

impl HeldTile {
    pub(super) fn from_hashes(number: u64, hashes: &[Hash]) -> Self {
        let mut held = Self { number, rows: Default::default() };
        for hash in hashes {
            held.push(*hash);
        }
        held
    }

    /// The rightmost tile of `level` in a log whose `level` has `level_hashes` hashes, at least one. A partial tile
    /// is not stored: its hashes are the tail leaves, or the roots of the full tiles one level below.
    pub(super) fn restore<S: TileSource>(
        level: u8,
        level_hashes: u64,
        source: &S,
        tail_leaves: &[Hash],
    ) -> Result<Self, TileError<S::Error>> {
        let number = level_hashes.saturating_sub(1) / TILE_WIDTH_HASHES;
        if level_hashes.is_multiple_of(TILE_WIDTH_HASHES) {
            return Ok(Self::from_hashes(number, &read_tile(source, level, number)?));
        }
        let Some(level_below) = level.checked_sub(1) else {
            return Ok(Self::from_hashes(number, tail_leaves));
        };
        let mut held = Self { number, rows: Default::default() };
        for tile_below in number * TILE_WIDTH_HASHES..level_hashes {
            held.push(root_of(&read_tile(source, level_below, tile_below)?));
        }
        Ok(held)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The hashes of the tile so far.
    pub(super) fn hashes(&self) -> &[Hash] {
        let [hashes, ..] = &self.rows;
        hashes
    }

    /// Adds the next hash of the level; a full tile gives way to the next one first, and not earlier, so that the
    /// newest leaf is always proved from memory. Returns the tile's root when the hash completes it.
    pub(super) fn push(&mut self, hash: Hash) -> Option<Hash> {
        if self.hashes().len() == TILE_WIDTH {
            self.number += 1;
            self.rows.iter_mut().for_each(Vec::clear);
        }
        let mut node = hash;
        for row in &mut self.rows {
            let left = unpaired(row);
            row.push(node);
            node = log_node(&left?, &node);
        }
        Some(node)
    }

    /// The roots of the complete subtrees at the right edge that have no right neighbour yet, smallest first. A
    /// full tile has none: its root is a hash of the next level.
    pub(super) fn unpaired(&self) -> impl Iterator<Item = Hash> {
        self.rows.iter().filter_map(|row| unpaired(row))
    }

    /// Node `offset` of `row`, if this tile has it.
    pub(super) fn node(&self, row: usize, offset: usize) -> Option<Hash> {
        self.rows.get(row)?.get(offset).copied()
    }
}

/// The last node of a row if it waits for its right neighbour.
fn unpaired(row: &[Hash]) -> Option<Hash> {
    row.chunks(2).next_back().and_then(|pair| if let [left] = pair { Some(*left) } else { None })
}
