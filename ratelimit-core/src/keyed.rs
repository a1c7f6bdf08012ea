//! One limit and the states of its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::algorithms::{At, Compact, CondensedLog, Gcra, Long, Words};
use crate::change::Usage;
use crate::decision::{Decision, Outcome};
use crate::limit::Limit;
use crate::share;
use crate::succession::Succession;
use crate::table::{Held, Table, TableError, TableSize};
use crate::ticks::{Nanos, TICK_MAX};

/// A decision, and what a grant has to remember of it when it charged something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charged {
    pub decision: Decision,
    pub stamp: Option<u64>,
}

/// A limit and its table. Keys are tags.
pub(crate) struct KeyedLimit {
    limit: Limit,
    /// A log as its sketch counts it.
    condensed: Option<CondensedLog>,
    table: Table,
    succession: Succession,
    /// The last id of a holder of permits; no id is used twice, also by limits that take permits over.
    holders: Arc<AtomicU64>,
    number: u64,
    /// How long a key may be live after its last charge.
    memory: Duration,
}

/// The last number that was given to a limit and its table.
static TABLES: AtomicU64 = AtomicU64::new(0);

impl KeyedLimit {
    pub(crate) fn new(limit: Limit, size: TableSize) -> Result<Self, TableError> {
        Self::heir_of(None, limit, size)
    }

    /// A limit that is to take over the keys of `old`: not yet, so that nothing has changed if it is not wanted in the end.
    pub(crate) fn heir_of(old: Option<&Self>, limit: Limit, size: TableSize) -> Result<Self, TableError> {
        let is_permits = matches!(limit, Limit::Concurrency(_));
        // Permits are carried whole, with their holders and however many they are.
        let permits = old.filter(|old| is_permits && matches!(old.limit, Limit::Concurrency(_)));
        let more_words = limit.more_words().max(permits.map_or(0, |old| old.table.more_words()));
        let size = limit.table_size(size);
        Ok(Self {
            condensed: if let Limit::SlidingLog(log) = &limit { Some(CondensedLog::new(*log)) } else { None },
            table: Table::new(size, more_words)?,
            succession: Succession::default(),
            holders: permits.map(|old| Arc::clone(&old.holders)).unwrap_or_default(),
            number: permits.map_or_else(|| TABLES.fetch_add(1, Ordering::Relaxed), |old| old.number),
            memory: limit.memory().max(permits.map_or(Duration::ZERO, |old| old.memory)),
            limit,
        })
    }

