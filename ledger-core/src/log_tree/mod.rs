//! The log tree: an RFC 6962 Merkle tree over the block headers of one vault, with bounded memory.
//!
//! Leaf `i` is the leaf hash of the header at height `i`. The tree is cut into tiles as C2SP `tlog-tiles` defines
//! them: tile `number` of level `level` holds the roots `256 * number ..= 256 * number + 255` of the complete
//! subtrees of `256^level` leaves. A tile that is full never changes. [`LogTree::append`] hands each one out
//! exactly once, for storage; the tree itself keeps only the rightmost tile of each level, with its inner nodes: at
//! most 16 KiB a level, two levels up to 65,536 blocks and three up to 16 million.
//!
//! Proofs about recent blocks are answered from memory. Proofs about older ones read the tiles they cross from a
//! [`TileSource`], at most two of each level and each at most once.

mod held_tile;
mod prove;

use std::fmt;

use ledger_verify::Hash;
use ledger_verify::hash::{log_empty, log_node};

use self::held_tile::HeldTile;

/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 256;

/// [`TILE_WIDTH`] as a number of hashes in a log.
const TILE_WIDTH_HASHES: u64 = TILE_WIDTH as u64;

/// A full tile, which never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// 0 = leaf hashes, 1 = roots of 256 leaves, and so on; at most 7.
    pub level: u8,
    /// Counted from the left within the level.
    pub number: u64,
    /// [`TILE_WIDTH`] hashes; fewer in a partial tile.
    pub hashes: Vec<Hash>,
}

/// Reads back the full tiles that [`LogTree::append`] returned.
///
/// # Contract
/// A tile must be readable from the moment `append` returned it: a source over storage that is written later
/// overlays the tiles still to be written. Tiles that were never returned are never asked for.
pub trait TileSource {
    /// Why a tile could not be read; also for a tile that is missing.
    type Error: std::error::Error + 'static;

    /// The [`TILE_WIDTH`] hashes of tile `number` of `level`.
    ///
    /// # Errors
    /// When the tile is missing or cannot be read.
    fn tile(&self, level: u8, number: u64) -> Result<Vec<Hash>, Self::Error>;
}

/// A full tile is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TileError<E> {
    /// The source failed.
    #[error("cannot read log tile {number} of level {level}: {source}")]
    Source {
        /// Level of the tile.
        level: u8,
        /// Number of the tile within its level.
        number: u64,
        /// What the source reported.
        source: E,
    },
    /// The source returned something that is not a full tile.
    #[error(
        "log tile {number} of level {level} has {found} hashes instead of {TILE_WIDTH}: restore it from a backup"
    )]
    Width {
        /// Level of the tile.
        level: u8,
        /// Number of the tile within its level.
        number: u64,
        /// Hashes that the source returned.
        found: usize,
    },
}

/// Why a log tree could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError<E> {
    /// The number of tail leaves does not fit the size.
    #[error(
        "a log of {size} leaves ends with {expected} leaves after its last full tile, {found} were given"
    )]
    TailLength {
        /// Size of the log.
        size: u64,
        /// Leaves after the last full tile of level 0: size modulo 256.
        expected: u64,
        /// Leaves given.
        found: usize,
    },
    /// A tile is not available.
    #[error(transparent)]
    Tile(#[from] TileError<E>),
}

/// Why a root or path could not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogTreeError<E> {
    /// The log never had so many leaves.
    #[error("the log has {size} leaves, {asked} were asked for")]
    SizeBeyondTree {
        /// Size asked for.
        asked: u64,
        /// Size of the log.
        size: u64,
    },
    /// The leaf is not among the leaves of that size.
    #[error("leaf {index} is not in a log of {size} leaves")]
    IndexBeyondSize {
        /// Leaf asked for, counted from 0.
        index: u64,
        /// Size asked for.
        size: u64,
    },
    /// A consistency path leads from the smaller size to the larger.
    #[error("no consistency path leads from {old} leaves back to {new}: swap the sizes")]
    SizesReversed {
        /// Size to start from.
        old: u64,
        /// Size to arrive at.
        new: u64,
    },
    /// A tile is not available.
    #[error(transparent)]
    Tile(#[from] TileError<E>),
}

/// An append-only RFC 6962 tree that remembers the rightmost tile of each level.
#[derive(Clone, Default)]
pub struct LogTree {
    size: u64,
    /// From level 0 up to the highest that has a hash; none is empty.
    levels: Vec<HeldTile>,
}

impl LogTree {
    /// The log without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rebuilds the tree of `size` leaves from its stored full tiles and the `size % 256` leaf hashes after the
    /// last full tile of level 0. Reads at most 256 tiles of each level.
    ///
    /// Whether the tiles are those of the expected log is for the caller to check, with [`root`](Self::root).
    ///
    /// # Errors
    /// [`RestoreError`]: a wrong number of tail leaves, or a tile that is not available.
    pub fn restore<S: TileSource>(
        size: u64,
        source: &S,
        tail_leaves: &[Hash],
    ) -> Result<Self, RestoreError<S::Error>> {
        let expected = size % TILE_WIDTH_HASHES;
        if u64::try_from(tail_leaves.len()) != Ok(expected) {
            return Err(RestoreError::TailLength { size, expected, found: tail_leaves.len() });
        }
        let mut levels = Vec::new();
        let mut level = 0;
        let mut level_hashes = size;
        while level_hashes > 0 {
            levels.push(HeldTile::restore(level, level_hashes, source, tail_leaves)?);
            level_hashes /= TILE_WIDTH_HASHES;
            level += 1;
        }
        Ok(Self { size, levels })
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves; the hash of nothing for a log without leaves. RFC 6962 section 2.1.
    #[must_use]
    pub fn root(&self) -> Hash {
        let complete_subtrees = self.levels.iter().flat_map(HeldTile::unpaired);
        complete_subtrees.reduce(|right, left| log_node(&left, &right)).unwrap_or_else(log_empty)
    }

    /// The rightmost tile of every level that is not full, lowest level first, with the hashes that it has so far.
    pub fn partial_tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        let partial = self.levels.iter().zip(0..).filter(|(held, _)| held.hashes().len() < TILE_WIDTH);
        partial.map(|(held, level)| Tile { level, number: held.number(), hashes: held.hashes().to_vec() })
    }

    /// Appends a leaf hash; returns the tiles that it completed, lowest level first (usually none).
    #[must_use = "a completed tile is handed out once and must be stored"]
    pub fn append(&mut self, leaf: Hash) -> Vec<Tile> {
        let mut completed = Vec::new();
        let mut rising = Some(leaf);
        for (held, level) in self.levels.iter_mut().zip(0..) {
            let Some(hash) = rising else { break };
            rising = held.push(hash);
            if rising.is_some() {
                completed.push(Tile { level, number: held.number(), hashes: held.hashes().to_vec() });
            }
        }
        if let Some(hash) = rising {
            self.levels.push(HeldTile::from_hashes(0, &[hash]));
        }
        self.size += 1;
        completed
    }
}

impl fmt::Debug for LogTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTree").field("size", &self.size).field("levels", &self.levels.len()).finish()
    }
}

/// Reads a tile and checks its width.
fn read_tile<S: TileSource>(source: &S, level: u8, number: u64) -> Result<Vec<Hash>, TileError<S::Error>> {
    let hashes = source.tile(level, number).map_err(|source| TileError::Source { level, number, source })?;
    if hashes.len() == TILE_WIDTH {
        Ok(hashes)
    } else {
        Err(TileError::Width { level, number, found: hashes.len() })
    }
}
