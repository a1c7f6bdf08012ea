//! All counters in memory: what decides while the process lives, and what the disk has yet to be told.

use std::collections::HashMap;

use ratelimit_core::{Decision, Nanos, StoredLimit};

use super::file::Change;
use super::layout::RowKey;
use super::lease::written_ahead;
use super::moving::{Clearing, EncodedPolicies, Moving, Words};
use super::policies::{Kept, Plan, Policies};
use super::request::{Decided, Part, Purpose, Request};
use super::room::{Planned, Room};
use super::rows::{Row, Rows};

/// Rows that are looked at for each one that is written: dead ones go faster than others come.
const SWEPT_PER_ROW: usize = 4;

/// Rows that are looked at when there is no room for a key.
const SWEPT_WHEN_FULL: usize = 64;

#[derive(Debug)]
pub(super) struct Counters {
    rows: Rows,
    room: Room,
    overflowed: u64,
    /// What the next commit writes.
    gathered: Words,
    gathered_policies: EncodedPolicies,
    /// Its number.
    next_commit: u64,
    /// The commit that each written word waits for which is not durable yet.
    unsettled: HashMap<RowKey, u64>,
    /// How far the sweep has come.
    swept_to: Option<RowKey>,
    moving: Option<Moving>,
    /// Rows that have changed after they were moved.
    touched: Vec<RowKey>,
    clearing: Clearing,
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
    pub(super) fn new(rows: Rows, policies: &Policies, keys_max: usize) -> Self {
        Self {
            room: Room::new(keys_max, policies, &rows),
            rows,
            overflowed: 0,
            gathered: Words::new(),
            gathered_policies: EncodedPolicies::new(),
            next_commit: 1,
            unsettled: HashMap::new(),
            swept_to: None,
            moving: None,
            touched: Vec::new(),
            clearing: Clearing::default(),
        }
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn keys_max(&self) -> usize {
        self.room.keys_max()
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
        if self.room.is_short(&self.rows, request.asked.len()) {
            self.sweep(policies, SWEPT_WHEN_FULL, now);
        }
        let (mut overflowed, mut planned) = (0, Planned::default());
        let mut pending = Vec::with_capacity(request.asked.len());
        for asked in &request.asked {
            let Some(kept) = policies.get(asked.policy) else { continue };
            let key = RowKey::new(kept.number, asked.tag);
            let word = match (self.rows.get(key), kept.limit.stored()) {
                (Some(row), _) => row.memory,
                (None, None) => 0,
                (None, Some(limit)) if !self.room.has_place(&self.rows, kept.number, &planned) => {
                    overflowed += u64::from(asked.cost > 0);
                    // As if everything were used.
                    limit.debited(0, kept.limit.size(), now)
                }
                (None, Some(_)) => {
                    if asked.cost > 0 {
                        planned.add(kept.number);
                    }
                    0
                }
            };
            pending.push(Pending { kept, key, word, cost: asked.cost, next: None });
        }
        (pending, overflowed)
    }

    /// Takes what was decided last.
    fn charge(&mut self, pending: &Pending<'_>, now: Nanos) -> Option<Part> {
        let (next, stamp) = pending.next?;
        let limit = pending.kept.limit.stored()?;
        let mut row = self.rows.get(pending.key).unwrap_or(Row { memory: 0, written: 0 });
        row.memory = next;
        if next > row.written {
            row.written = written_ahead(limit, pending.kept.limit.size(), next, now);
            self.gathered.insert(pending.key, Some(row.written));
            self.unsettled.insert(pending.key, self.next_commit);
        }
        if self.rows.insert(pending.key, row) {
            self.room.came(&self.rows, pending.key);
        }
        self.touch(pending.key);
        Some(Part { key: pending.key, version: pending.kept.version, cost: pending.cost, stamp })
    }

    /// Gives back what was taken. The disk stays ahead.
    pub(super) fn refund(&mut self, limit: StoredLimit<'_>, part: &Part, now: Nanos) {
        if let Some(row) = self.rows.get_mut(part.key) {
            row.memory = limit.refunded(row.memory, part.stamp, part.cost, now);
            self.touch(part.key);
        }
    }

    /// A row has changed of which another one may have been made already.
    fn touch(&mut self, key: RowKey) {
        if self.moving.as_ref().is_some_and(|moving| moving.follows(key)) {
            self.touched.push(key);
        }
    }

    /// Has rows of other limits follow those that have changed. `now` is the newest instant that any request brought: no word is
    /// beyond what could have been charged by then.
    pub(super) fn follow(&mut self, now: Nanos) {
        let Some(moving) = &mut self.moving else { return };
        for key in self.touched.drain(..) {
            moving.follow(key, self.rows.get(key), now, &mut self.gathered);
        }
    }

    /// Forgets a counter. The commit to wait for, when there was one.
    pub(super) fn reset(&mut self, key: RowKey) -> Option<u64> {
        self.take_out(key).then_some(self.next_commit)
    }

    /// Takes a row out: from memory now, from the disk with the next commit.
    fn take_out(&mut self, key: RowKey) -> bool {
        let was_there = self.rows.remove(key).is_some();
        if was_there {
            self.room.went(&self.rows, key);
            self.gathered.insert(key, None);
            self.touch(key);
        }
        was_there
    }

    /// Looks at some rows, and takes the dead ones out.
    fn sweep(&mut self, policies: &Policies, count: usize, now: Nanos) {
        let (mut seen, mut dead) = (None, Vec::new());
        for (key, row) in self.rows.behind(self.swept_to).take(count) {
            seen = Some(key);
            if !is_live(policies, key, row, now) {
                dead.push(key);
            }
        }
        // Behind the last it begins anew.
        self.swept_to = seen;
        for key in dead {
            self.take_out(key);
        }
    }

    /// What is to be written, and its number. Rows that died leave with it, and some rows move.
    pub(super) fn take_gathered(&mut self, policies: &Policies, now: Nanos) -> (u64, Change) {
        self.sweep(policies, self.gathered.len().saturating_mul(SWEPT_PER_ROW), now);
        if let Some(moving) = self.moving.as_mut().filter(|moving| !moving.is_done()) {
            moving.step(&self.rows, now, &mut self.gathered);
        }
        // As fast as others come, so that changes without end leave no more behind than one does.
        self.clearing.step(&mut self.gathered, &mut self.gathered_policies);
        self.follow(now);
        self.take_all_gathered()
    }

    fn take_all_gathered(&mut self) -> (u64, Change) {
        let number = self.next_commit;
        self.next_commit = number.saturating_add(1);
        let (rows, policies) =
            (std::mem::take(&mut self.gathered), std::mem::take(&mut self.gathered_policies));
        (number, Change { rows, policies, ..Change::default() })
    }

    /// The number of the commit that is gathered now.
    pub(super) fn next_commit(&self) -> u64 {
        self.next_commit
    }

    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Whether there are rows to move or to clear away.
    pub(super) fn has_rows_to_move(&self) -> bool {
        !self.clearing.is_empty() || self.moving.as_ref().is_some_and(|moving| !moving.is_done())
    }

    /// Whether all rows are made that other policies need. Those that change are followed.
    pub(super) fn has_moved(&self) -> bool {
        self.moving.as_ref().is_some_and(Moving::is_done)
    }

    /// Numbers that no policy of before has, and that are not free.
    pub(super) fn numbers_taken(&self) -> impl Iterator<Item = u32> {
        self.clearing.numbers()
    }

    /// Begins to make the rows that other policies need.
    pub(super) fn prepare(&mut self, plan: &Plan) {
        self.abandon();
        let moving = Moving::new(plan.moves.clone(), &self.rows);
        self.gathered_policies.extend(moving.announced());
        self.moving = Some(moving);
    }

    /// Forgets the rows that were made for other policies.
    pub(super) fn abandon(&mut self) {
        self.touched.clear();
        if let Some(moving) = self.moving.take() {
            moving.abandon(&mut self.gathered, &mut self.gathered_policies, &mut self.clearing);
        }
    }

    /// What makes the file say that other policies are in force. Nobody asks until that is durable.
    pub(super) fn exchanging(&mut self) -> Change {
        self.take_all_gathered().1
    }

    /// The file says that other policies are in force.
    pub(super) fn exchange(&mut self, policies: &Policies, gone: impl Iterator<Item = u32>) {
        if let Some(moving) = self.moving.take() {
            moving.exchange(&mut self.rows, &mut self.clearing);
        }
        for number in gone.filter(|number| self.rows.len_of(*number) > 0).collect::<Vec<_>>() {
            self.clearing.add(number, self.rows.take(number));
        }
        self.unsettled.clear();
        self.swept_to = None;
        self.room = Room::new(self.room.keys_max(), policies, &self.rows);
    }

    /// A commit is durable.
    pub(super) fn settle(&mut self, number: u64, change: &Change) {
        for key in change.rows.keys() {
            if self.unsettled.get(key) == Some(&number) {
                self.unsettled.remove(key);
            }
        }
    }

    /// Other rows, as the disk has them now. The ones of before.
    pub(super) fn restore(&mut self, rows: Rows, policies: &Policies) -> Rows {
        self.room = Room::new(self.room.keys_max(), policies, &rows);
        self.moving = None;
        self.touched.clear();
        self.clearing = Clearing::default();
        self.gathered.clear();
        self.gathered_policies.clear();
        self.unsettled.clear();
        self.swept_to = None;
        std::mem::replace(&mut self.rows, rows)
    }

    /// Of `count` rows behind `from`: those that are live, as a new file is to have them, and the last that was looked at.
    pub(super) fn live(
        &self,
        policies: &Policies,
        from: Option<RowKey>,
        count: usize,
        now: Nanos,
    ) -> (Vec<(RowKey, Row)>, Option<RowKey>) {
        let (mut live, mut last) = (Vec::new(), None);
        for (key, row) in self.rows.behind(from).take(count) {
            last = Some(key);
            if is_live(policies, key, row, now) {
                live.push((key, Row { memory: row.memory, written: row.memory }));
            }
        }
        (live, last)
    }

    /// What gives back all that was written ahead, and removes what is dead.
    pub(super) fn settled(&self, policies: &Policies, now: Nanos) -> Change {
        let settled = |(key, row): (RowKey, Row)| {
            let word = is_live(policies, key, row, now).then_some(row.memory);
            (word != Some(row.written)).then_some((key, word))
        };
        Change { rows: self.rows.behind(None).filter_map(settled).collect(), ..Change::default() }
    }
}

fn is_live(policies: &Policies, key: RowKey, row: Row, now: Nanos) -> bool {
    policies.limit_of(key).is_some_and(|limit| !limit.is_dead(row.memory, now))
}
