//! What a key keeps when its limit changes.
//!
//! # Guarantees
//!
//! - With [`Keep::Cells`] nobody has more cells after a change than before it, however often limits change. Permits are the
//!   exception: those that are held stay held, and the others of the new number are free, since no time has to pass for them.
//! - A key that used nothing, or whose state is dead, has the whole new size at once: it would have it anyway.
//! - An interval with a change in it admits at most the larger of the two sizes, and what refilled under each. From log to log
//!   that is exact: the larger of the two limits in any interval as long as the shorter of the two periods.
//! - At every instant at most the larger of the two numbers of permits is held. Who holds permits can still release or
//!   renew them; while more are held than the new number none is given.
//! - What is converted is the state at the change, however much later the key is first asked about.

use crate::algorithms::{Compact, Gcra, SlidingLog};
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

/// What a key has used of a limit, as that limit keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Nothing, or nothing that is kept.
    Nothing,
    /// The state of an algorithm with one word.
    Word(u64),
    /// When each cell of a log is forgotten.
    Log(Vec<u64>),
    /// Holders of permits, and when each permit expires. No holder has the id 0.
    Permits(Vec<(u64, u64)>),
}

impl Usage {
    /// Both together. `other` is older, or what a sketch knows of many keys, so what it has counts only as far as it is more.
    pub(crate) fn merged(self, other: Self, limit: &Limit) -> Self {
        match (self, other) {
            (Self::Word(a), Self::Word(b)) => {
                Self::Word(limit.compact().map_or(0, |limit| limit.merge(a, b)))
            }
            (Self::Log(mut own), Self::Log(mut other)) => {
                other.sort_unstable_by(|a, b| b.cmp(a));
                other.truncate(other.len().saturating_sub(own.len()));
                own.append(&mut other);
                Self::Log(own)
            }
            (Self::Permits(mut own), Self::Permits(mut other)) => {
                other.sort_unstable_by_key(|(_, expires)| std::cmp::Reverse(*expires));
                other.truncate(other.len().saturating_sub(own.len()));
                own.append(&mut other);
                Self::Permits(own)
            }
            (Self::Nothing, other) => other,
            (own, _) => own,
        }
    }

    /// Cells of `limit` that are used at `now`.
    fn cells(&self, limit: &Limit, now: Nanos) -> u64 {
        let live = |ends: &mut dyn Iterator<Item = u64>| ends.filter(|end| *end > now.0).count() as u64;
        match self {
            Self::Nothing => 0,
            Self::Word(word) => limit.compact().map_or(0, |limit| {
                let at = limit.at(now);
                if limit.is_dead(*word, at) { 0 } else { limit.used(*word, at) }
            }),
            Self::Log(ends) => live(&mut ends.iter().copied()),
            Self::Permits(held) => live(&mut held.iter().map(|(_, expires)| *expires)),
        }
    }
}

/// What a key that had used `usage` of `old` has used of `new`, when the limit changed at `now`.
pub(crate) fn carried(old: &Limit, usage: Usage, new: &Limit, keep: Keep, now: Nanos) -> Usage {
    match (usage, old, new) {
        (Usage::Word(word), _, _) if new.compact().is_some() => {
            Usage::Word(carried_word(old, word, new, keep, now))
        }
        (Usage::Log(ends), Limit::SlidingLog(old), Limit::SlidingLog(new)) => {
            Usage::Log(carried_log(old, ends, new, keep, now))
        }
        // Who holds what is known exactly, and stays so.
        (Usage::Permits(held), Limit::Concurrency(_), Limit::Concurrency(_)) => Usage::Permits(held),
        (usage, _, _) => match usage.cells(old, now) {
            0 => Usage::Nothing,
            used => used_just_now(new, used_of(new.size(), keep, used, old.size()), now),
        },
    }
}

/// The state of `limit` in which `used` cells were taken at `now`, permits by nobody who could give them back.
fn used_just_now(limit: &Limit, used: u64, now: Nanos) -> Usage {
    // At most the size of the limit, which of a log and of permits is small.
    let cells = usize::try_from(used).unwrap_or_default();
    match limit {
        Limit::SlidingLog(log) => Usage::Log(vec![now.after(log.period()).0; cells]),
        Limit::Concurrency(permits) => Usage::Permits(vec![(0, now.after(permits.expiry()).0); cells]),
        _ => Usage::Word(
            limit.compact().and_then(|limit| limit.decide(0, limit.at(now), used).next).unwrap_or(0),
        ),
    }
}

/// Cells of a size that count as used when so many of the old size were.
fn used_of(new_size: u64, keep: Keep, used: u64, old_size: u64) -> u64 {
    match keep {
        Keep::Cells => new_size.saturating_sub(old_size.saturating_sub(used)),
        Keep::Share => {
            let share = (u128::from(used) * u128::from(new_size)).div_ceil(u128::from(old_size.max(1)));
            u64::try_from(share).unwrap_or(u64::MAX).min(new_size)
        }
    }
}

/// The newest cells that there is room for, and so many more that nobody has more left than before.
///
/// Each stays for as long as the new period says. One that the new period would have forgotten stays for a new period from the
/// change, or as long as it would have without it.
fn carried_log(old: &SlidingLog, mut ends: Vec<u64>, new: &SlidingLog, keep: Keep, now: Nanos) -> Vec<u64> {
    let (old_period, new_period) = (old.period(), new.period());
    let own_end = now.after(new_period).0;
    ends.retain(|end| *end > now.0);
    ends.sort_unstable_by(|a, b| b.cmp(a));
    let live = ends.len() as u64;
    if live == 0 {
        return ends;
    }
    let used = used_of(new.limit(), keep, live.min(old.limit()), old.limit()).max(live.min(new.limit()));
    for end in &mut ends {
        *end = match new_period.checked_sub(old_period) {
            Some(longer) => Nanos(*end).after(longer).0,
            None => (*end).min(own_end),
        };
    }
    ends.resize(usize::try_from(used).unwrap_or_default(), own_end);
    ends
}

/// The word under `new` of a key that had `word` under `old`; 0 where one of them has no word.
pub(crate) fn carried_word(old: &Limit, word: u64, new: &Limit, keep: Keep, now: Nanos) -> u64 {
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
    let used = used_of(new_size, keep, old.used(word, old_at), old_size);
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