    /// By which grants know it: no other one of this process has it, except limits that take permits over.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn memory(&self) -> Duration {
        self.memory
    }

    pub(crate) fn succession(&self) -> &Succession {
        &self.succession
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    pub(crate) fn condensed(&self) -> Option<&CondensedLog> {
        self.condensed.as_ref()
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Decides about `cost` for the key, and charges it when it is allowed.
    #[inline]
    pub(crate) fn check(&self, tag: u64, cost: u64, now: Nanos) -> Decision {
        if let Limit::Gcra(gcra) = &self.limit
            && self.succession.is_none()
            && let Some(step) = self.table.charge(gcra, tag, gcra.at(now), cost)
        {
            return step.decision;
        }
        self.charge(tag, cost, now).decision
    }

    /// As [`check`](Self::check), and what a grant has to remember.
    pub(crate) fn charge(&self, tag: u64, cost: u64, now: Nanos) -> Charged {
        let forwarded = || Charged { decision: self.succession.check(tag, cost, now), stamp: None };
        if self.succession.is_over() {
            return forwarded();
        }
        let Some(algorithm) = self.limit.compact() else { return self.charge_rest(tag, cost, now) };
        if !self.inherit(tag, now) {
            return Charged { decision: self.limit.decide_nowhere(cost, now), stamp: None };
        }
        let at = algorithm.at(now);
        match self.table.charge(algorithm, tag, at, cost) {
            Some(step) => {
                let stamp = step.next.map(|next| algorithm.stamp(next, at));
                Charged { decision: step.decision, stamp }
            }
            // What a successor charges cannot be given back here.
            None => forwarded(),
        }
    }

    fn charge_rest(&self, tag: u64, cost: u64, now: Nanos) -> Charged {
        if self.limit.long().is_none() {
            return Charged { decision: self.look(tag, cost, now), stamp: None };
        }
        if !self.inherit(tag, now) {
            return Charged { decision: self.limit.decide_nowhere(cost, now), stamp: None };
        }
        let stripe = self.table.lock_stripe(self.table.stripe(tag));
        if self.table.is_sealed() {
            drop(stripe);
            return Charged { decision: self.succession.check(tag, cost, now), stamp: None };
        }
        let mut pending = self.hold(tag, now);
        let decision = pending.decide(cost);
        let stamp = if decision.is_allowed() { pending.keep() } else { pending.refuse() };
        Charged { decision, stamp }
    }

    /// Decides without charging.
    pub(crate) fn look(&self, tag: u64, cost: u64, now: Nanos) -> Decision {
        if let Some(after) = self.succession.successor() {
            return after.look(tag, cost, now);
        }
        if !self.limit.counts() || !self.inherit(tag, now) {
            return self.limit.decide_nowhere(cost, now);
        }
        match self.limit.compact() {
            Some(algorithm) => self.table.look(algorithm, tag, algorithm.at(now), cost).decision,
            None => {
                let stripe = self.table.lock_stripe(self.table.stripe(tag));
                if self.table.is_sealed()
                    && let Some(after) = self.succession.successor()
                {
                    drop(stripe);
                    return after.look(tag, cost, now);
                }
                let mut pending = self.hold(tag, now);
                let decision = pending.decide(cost);
                pending.leave();
                decision
            }
        }
    }

    /// Holds the key, whose stripe the caller holds.
    pub(crate) fn hold(&self, tag: u64, now: Nanos) -> Pending<'_> {
        if let Some(algorithm) = self.limit.compact() {
            let at = algorithm.at(now);
            let held = self.table.hold(tag, |state| algorithm.is_dead(state, at));
            let state = held.state(algorithm, at);
            return Pending::Compact { algorithm, at, held, state, next: None };
        }
        let Some(long) = self.limit.long() else { return Pending::Nowhere { limit: &self.limit, now } };
        let now = Nanos(now.0.min(TICK_MAX));
        let mut held = self.table.hold(tag, |state| state <= now.0);
        if let Some(condensed) = &self.condensed {
            let at = condensed.at(now);
            if held.is_nowhere() {
                let state = held.state(condensed, at);
                return Pending::Compact { algorithm: condensed, at, held, state, next: None };
            }
            if held.is_fresh() {
                // It may have been in the sketch until now.
                let known = condensed.ends(held.state(condensed, at), now);
                if let (false, Some(mut words)) = (known.is_empty(), held.words()) {
                    long.absorb(&mut words, Usage::Log(known), now);
                }
            }
        }
        Pending::Long { long, held, now, cost: 0, holders: &self.holders }
    }

    /// Takes what the key has used, for a successor. The caller holds the key's stripe, and the table is sealed.
    pub(crate) fn taken(&self, tag: u64, now: Nanos) -> Usage {
        if let Some(algorithm) = self.limit.compact() {
            return Usage::Word(self.table.take(algorithm, tag, algorithm.at(now)));
        }
        let Some(long) = self.limit.long() else { return Usage::Nothing };
        let now = Nanos(now.0.min(TICK_MAX));
        let Some(mut held) = self.table.hold_known(tag) else {
            let in_sketch = |condensed: &CondensedLog| {
                let state = self.table.start(condensed, tag, condensed.at(now));
                Usage::Log(condensed.ends(state, now))
            };
            return self.condensed.as_ref().map_or(Usage::Nothing, in_sketch);
        };
        let taken = held.words().map(|mut words| {
            let usage = long.usage(&words, now);
            (0..words.count()).for_each(|index| words.replace(index, 0));
            (usage, long.head(&words))
        });
        let (usage, head) = taken.unwrap_or((Usage::Nothing, 1));
        held.keep_words(head);
        usage
    }

    /// Gives back `cost` cells that were charged with `stamp`. Permits are given back all together.
    pub(crate) fn refund(&self, tag: u64, cost: u64, stamp: u64, now: Nanos) {
        if let Some(algorithm) = self.limit.compact() {
            let at = algorithm.at(now);
            return self.table.lower(tag, |state| algorithm.refund(state, at, stamp, cost));
        }
        let done = self.with_words(tag, now, |long, words, now| match long {
            Long::Log(log) => log.refund(words, stamp, cost),
            Long::Concurrency(concurrency) => {
                concurrency.release(words, now, stamp);
            }
        });
        if let (None, Some(after)) = (done, self.heir_of_permits()) {
            after.refund(tag, cost, stamp, now);
        }
    }

    /// Holds permits for another expiry. Whether there were any left to hold.
    pub(crate) fn renew(&self, tag: u64, stamp: u64, now: Nanos) -> bool {
        let held = self.with_words(tag, now, |long, words, now| match long {
            Long::Log(_) => 0,
            Long::Concurrency(concurrency) => concurrency.renew(words, now, stamp),
        });
        match (held, self.heir_of_permits()) {
            (Some(held), _) => held > 0,
            (None, Some(after)) => after.renew(tag, stamp, now),
            (None, None) => false,
        }
    }

    /// The successor, when grants of this one are good there.
    fn heir_of_permits(&self) -> Option<Arc<Self>> {
        self.succession.successor().filter(|after| after.number == self.number)
    }

    /// Charges what was already used. Only buckets can owe; elsewhere it ends at everything used.
    pub(crate) fn debit(&self, tag: u64, cost: u64, now: Nanos) {
        if let Some(algorithm) = self.limit.compact()
            && self.inherit(tag, now)
        {
            let at = algorithm.at(now);
            if !self.table.force(algorithm, tag, at, |state| algorithm.debit(state, at, cost)) {
                self.succession.successor().inspect(|after| after.debit(tag, cost, now));
            }
        }
    }

    /// Leaves the key no more than another counter has said of it.
    pub(crate) fn observe(&self, tag: u64, seen: &Decision, now: Nanos) {
        let Some(algorithm) = self.limit.compact().filter(|_| self.inherit(tag, now)) else { return };
        let at = algorithm.at(now);
        let word = share::observed(&self.limit, algorithm, seen, now);
        let merged = |state: u64| algorithm.merge(state, word);
        let state = self.table.state(algorithm, tag, at);
        if algorithm.is_dead(word, at) || merged(state) == state {
            return;
        }
        if !self.table.force(algorithm, tag, at, merged) {
            self.succession.successor().inspect(|after| after.observe(tag, seen, now));
        }
    }

    /// Forgets what the key used.
    pub(crate) fn reset(&self, tag: u64, now: Nanos) {
        if self.limit.compact().is_some() {
            if self.inherit(tag, now) {
                self.table.lower(tag, |_| 0);
            }
            return;
        }
        let clear = |_, words: &mut dyn Words, _| {
            (0..words.count()).for_each(|index| words.replace(index, 0));
        };
        if let (None, Some(after)) = (self.with_words(tag, now, clear), self.succession.successor()) {
            after.reset(tag, now);
        }
    }

    /// Changes the words of the key's slot. `None` when it has none, or a successor has the key.
    fn with_words<T>(
        &self,
        tag: u64,
        now: Nanos,
        change: impl FnOnce(Long, &mut dyn Words, Nanos) -> T,
    ) -> Option<T> {
        let long = self.limit.long().filter(|_| self.inherit(tag, now))?;
        let now = Nanos(now.0.min(TICK_MAX));
        let _stripe = self.table.lock_stripe(self.table.stripe(tag));
        if self.table.is_sealed() {
            return None;
        }
        let mut held = self.table.hold_known(tag)?;
        let changed = held.words().map(|mut words| (change(long, &mut words, now), long.head(&words)));
        match changed {
            Some((answer, head)) => {
                held.keep_words(head);
                Some(answer)
            }
            None => {
                held.leave();
                None
            }
        }
    }

    /// Live keys that have a slot. Reads the whole table.
    pub(crate) fn live_keys(&self, now: Nanos) -> u64 {
        match self.limit.compact() {
            Some(algorithm) => {
                let at = algorithm.at(now);
                self.table.live(|state| algorithm.is_dead(state, at))
            }
            None => self.table.live(|state| state <= now.0),
        }
    }
}

