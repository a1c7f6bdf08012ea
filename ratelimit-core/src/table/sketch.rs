//! Where the keys go that a full table has no slot for: a few rows of shared cells.

use super::word::Word;
use crate::algorithms::{At, Compact};

/// Rows; a key is hurt only by keys that share its cell in every one.
const ROWS: usize = 4;

/// Cells that many keys share, each at least as strict as every key in it.
///
/// # Guarantees
///
/// - What is estimated for a key admits nothing that the key's own state would deny: a cell is only ever merged with the
///   states of its keys, and merging never loosens.
pub(crate) struct Sketch<W> {
    cells: Box<[W]>,
    width: u64,
    /// Merge of everything ever entered: while it is dead, so is every cell.
    all: W,
}

impl<W: Word> Sketch<W> {
    /// `bytes` of cells; fewer than one per row makes a sketch that takes nothing.
    /// `None` when there is no memory for them.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let width = bytes / size_of::<u64>() / ROWS;
        Some(Self { width: width as u64, cells: W::zeroed(width * ROWS)?, all: W::new(0) })
    }

    pub(crate) fn takes_any(&self) -> bool {
        self.width > 0
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    /// The cell of `tag` in each row. Rows of one hash: double hashing with an odd step.
    fn cells(&self, tag: u64) -> impl Iterator<Item = &W> {
        let step = tag.rotate_left(32) | 1;
        (0..ROWS as u64).filter_map(move |row| {
            let hash = tag.wrapping_add(step.wrapping_mul(row + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let column = (u128::from(hash) * u128::from(self.width)) >> 64;
            self.cells.get((row * self.width + column as u64) as usize)
        })
    }

    /// The least strict of the key's cells; 0 when all of them are dead.
    pub(crate) fn estimate(&self, tag: u64, algorithm: &(impl Compact + ?Sized), at: At) -> u64 {
        if self.width == 0 || algorithm.is_dead(self.all.load(), at) {
            return 0;
        }
        let mut least = None;
        for state in self.cells(tag).map(Word::load) {
            if algorithm.is_dead(state, at) {
                return 0; // one dead cell proves that the key itself is dead
            }
            if least.is_none_or(|least| algorithm.merge(state, least) == least) {
                least = Some(state);
            }
        }
        least.unwrap_or(0)
    }

    /// Makes every cell of the key at least as strict as `state`.
    pub(crate) fn enter(&self, tag: u64, state: u64, algorithm: &(impl Compact + ?Sized)) {
        for cell in self.cells(tag).chain(std::iter::once(&self.all)) {
            let mut held = cell.load();
            loop {
                let merged = algorithm.merge(held, state);
                if merged == held {
                    break;
                }
                match cell.replace(held, merged) {
                    Ok(()) => break,
                    Err(now) => held = now,
                }
            }
        }
    }
}
