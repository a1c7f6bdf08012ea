//! The policies in force, and what the rows of earlier ones become.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use ratelimit_core::ports::Policy;
use ratelimit_core::{Carried, Enforcement, Keep, Limit, Nanos, StoredLimit};

use super::failure::RedbRateError;
use super::file::Change;
use super::layout::{self, RowKey};
use super::moving::Move;
use super::options::{NAME_BYTES_MAX, POLICIES_MAX};
use super::rows::{Row, Rows};

/// A policy in force.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub name: String,
    pub limit: Limit,
    pub enforcement: Enforcement,
    /// By which the file knows it.
    pub number: u32,
    /// Which no other limit of this process has, so that grants of others are told.
    pub version: u64,
}

/// The policies of a store. Their places are their ids.
#[derive(Debug, Default)]
pub(super) struct Policies {
    kept: Vec<Kept>,
    by_number: HashMap<u32, usize>,
}

/// From when to when rows are taken over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Now, as the old words count it.
    pub before: Nanos,
    /// Now, as the new ones do.
    pub after: Nanos,
    /// Whether both count from one epoch.
    pub same_epoch: bool,
}

/// Other policies for rows that nobody asks for meanwhile, worked out; nothing has happened yet.
#[derive(Debug)]
pub(super) struct Succession {
    pub policies: Policies,
    pub rows: Rows,
    pub change: Change,
}

/// Other policies, worked out; their rows are still to be made.
#[derive(Debug)]
pub(super) struct Plan {
    pub policies: Policies,
    pub carried: Vec<Carried>,
    /// By the number of before.
    pub moves: BTreeMap<u32, Move>,
    /// Policies that nobody takes over, by number.
    pub gone: BTreeMap<u32, Limit>,
}

/// The last version that was given to a limit.
static VERSIONS: AtomicU64 = AtomicU64::new(0);

impl Kept {
    /// As a file had it that was just opened: no grant of it can be there.
    pub(super) fn stored(number: u32, name: String, limit: Limit) -> Self {
        Self { name, limit, enforcement: Enforcement::Enforced, number, version: next_version() }
    }
}