/// A key that is held while a request is decided.
pub(crate) enum Pending<'t> {
    Compact {
        algorithm: &'t dyn Compact,
        at: At,
        held: Held<'t>,
        state: u64,
        next: Option<u64>,
    },
    Long {
        long: Long,
        held: Held<'t>,
        now: Nanos,
        cost: u64,
        holders: &'t AtomicU64,
    },
    /// A key that has no state: there is no room for it, or the limit counts nothing.
    Nowhere {
        limit: &'t Limit,
        now: Nanos,
    },
}

impl<'t> Pending<'t> {
    /// The key of a limit, whose stripe the caller holds. A limit that there is not denies.
    pub(crate) fn of(keyed: Option<&'t KeyedLimit>, tag: u64, now: Nanos) -> Self {
        keyed.map_or(Self::Nowhere { limit: &Limit::DenyAll, now }, |keyed| keyed.hold(tag, now))
    }

    /// A key for which there is no room.
    pub(crate) fn nowhere(keyed: &'t KeyedLimit, now: Nanos) -> Self {
        Self::Nowhere { limit: &keyed.limit, now }
    }
}

impl Pending<'_> {
    /// Decides; [`keep`](Self::keep) charges what was decided last.
    pub(crate) fn decide(&mut self, wanted: u64) -> Decision {
        match self {
            Self::Compact { algorithm, at, state, next, .. } => {
                let step = algorithm.decide(*state, *at, wanted);
                *next = step.next;
                step.decision
            }
            Self::Long { long, held, now, cost, .. } => {
                *cost = wanted;
                match held.words() {
                    Some(words) => long.decide(&words, *now, wanted),
                    None => long.decide_nowhere(*now, wanted),
                }
            }
            Self::Nowhere { limit, now } => limit.decide_nowhere(wanted, *now),
        }
    }

    /// Charges what was decided last, which was allowed, and lets the key go. What a grant has to remember.
    pub(crate) fn keep(self) -> Option<u64> {
        match self {
            Self::Compact { algorithm, at, held, next: Some(next), .. } => {
                held.keep(algorithm, next);
                Some(algorithm.stamp(next, at))
            }
            Self::Long { long, mut held, now, cost, holders } if cost > 0 => {
                let mut words = held.words()?;
                let stamp = match long {
                    Long::Log(log) => log.charge(&mut words, now, cost),
                    Long::Concurrency(concurrency) => {
                        let id = holders.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                        concurrency.charge(&mut words, now, cost, id);
                        id
                    }
                };
                let head = long.head(&words);
                held.keep_words(head);
                Some(stamp)
            }
            pending => pending.leave(),
        }
    }

    /// Lets the key go as it was, when a charge was denied.
    pub(crate) fn refuse(self) -> Option<u64> {
        if let Self::Compact { held, .. } | Self::Long { held, .. } = &self
            && !held.has_room()
        {
            held.count_overflow();
        }
        self.leave()
    }

    /// Whether what is kept is kept anywhere.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Compact { held, .. } | Self::Long { held, .. } => held.has_room(),
            Self::Nowhere { .. } => false,
        }
    }

    /// Makes as much used as `usage` has, at least, and lets the key go.
    pub(crate) fn absorb(self, usage: Usage) {
        match (self, usage) {
            (Self::Compact { algorithm, held, state, .. }, Usage::Word(word)) => {
                match algorithm.merge(state, word) {
                    merged if merged == state => held.leave(),
                    merged => held.keep(algorithm, merged),
                }
            }
            (Self::Long { long, mut held, now, .. }, usage @ (Usage::Log(_) | Usage::Permits(_))) => {
                let head = held.words().map(|mut words| {
                    long.absorb(&mut words, usage, now);
                    long.head(&words)
                });
                match head {
                    Some(head) => held.keep_words(head),
                    None => held.leave(),
                }
            }
            (pending, _) => {
                pending.leave();
            }
        }
    }

    /// Lets the key go as it was.
    pub(crate) fn leave(self) -> Option<u64> {
        match self {
            Self::Compact { held, .. } | Self::Long { held, .. } => held.leave(),
            Self::Nowhere { .. } => {}
        }
        None
    }
}

