//! One limit and the states of its keys.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::algorithms::{At, Compact, Concurrency, Gcra, SlidingLog, Words};
use crate::decision::{Decision, Outcome};
use crate::limit::Limit;
use crate::share;
use crate::succession::Succession;
use crate::table::{Held, Table, TableSize};
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
    table: Table,
    succession: Succession,
    /// The last id of a holder of permits; no id is used twice.
    holders: AtomicU64,
    number: u64,
}

/// The last number that was given to a limit and its table.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// An algorithm whose state has more than one word.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Long {
    Log(SlidingLog),
    Concurrency(Concurrency),
}

impl KeyedLimit {
    pub(crate) fn new(limit: Limit, size: TableSize) -> Self {
        let table = Table::new(size, limit.more_words());
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        Self { limit, table, succession: Succession::default(), holders: AtomicU64::new(0), number }
    }

    /// Which no other one of this process has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn succession(&self) -> &Succession {
        &self.succession
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
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
        self.inherit(tag, now);
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
        let _stripe = self.table.lock_stripe(self.table.stripe(tag));
        let mut pending = self.hold(tag, now);
        let decision = pending.decide(cost);
        let stamp = if decision.is_allowed() { pending.keep() } else { pending.leave() };
        Charged { decision, stamp }
    }

    /// Decides without charging.
    pub(crate) fn look(&self, tag: u64, cost: u64, now: Nanos) -> Decision {
        if let Some(after) = self.succession.successor() {
            return after.look(tag, cost, now);
        }
        self.inherit(tag, now);
        match (self.limit.compact(), &self.limit) {
            (Some(algorithm), _) => self.table.look(algorithm, tag, algorithm.at(now), cost).decision,
            (None, Limit::Unlimited) => Decision::timeless(Outcome::Allowed, u64::MAX, now),
            (None, Limit::DenyAll) => Decision::timeless(Outcome::NeverFits, 0, now),
            (None, _) => {
                let _stripe = self.table.lock_stripe(self.table.stripe(tag));
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
        let Some(long) = self.limit.long() else { return Pending::Fixed { limit: &self.limit, now } };
        let now = Nanos(now.0.min(TICK_MAX));
        let held = self.table.hold(tag, |state| state <= now.0);
        Pending::Long { long, held, now, cost: 0, holders: &self.holders }
    }

    /// Gives back `cost` cells that were charged with `stamp`. Permits are given back all together.
    pub(crate) fn refund(&self, tag: u64, cost: u64, stamp: u64, now: Nanos) {
        if let Some(algorithm) = self.limit.compact() {
            let at = algorithm.at(now);
            return self.table.lower(tag, |state| algorithm.refund(state, at, stamp, cost));
        }
        self.with_words(tag, now, |long, words, now| match long {
            Long::Log(log) => log.refund(words, stamp, cost),
            Long::Concurrency(concurrency) => {
                concurrency.release(words, now, stamp);
            }
        });
    }

    /// Holds permits for another expiry. Whether there were any left to hold.
    pub(crate) fn renew(&self, tag: u64, stamp: u64, now: Nanos) -> bool {
        let mut held = 0;
        self.with_words(tag, now, |long, words, now| {
            if let Long::Concurrency(concurrency) = long {
                held = concurrency.renew(words, now, stamp);
            }
        });
        held > 0
    }

    /// Charges what was already used. Only buckets can owe; elsewhere it ends at everything used.
    pub(crate) fn debit(&self, tag: u64, cost: u64, now: Nanos) {
        if let Some(algorithm) = self.limit.compact() {
            self.inherit(tag, now);
            let at = algorithm.at(now);
            if !self.table.force(algorithm, tag, at, |state| algorithm.debit(state, at, cost)) {
                self.succession.successor().inspect(|after| after.debit(tag, cost, now));
            }
        }
    }

    /// Leaves the key no more than another counter has said of it.
    pub(crate) fn observe(&self, tag: u64, seen: &Decision, now: Nanos) {
        let Some(algorithm) = self.limit.compact() else { return };
        self.inherit(tag, now);
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
            self.inherit(tag, now);
            return self.table.lower(tag, |_| 0);
        }
        self.with_words(tag, now, |_, words, _| (0..words.count()).for_each(|index| words.replace(index, 0)));
    }

    fn with_words(&self, tag: u64, now: Nanos, change: impl FnOnce(Long, &mut dyn Words, Nanos)) {
        let Some(long) = self.limit.long() else { return };
        let now = Nanos(now.0.min(TICK_MAX));
        let _stripe = self.table.lock_stripe(self.table.stripe(tag));
        let mut held = self.table.hold(tag, |state| state <= now.0);
        let mut head = None;
        if let Some(mut words) = held.words() {
            change(long, &mut words, now);
            head = Some(long.head(&words));
        }
        match head {
            Some(head) => held.keep_words(head),
            None => held.leave(),
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

impl Long {
    /// When the last of the words ends: from then on the slot is dead. Never the head of a slot that was never used.
    fn head(self, words: &dyn Words) -> u64 {
        let (first, step) = match self {
            Self::Log(_) => (0, 1),
            Self::Concurrency(_) => (1, 2),
        };
        (first..words.count()).step_by(step).map(|index| words.word(index)).max().unwrap_or(0).max(1)
    }
}

/// A key that is held while a request is decided.
pub(crate) enum Pending<'t> {
    Compact { algorithm: &'t dyn Compact, at: At, held: Held<'t>, state: u64, next: Option<u64> },
    Long { long: Long, held: Held<'t>, now: Nanos, cost: u64, holders: &'t AtomicU64 },
    Fixed { limit: &'t Limit, now: Nanos },
}

impl<'t> Pending<'t> {
    /// The key of a limit, whose stripe the caller holds. A limit that there is not denies.
    pub(crate) fn of(keyed: Option<&'t KeyedLimit>, tag: u64, now: Nanos) -> Self {
        keyed.map_or(Self::Fixed { limit: &Limit::DenyAll, now }, |keyed| keyed.hold(tag, now))
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
                let Some(words) = held.words() else {
                    // No slot: as if everything were used.
                    let (size, expiry) = match long {
                        Long::Log(log) => (log.limit(), log.period()),
                        Long::Concurrency(concurrency) => (concurrency.permits(), concurrency.expiry()),
                    };
                    return Decision::full(size, wanted, *now, expiry);
                };
                match long {
                    Long::Log(log) => log.decide(&words, *now, wanted),
                    Long::Concurrency(concurrency) => concurrency.decide(&words, *now, wanted),
                }
            }
            Self::Fixed { limit: Limit::Unlimited, now } => {
                Decision::timeless(Outcome::Allowed, u64::MAX, *now)
            }
            Self::Fixed { now, .. } => Decision::timeless(Outcome::NeverFits, 0, *now),
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

    /// Lets the key go as it was.
    pub(crate) fn leave(self) -> Option<u64> {
        match self {
            Self::Compact { held, .. } | Self::Long { held, .. } => held.leave(),
            Self::Fixed { .. } => {}
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

    fn long(&self) -> Option<Long> {
        match self {
            Self::SlidingLog(log) => Some(Long::Log(*log)),
            Self::Concurrency(concurrency) => Some(Long::Concurrency(*concurrency)),
            _ => None,
        }
    }
}
