//! All counters in memory: what decides while the process lives, and what the disk has yet to be told.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use ratelimit_core::{Decision, Nanos, StoredLimit};

use super::file::Change;
use super::layout::RowKey;
use super::lease::written_ahead;
use super::policies::{Kept, Policies, Row, Rows};
use super::request::{Decided, Part, Purpose, Request};

/// Rows that are looked at for each one that is written: dead ones go faster than others come.
const SWEPT_PER_ROW: usize = 4;

/// Rows that are looked at when there is no room for a key.
const SWEPT_WHEN_FULL: usize = 64;

#[derive(Debug)]
pub(super) struct Counters {
    rows: Rows,
    keys_max: usize,
    overflowed: u64,
    /// What the next commit writes.
    gathered: BTreeMap<RowKey, Option<u64>>,
    /// Its number.
    next_commit: u64,
    /// The commit that each written word waits for which is not durable yet.
    unsettled: HashMap<RowKey, u64>,
    /// How far the sweep has come.
    swept_to: Option<RowKey>,
}

/// A counter while a request about it is decided.
struct Pending<'p> {
    kept: &'p Kept,
    key: RowKey,
    word: u64,
    cost: u64,
    /// The word and the stamp of a charge, as it was decided last.
    next: Option<(u64, u64)>,
}

impl Pending<'_> {
    fn decide(&mut self, cost: u64, now: Nanos) -> Option<Decision> {
        let Some(limit) = self.kept.limit.stored() else { return self.kept.limit.uncounted(now) };
        let step = limit.decide(self.word, cost, now);
        self.next = step.next.zip(step.stamp);
        Some(step.decision)
    }
}

impl Counters {
    pub(super) fn new(rows: Rows, keys_max: usize) -> Self {
        Self {
            rows,
            keys_max,
            overflowed: 0,
            gathered: BTreeMap::new(),
            next_commit: 1,
            unsettled: HashMap::new(),
            swept_to: None,
        }
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Charges that found no room.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Decides about a request whose policies are known, and charges it when it is admitted.
    pub(super) fn decide(
        &mut self,
        policies: &Policies,
        request: &Request,
        purpose: Purpose,
        now: Nanos,
    ) -> Decided {
        let (mut pending, overflowed) = self.pending(policies, request, now);
        if purpose == Purpose::Charge {
            self.overflowed = self.overflowed.saturating_add(overflowed);
        }
        let decide = |pending: &mut Pending<'_>, cost: u64| {
            let decision = pending.decide(cost, now)?;
            Some((decision, pending.kept.enforcement))
        };
        let mut decisions: Vec<_> =
            pending.iter_mut().filter_map(|pending| decide(pending, pending.cost)).collect();
        let allowed = request.verdict(&decisions).is_allowed();
        let (mut parts, mut after) = (Vec::new(), None);
        for (pending, decision) in pending.iter_mut().zip(&mut decisions) {
            match (decision.0.is_allowed(), allowed, purpose) {
                (true, true, Purpose::Charge) => {
                    if let Some(part) = self.charge(pending, now) {
                        parts.push(part);
                        after = after.max(self.unsettled.get(&part.key).copied());
                    }
                }
                // What is left without the request.
                (true, false, _) => *decision = decide(pending, 0).unwrap_or(*decision),
                _ => {}
            }
        }
        Decided { verdict: request.verdict(&decisions), parts, after }
    }