impl Limit {
    /// The algorithm, when its state is one word.
    pub(crate) fn compact(&self) -> Option<&dyn Compact> {
        match self {
            Self::Gcra(gcra) => Some(gcra as &Gcra),
            Self::FixedWindow(window) => Some(window),
            Self::SlidingWindow(window) => Some(window),
            Self::Calendar(calendar) => Some(calendar),
            Self::SlidingLog(_) | Self::Concurrency(_) | Self::Unlimited | Self::DenyAll => None,
        }
    }

    /// The answer for a key for which there is no room: as if everything were used just now. A limit that counts nothing needs
    /// none.
    fn decide_nowhere(&self, cost: u64, now: Nanos) -> Decision {
        if let Some(algorithm) = self.compact() {
            let at = algorithm.at(now);
            return algorithm.decide(algorithm.exhausted(at), at, cost).decision;
        }
        match (self.long(), self) {
            (Some(long), _) => long.decide_nowhere(now, cost),
            (None, Self::Unlimited) => Decision::timeless(Outcome::Allowed, u64::MAX, now),
            (None, _) => Decision::timeless(Outcome::NeverFits, 0, now),
        }
    }

    /// The algorithm, when its state has more words.
    pub(crate) fn long(&self) -> Option<Long> {
        match self {
            Self::SlidingLog(log) => Some(Long::Log(*log)),
            Self::Concurrency(concurrency) => Some(Long::Concurrency(*concurrency)),
            _ => None,
        }
    }
}
