//! Rows on their way to other limits, while the limits of before go on deciding.
//!
//! A limit that changes gets a number of its own. Its rows are made from those of before, some with each commit, and made anew
//! whenever one of those changes; a last commit gives the number the policy's name. Until then the file says that the new
//! rows are nobody's, so whatever ends the process, it finds the old policies whole or the new ones. The old rows then go in the
//! same way, some with each commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ratelimit_core::{Limit, Nanos};

use super::layout::{self, RowKey};
use super::options::MOVED_AT_ONCE;
use super::policies::{Moment, carried_word};
use super::rows::{PolicyRows, Row, Rows, behind};

/// Words that a commit writes; `None` removes the row.
pub(super) type Words = BTreeMap<RowKey, Option<u64>>;

/// Policies that a commit writes, encoded; `None` removes the policy.
pub(super) type EncodedPolicies = BTreeMap<u32, Option<Vec<u8>>>;

/// A limit that changes.
#[derive(Debug, Clone)]
pub(super) struct Move {
    /// The number that the new one gets.
    pub to: u32,
    pub old: Limit,
    pub new: Limit,
}

/// Limits that change.
#[derive(Debug)]
pub(super) struct Moving {
    /// By the number of before.
    moves: BTreeMap<u32, Move>,
    /// Rows up to here are made, of policies that move.
    reached: Option<RowKey>,
    is_done: bool,
    made: Rows,
}

/// A name that no policy has: what has it is nobody's, and goes when the file is opened.
pub(super) fn nobodys(number: u32) -> String {
    format!("{}{number}", layout::NOBODYS)
}

impl Moving {
    pub(super) fn new(moves: BTreeMap<u32, Move>, rows: &Rows) -> Self {
        let is_done = moves.keys().all(|old| rows.len_of(*old) == 0);
        Self { moves, reached: None, is_done, made: Rows::default() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What the file is told before it gets rows of new numbers.
    pub(super) fn announced(&self) -> EncodedPolicies {
        let encoded = |to: &Move| (to.to, layout::encode_policy(&nobodys(to.to), &to.new));
        self.moves.values().map(encoded).collect()
    }

    /// Whether a row has been made of this one, so that a change of it has to be followed.
    pub(super) fn follows(&self, key: RowKey) -> bool {
        self.moves.contains_key(&key.policy) && (self.is_done || Some(key) <= self.reached)
    }

    /// Makes the new row of one, or removes it with the old one.
    pub(super) fn follow(&mut self, key: RowKey, row: Option<Row>, now: Nanos, words: &mut Words) {
        let Some(Move { to, old, new }) = self.moves.get(&key.policy) else { return };
        let limits = old.stored().zip(new.stored());
        let moment = Moment { before: now, after: now, same_epoch: true };
        let word = row.zip(limits).map(|(row, (old, new))| carried_word(row.memory, old, new, moment, false));
        let live = word.filter(|word| new.stored().is_some_and(|new| !new.is_dead(*word, now)));
        let key = key.of(*to);
        match live {
            Some(word) => {
                // Not ahead: nothing was asked for under the new limit.
                self.made.insert(key, Row { memory: word, written: word });
                words.insert(key, Some(word));
            }
            // One that was never made need not be removed.
            None if self.made.remove(key).is_some() => drop(words.insert(key, None)),
            None => {}
        }
    }

    /// Makes the next rows.
    pub(super) fn step(&mut self, rows: &Rows, now: Nanos, words: &mut Words) {
        let from = self.reached.map_or(0, |reached| reached.policy);
        let next = self.moves.range(from..).filter_map(|(old, _)| rows.of(*old));
        let next: Vec<(RowKey, Row)> =
            next.flat_map(|rows| behind(rows, self.reached)).take(MOVED_AT_ONCE).collect();
        self.is_done |= next.len() < MOVED_AT_ONCE;
        for (key, row) in next {
            self.reached = Some(key);
            self.follow(key, Some(row), now, words);
        }
    }

    /// Puts the new rows in the place of the old ones, which are to be cleared away.
    pub(super) fn exchange(mut self, rows: &mut Rows, clearing: &mut Clearing) {
        for (old, Move { to, .. }) in &self.moves {
            let before = rows.take(*old);
            if !before.is_empty() {
                clearing.add(*old, before);
            }
            rows.put(*to, self.made.take(*to));
        }
    }

    /// Leaves the old rows where they are; the new ones are to be cleared away.
    pub(super) fn abandon(
        mut self,
        words: &mut Words,
        policies: &mut EncodedPolicies,
        clearing: &mut Clearing,
    ) {
        let numbers: BTreeSet<u32> = self.moves.values().map(|to| to.to).collect();
        words.retain(|key, _| !numbers.contains(&key.policy));
        for number in numbers {
            policies.remove(&number);
            clearing.add(number, self.made.take(number));
        }
    }
}

/// Rows in the file that are nobody's any more.
#[derive(Debug, Default)]
pub(super) struct Clearing(VecDeque<(u32, PolicyRows)>);

impl Clearing {
    pub(super) fn add(&mut self, policy: u32, rows: PolicyRows) {
        self.0.push_back((policy, rows));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Numbers that are not free yet.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(number, _)| *number)
    }

    /// Has a commit remove the next rows, and the policies of which none is left.
    pub(super) fn step(&mut self, words: &mut Words, policies: &mut EncodedPolicies) {
        for _ in 0..MOVED_AT_ONCE {
            let Some((number, rows)) = self.0.front_mut() else { return };
            match rows.pop_first() {
                Some((key, _)) => drop(words.insert(key, None)),
                None => {
                    policies.insert(*number, None);
                    self.0.pop_front();
                }
            }
        }
    }
}