    /// The counters of a request, and for how many of them there is no room.
    fn pending<'p>(
        &mut self,
        policies: &'p Policies,
        request: &Request,
        now: Nanos,
    ) -> (Vec<Pending<'p>>, u64) {
        let mut room = self.room_for(policies, request, now);
        let mut overflowed = 0;
        let mut pending = Vec::with_capacity(request.asked.len());
        for asked in &request.asked {
            let Some(kept) = policies.get(asked.policy) else { continue };
            let key = RowKey::new(kept.number, asked.tag);
            let word = match (self.rows.get(&key), kept.limit.stored()) {
                (Some(row), _) => row.memory,
                (None, None) => 0,
                (None, Some(limit)) if room == 0 => {
                    overflowed += u64::from(asked.cost > 0);
                    // As if everything were used.
                    limit.debited(0, kept.limit.size(), now)
                }
                (None, Some(_)) => {
                    room -= usize::from(asked.cost > 0);
                    0
                }
            };
            pending.push(Pending { kept, key, word, cost: asked.cost, next: None });
        }
        (pending, overflowed)
    }

    /// How many new rows a request may make. Looks for dead ones when there are too few.
    fn room_for(&mut self, policies: &Policies, request: &Request, now: Nanos) -> usize {
        if self.keys_max.saturating_sub(self.rows.len()) < request.asked.len() {
            self.sweep(policies, SWEPT_WHEN_FULL, now);
        }
        self.keys_max.saturating_sub(self.rows.len())
    }

    /// Takes what was decided last.
    fn charge(&mut self, pending: &Pending<'_>, now: Nanos) -> Option<Part> {
        let (next, stamp) = pending.next?;
        let limit = pending.kept.limit.stored()?;
        let row = self.rows.entry(pending.key).or_insert(Row { memory: 0, written: 0 });
        row.memory = next;
        if next > row.written {
            row.written = written_ahead(limit, pending.kept.limit.size(), next, now);
            self.gathered.insert(pending.key, Some(row.written));
            self.unsettled.insert(pending.key, self.next_commit);
        }
        Some(Part { key: pending.key, version: pending.kept.version, cost: pending.cost, stamp })
    }

    /// Gives back what was taken. The disk stays ahead.
    pub(super) fn refund(&mut self, limit: StoredLimit<'_>, part: &Part, now: Nanos) {
        if let Some(row) = self.rows.get_mut(&part.key) {
            row.memory = limit.refunded(row.memory, part.stamp, part.cost, now);
        }
    }

    /// Forgets a counter. The commit to wait for, when there was one.
    pub(super) fn reset(&mut self, key: RowKey) -> Option<u64> {
        self.rows.remove(&key)?;
        self.gathered.insert(key, None);
        Some(self.next_commit)
    }

    /// Looks at some rows, and takes the dead ones out: from memory now, from the disk with the next commit.
    fn sweep(&mut self, policies: &Policies, count: usize, now: Nanos) {
        let rows = self.rows.range((behind(self.swept_to), Bound::Unbounded)).take(count);
        let (mut seen, mut dead) = (None, Vec::new());
        for (key, row) in rows {
            seen = Some(*key);
            if !is_live(policies, *key, *row, now) {
                dead.push(*key);
            }
        }
        // Behind the last it begins anew.
        self.swept_to = seen;
        for key in dead {
            self.rows.remove(&key);
            self.gathered.insert(key, None);
        }
    }

    /// What is to be written, and its number. Rows that died leave with it.
    pub(super) fn take_gathered(&mut self, policies: &Policies, now: Nanos) -> (u64, Change) {
        self.sweep(policies, self.gathered.len().saturating_mul(SWEPT_PER_ROW), now);
        let number = self.next_commit;
        self.next_commit = number.saturating_add(1);
        (number, Change { rows: std::mem::take(&mut self.gathered), ..Change::default() })
    }

    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// A commit is durable.
    pub(super) fn settle(&mut self, number: u64, change: &Change) {
        for key in change.rows.keys() {
            if self.unsettled.get(key) == Some(&number) {
                self.unsettled.remove(key);
            }
        }
    }

    /// The rows as the disk has them now.
    pub(super) fn restore(&mut self, rows: Rows) {
        self.rows = rows;
        self.gathered.clear();
        self.unsettled.clear();
        self.swept_to = None;
    }

    /// The live rows, as a new file is to have them.
    pub(super) fn live(&self, policies: &Policies, now: Nanos) -> Rows {
        let live = self.rows.iter().filter(|(key, row)| is_live(policies, **key, **row, now));
        live.map(|(key, row)| (*key, Row { memory: row.memory, written: row.memory })).collect()
    }

    /// What gives back all that was written ahead, and removes what is dead.
    pub(super) fn settled(&self, policies: &Policies, now: Nanos) -> Change {
        let settled = |(key, row): (&RowKey, &Row)| {
            let word = is_live(policies, *key, *row, now).then_some(row.memory);
            (word != Some(row.written)).then_some((*key, word))
        };
        Change { rows: self.rows.iter().filter_map(settled).collect(), ..Change::default() }
    }

    /// Of `count` rows behind `from`: how many are live, and the last of them.
    pub(super) fn count_live(
        &self,
        policies: &Policies,
        from: Option<RowKey>,
        count: usize,
        now: Nanos,
    ) -> (u64, Option<RowKey>) {
        let (mut live, mut last) = (0, None);
        for (key, row) in self.rows.range((behind(from), Bound::Unbounded)).take(count) {
            live += u64::from(is_live(policies, *key, *row, now));
            last = Some(*key);
        }
        (live, last)
    }
}

fn behind(key: Option<RowKey>) -> Bound<RowKey> {
    key.map_or(Bound::Unbounded, Bound::Excluded)
}

fn is_live(policies: &Policies, key: RowKey, row: Row, now: Nanos) -> bool {
    policies.limit_of(key).is_some_and(|limit| !limit.is_dead(row.memory, now))
}
