//! Roots of earlier sizes, inclusion paths and consistency paths.

use ledger_verify::Hash;
use ledger_verify::hash::{log_empty, log_node};

use super::held_tile::{HeldTile, TILE_ROWS};
use super::{LogTree, LogTreeError, TileError, TileSource, read_tile};

impl LogTree {
    /// The root that the log had at `size` leaves.
    ///
    /// # Errors
    /// [`LogTreeError`]: `size` is beyond the log, or a tile is not available.
    pub fn root_at<S: TileSource>(&self, size: u64, source: &S) -> Result<Hash, LogTreeError<S::Error>> {
        self.check_size(size)?;
        Ok(Nodes::new(self, source).root_over(0, size)?)
    }

    /// The path from leaf `index` to the root of the first `size` leaves, from the leaf up. RFC 6962 section 2.1.1.
    ///
    /// # Errors
    /// [`LogTreeError`]: `size` is beyond the log, `index` beyond `size`, or a tile is not available.
    pub fn inclusion_path<S: TileSource>(
        &self,
        index: u64,
        size: u64,
        source: &S,
    ) -> Result<Vec<Hash>, LogTreeError<S::Error>> {
        self.check_size(size)?;
        if index >= size {
            return Err(LogTreeError::IndexBeyondSize { index, size });
        }
        let mut nodes = Nodes::new(self, source);
        let mut path = Vec::new();
        let (mut start, mut width) = (0, size);
        while width > 1 {
            let left_width = largest_power_of_two_below(width);
            let middle = start + left_width;
            if index < middle {
                path.push(nodes.root_over(middle, width - left_width)?);
                width = left_width;
            } else {
                path.push(nodes.root_over(start, left_width)?);
                (start, width) = (middle, width - left_width);
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The path that shows the first `old` leaves to be a prefix of the first `new`. RFC 6962 section 2.1.2; empty
    /// when `old` is 0 or equals `new`.
    ///
    /// # Errors
    /// [`LogTreeError`]: `new` is beyond the log, `old` beyond `new`, or a tile is not available.
    pub fn consistency_path<S: TileSource>(
        &self,
        old: u64,
        new: u64,
        source: &S,
    ) -> Result<Vec<Hash>, LogTreeError<S::Error>> {
        self.check_size(new)?;
        if old > new {
            return Err(LogTreeError::SizesReversed { old, new });
        }
        let mut path = Vec::new();
        if old == 0 {
            return Ok(path);
        }
        let mut nodes = Nodes::new(self, source);
        let (mut start, mut width) = (0, new);
        // Down to the subtree that ends where the old log ends.
        while start + width != old {
            let left_width = largest_power_of_two_below(width);
            let middle = start + left_width;
            if old <= middle {
                path.push(nodes.root_over(middle, width - left_width)?);
                width = left_width;
            } else {
                path.push(nodes.root_over(start, left_width)?);
                (start, width) = (middle, width - left_width);
            }
        }
        // When that subtree is the whole old log, the verifier already has its root.
        if start > 0 {
            path.push(nodes.root_over(start, width)?);
        }
        path.reverse();
        Ok(path)
    }

    fn check_size<E>(&self, asked: u64) -> Result<(), LogTreeError<E>> {
        if asked <= self.size { Ok(()) } else { Err(LogTreeError::SizeBeyondTree { asked, size: self.size }) }
    }
}

/// The nodes of a log during one proof: those in memory, and the tiles read so far.
struct Nodes<'a, S> {
    tree: &'a LogTree,
    source: &'a S,
    /// A path touches at most its leaf's tile and the tile at the log's right edge on each of 8 levels.
    read: Vec<(u8, HeldTile)>,
}

impl<'a, S: TileSource> Nodes<'a, S> {
    fn new(tree: &'a LogTree, source: &'a S) -> Self {
        Self { tree, source, read: Vec::new() }
    }

    /// The root over `width` leaves from leaf `start`, which is a multiple of a power of two not below `width`.
    fn root_over(&mut self, start: u64, width: u64) -> Result<Hash, TileError<S::Error>> {
        let mut root = None;
        let mut rest = width;
        while rest > 0 {
            let height = rest.trailing_zeros();
            rest -= 1 << height;
            let left = self.complete_subtree(height, (start + rest) >> height)?;
            root = Some(root.map_or(left, |right| log_node(&left, &right)));
        }
        Ok(root.unwrap_or_else(log_empty))
    }

    /// The root of complete subtree `index`, counted from the left, among those of 2^`height` leaves.
    fn complete_subtree(&mut self, height: u32, index: u64) -> Result<Hash, TileError<S::Error>> {
        // Lossless: a log has fewer than 2^64 leaves, so that height < 64, and the offset is below 256.
        let (level, row) = ((height as usize / TILE_ROWS) as u8, height as usize % TILE_ROWS);
        let number = index >> (TILE_ROWS - row);
        let offset = (index ^ (number << (TILE_ROWS - row))) as usize;

        let in_memory = self.tree.levels.get(usize::from(level)).into_iter();
        let read = self.read.iter().filter(|(read_level, _)| *read_level == level).map(|(_, tile)| tile);
        let known = in_memory
            .chain(read)
            .find(|tile| tile.number() == number)
            .and_then(|tile| tile.node(row, offset));
        if let Some(hash) = known {
            return Ok(hash);
        }
        let hashes = read_tile(self.source, level, number)?;
        let tile = HeldTile::from_hashes(number, &hashes);
        let node = tile.node(row, offset);
        self.read.push((level, tile));
        node.ok_or(TileError::Width { level, number, found: hashes.len() })
    }
}

/// Where RFC 6962 splits a tree of `width` leaves, at least 2: the largest power of two smaller than `width`.
fn largest_power_of_two_below(width: u64) -> u64 {
    1 << (width - 1).ilog2()
}
