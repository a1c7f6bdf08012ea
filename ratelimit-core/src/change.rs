//! What a key keeps when its limit changes.
//!
//! # Guarantees
//!
//! - With [`Keep::Cells`] nobody has more cells after a change than before it, however often limits change.
//! - A key that used nothing, or whose state is dead, has the whole new size at once: it would have it anyway.
//! - An interval with a change in it admits at most the larger of the two sizes, and what refilled under each.

use crate::algorithms::{Compact, Gcra};
use crate::limit::Limit;
use crate::ticks::Nanos;

/// What becomes of the cells that are left when a limit changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// As many as there were, at most the new size.
    #[default]
    Cells,
    /// The same part of the size. Raising a limit then raises what is left, which an operator has to want.
    Share,
}

/// The word under `new` of a key that had `word` under `old`; 0 where one of them has no word.
pub(crate) fn carried(old: &Limit, word: u64, new: &Limit, keep: Keep, now: Nanos) -> u64 {
    match (old, new) {
        (Limit::Gcra(old), Limit::Gcra(new)) => carried_bucket(old, word, new, keep, now),
        _ => carried_cells(old, word, new, keep, now).unwrap_or(0),
    }
}

/// Whole cells, what was used rounded up.
fn carried_cells(old: &Limit, word: u64, new: &Limit, keep: Keep, now: Nanos) -> Option<u64> {
    let (old_size, new_size) = (old.size(), new.size());
    let (old, new) = (old.compact()?, new.compact()?);
    let old_at = old.at(now);
    if old.is_dead(word, old_at) {
        return None;
    }
    let used = old.used(word, old_at);
    let used = match keep {
        Keep::Cells => new_size.saturating_sub(old_size.saturating_sub(used)),
        Keep::Share => {
            let share = (u128::from(used) * u128::from(new_size)).div_ceil(u128::from(old_size.max(1)));
            u64::try_from(share).unwrap_or(u64::MAX).min(new_size)
        }
    };
    new.decide(0, new.at(now), used).next
}

/// From bucket to bucket nothing is rounded to cells: what is owed is, once, to a tick upwards.
fn carried_bucket(old: &Gcra, word: u64, new: &Gcra, keep: Keep, now: Nanos) -> u64 {
    let (old_at, new_at) = (old.at(now), new.at(now));
    if old.is_dead(word, old_at) {
        return 0;
    }
    let owed = u128::from(word.saturating_sub(old_at.point));
    let (old_capacity, new_capacity) = (u128::from(old.capacity_ticks()), u128::from(new.capacity_ticks()));
    // A cell is a power of two of ticks on both sides.
    let (finer, coarser) = (
        new.cell_shift().saturating_sub(old.cell_shift()),
        old.cell_shift().saturating_sub(new.cell_shift()),
    );
    let owed = match (keep, old_capacity.checked_sub(owed)) {
        (Keep::Share, Some(_)) => scaled_up(owed, new_capacity, old_capacity),
        (Keep::Cells, Some(left)) => new_capacity - ((left << finer) >> coarser).min(new_capacity),
        (_, None) => {
            let debt = ((owed - old_capacity) << finer).div_ceil(1 << coarser);
            new_capacity + debt.min(u128::from(new.debt_ticks()))
        }
    };
    new_at.point.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX))
}

/// `⌈a · b / c⌉` of numbers below 2^61, and `a` at most `c`.
fn scaled_up(a: u128, b: u128, c: u128) -> u128 {
    (a * b).div_ceil(c.max(1))
}