fn next_version() -> u64 {
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

impl Policies {
    pub(super) fn new(kept: Vec<Kept>) -> Self {
        let by_number = kept.iter().enumerate().map(|(index, kept)| (kept.number, index)).collect();
        Self { kept, by_number }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Kept> {
        self.kept.get(index)
    }

    /// The policy whose rows have this number.
    pub(super) fn numbered(&self, number: u32) -> Option<&Kept> {
        self.kept.get(*self.by_number.get(&number)?)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.by_number.keys().copied()
    }

    /// The numbers of policies that have rows.
    pub(super) fn counting(&self) -> impl Iterator<Item = u32> {
        self.kept.iter().filter(|kept| kept.limit.stored().is_some()).map(|kept| kept.number)
    }

    /// The limit of a row, as rows know it.
    pub(super) fn limit_of(&self, key: RowKey) -> Option<StoredLimit<'_>> {
        self.numbered(key.policy)?.limit.stored()
    }

    /// All of them, encoded by number.
    pub(super) fn encoded(&self) -> BTreeMap<u32, Option<Vec<u8>>> {
        let encoded = |kept: &Kept| (kept.number, layout::encode_policy(&kept.name, &kept.limit));
        self.kept.iter().map(encoded).collect()
    }

    /// What follows from other policies, in force while their rows are made: another limit has another number.
    pub(super) fn planned(
        &self,
        policies: Vec<Policy>,
        taken: impl Iterator<Item = u32>,
    ) -> Result<Plan, RedbRateError> {
        check(&policies)?;
        let by_name: HashMap<&str, &Kept> = self.kept.iter().map(|kept| (kept.name.as_str(), kept)).collect();
        let used: BTreeSet<u32> = self.by_number.keys().copied().chain(taken).collect();
        let mut free = (0..u32::MAX).filter(|number| !used.contains(number));
        let mut gone: BTreeMap<u32, Limit> =
            self.kept.iter().map(|kept| (kept.number, kept.limit.clone())).collect();
        let (mut kept, mut carried, mut moves) = (Vec::new(), Vec::new(), BTreeMap::new());
        for Policy { name, limit, enforcement } in policies {
            let old = by_name.get(name.as_str()).copied();
            let same = old.filter(|old| old.limit == limit);
            let number = same.map(|old| old.number).or_else(|| free.next());
            // There are more numbers than policies.
            let number = number.ok_or(RedbRateError::TooManyPolicies { policies: usize::MAX })?;
            let version = same.map_or_else(next_version, |old| old.version);
            let after = Kept { name, limit, enforcement, number, version };
            carried.push(how(old, &after));
            if same.is_some() {
                gone.remove(&number);
            } else if let Some(old) = old
                && old.limit.stored().is_some()
                && after.limit.stored().is_some()
            {
                gone.remove(&old.number);
                let (old_limit, new) = (old.limit.clone(), after.limit.clone());
                moves.insert(old.number, Move { to: number, old: old_limit, new });
            }
            kept.push(after);
        }
        Ok(Plan { policies: Self::new(kept), carried, moves, gone })
    }

    /// What follows from other policies, and from another time: which rows stay, and what has to be written.
    ///
    /// The rows are those of the policies in force; a policy takes over those of the one of its name.
    pub(super) fn succeeded(
        &self,
        policies: Vec<Policy>,
        rows: &Rows,
        moment: Moment,
    ) -> Result<Succession, RedbRateError> {
        check(&policies)?;
        let by_name: HashMap<&str, &Kept> = self.kept.iter().map(|kept| (kept.name.as_str(), kept)).collect();
        let used: BTreeSet<u32> = self.by_number.keys().copied().collect();
        let mut free = (0..u32::MAX).filter(|number| !used.contains(number));
        let (mut kept, mut change) = (Vec::new(), Change::default());
        let (mut rows_after, mut inherited) = (Rows::default(), BTreeSet::new());
        for Policy { name, limit, enforcement } in policies {
            let old = by_name.get(name.as_str()).copied();
            let same = old.is_some_and(|old| old.limit == limit);
            let number = old.map(|old| old.number).or_else(|| free.next());
            // There are more numbers than policies.
            let number = number.ok_or(RedbRateError::TooManyPolicies { policies: usize::MAX })?;
            let version = old.filter(|_| same).map_or_else(next_version, |old| old.version);
            let after = Kept { name, limit, enforcement, number, version };
            if let Some(old) = old {
                inherited.insert(number);
                take_over(old, &after, rows, moment, &mut rows_after, &mut change);
            }
            if !same {
                change.policies.insert(number, layout::encode_policy(&after.name, &after.limit));
            }
            kept.push(after);
        }
        for number in used.difference(&inherited) {
            change.policies.insert(*number, None);
        }
        Ok(Succession { policies: Self::new(kept), rows: rows_after, change })
    }
}

fn check(policies: &[Policy]) -> Result<(), RedbRateError> {
    if policies.len() > POLICIES_MAX {
        return Err(RedbRateError::TooManyPolicies { policies: policies.len() });
    }
    let mut names = BTreeSet::new();
    for Policy { name, limit, .. } in policies {
        if name.len() > NAME_BYTES_MAX {
            return Err(RedbRateError::NameTooLong { bytes: name.len() });
        }
        if name.starts_with(layout::NOBODYS) {
            return Err(RedbRateError::NameReserved);
        }
        if !names.insert(name) {
            return Err(RedbRateError::SameName { name: name.clone() });
        }
        match limit {
            Limit::Gcra(_)
            | Limit::FixedWindow(_)
            | Limit::Calendar(_)
            | Limit::Unlimited
            | Limit::DenyAll => {}
            _ => return Err(RedbRateError::Unsupported { name: name.clone() }),
        }
    }
    Ok(())
}

fn how(old: Option<&Kept>, after: &Kept) -> Carried {
    match old {
        Some(old) if old.limit == after.limit => Carried::Table,
        Some(old) if old.limit.stored().is_some() && after.limit.stored().is_some() => Carried::Cells,
        _ => Carried::Nothing,
    }
}

/// Brings the rows of a policy to the one after it.
fn take_over(
    old: &Kept,
    after: &Kept,
    rows: &Rows,
    moment: Moment,
    rows_after: &mut Rows,
    change: &mut Change,
) {
    let same = old.limit == after.limit && moment.same_epoch;
    let limits = old.limit.stored().zip(after.limit.stored());
    for (key, row) in rows.of(old.number).into_iter().flatten() {
        let memory = limits.map_or(0, |(old, after)| carried_word(row.memory, old, after, moment, same));
        if limits.is_none_or(|(_, after)| after.is_dead(memory, moment.after)) {
            change.rows.insert(*key, None);
            continue;
        }
        // A word that was clamped is written anew too: the disk's would lock the key out at each opening. Not ahead: nothing was
        // asked for.
        let written = if same && memory == row.memory { row.written } else { memory };
        if written != row.written || !same {
            change.rows.insert(*key, Some(written));
        }
        rows_after.insert(*key, Row { memory, written });
    }
}

pub(super) fn carried_word(
    word: u64,
    old: StoredLimit<'_>,
    after: StoredLimit<'_>,
    moment: Moment,
    same: bool,
) -> u64 {
    let word = old.clamped(word, moment.before);
    if same {
        return word;
    }
    if moment.same_epoch {
        return after.carried_from(old, word, Keep::Cells, moment.after);
    }
    if old.is_dead(word, moment.before) {
        return 0;
    }
    // In whole cells, what was used rounded up: the two clocks have nothing else in common.
    let left = old.decide(word, 0, moment.before).decision.remaining();
    let size = after.decide(0, 0, moment.after).decision.limit();
    after.decide(0, size.saturating_sub(left), moment.after).next.unwrap_or(0)
}
