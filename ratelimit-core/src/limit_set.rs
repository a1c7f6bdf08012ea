//! Several limits at once, on one key or on several: all of them admit a request, or none is charged.

use std::sync::Arc;
use std::time::Duration;

use crate::census::Census;
use crate::decision::{Decision, Outcome};
use crate::heirs::{self, CannotReplace, Carried, Heir};
use crate::key::{HashSecret, Hasher, Key};
use crate::keyed::{KeyedLimit, Pending};
use crate::limit::Limit;
use crate::table::{TableError, TableSize};
use crate::ticks::Nanos;

/// The most limits that one request can meet.
pub const HITS_MAX: usize = 32;

/// What becomes of a limit that denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// The request is denied.
    #[default]
    Enforced,
    /// It is reported, and the request goes on: a limit that is tried out. It is charged as if it were enforced.
    Shadow,
    /// The request is denied when every quota that it meets denies: alternatives, of which one is enough. Those that admit
    /// are charged.
    Quota,
}

/// A limit of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub(crate) usize);

/// One limit that a request meets, and what it costs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    limit: LimitId,
    tag: u64,
    cost: u64,
    /// Cells that have to be there, taken or not.
    needs: u64,
    /// The part of the limit that is there for it; `None` = all of it.
    within: Option<u64>,
}

impl Hit {
    /// The same hit at another cost.
    #[must_use]
    pub fn with_cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    /// The same hit, denied unless so many cells are left, whatever it costs. With a cost of 0 it asks whether they are there
    /// and takes nothing.
    #[must_use]
    pub fn needing(self, cells: u64) -> Self {
        Self { needs: cells, ..self }
    }

    /// The same hit, as if the limit were of this size: denied unless at most so many cells are used with it. What other hits on
    /// the key have taken counts, whatever size they were told, so hits of several sizes never have more together than the
    /// largest of them. A size above the limit's own changes nothing, and neither does one for what counts nothing.
    ///
    /// When such a hit would see one cell more, a limit that refills bit by bit tells for its full size: too early.
    #[must_use]
    pub fn within(self, size: u64) -> Self {
        Self { within: Some(size), ..self }
    }

    /// The cells of a limit that are not there for the hit.
    fn kept_from(&self, limit: &Limit) -> u64 {
        match (limit, self.within) {
            (_, None) | (Limit::Unlimited | Limit::DenyAll, _) => 0,
            (limit, Some(within)) => limit.size().saturating_sub(within),
        }
    }

    /// The cells that have to be left of a limit of which so many are not for this hit.
    fn asks(&self, kept: u64) -> u64 {
        match self.cost.max(self.needs) {
            0 => 0,
            asked => asked.saturating_add(kept),
        }
    }

    /// Decides by what has to be there, and when it is, about what is taken.
    fn decided(&self, kept: u64, mut decide: impl FnMut(u64) -> Decision) -> Decision {
        if self.asks(kept) > self.cost {
            let needed = decide(self.asks(kept));
            if !needed.is_allowed() {
                return needed.without(kept);
            }
        }
        decide(self.cost).without(kept)
    }
}

/// What a set answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    allowed: bool,
    decisions: Vec<Decision>,
    decided_by: Option<usize>,
}

impl Verdict {
    /// The verdict of these decisions, in the order of the hits. Whoever decided them charges all that admit when it is
    /// allowed, and nothing when it is not.
    pub fn of(decided: &[(Decision, Enforcement)]) -> Self {
        let of = |wanted: Enforcement| {
            decided
                .iter()
                .filter(move |(_, enforcement)| *enforcement == wanted)
                .map(|(decision, _)| decision)
        };
        let quotas_decide =
            of(Enforcement::Quota).next().is_some() && !of(Enforcement::Quota).any(Decision::is_allowed);
        let decides = |enforcement: Enforcement| match enforcement {
            Enforcement::Enforced => true,
            Enforcement::Quota => quotas_decide,
            Enforcement::Shadow => false,
        };
        let rank = |decision: &Decision| match decision.outcome() {
            Outcome::Allowed => (0, Duration::ZERO, u64::MAX - decision.remaining()),
            Outcome::Denied => (1, decision.retry_after().unwrap_or_default(), 0),
            Outcome::NeverFits => (2, Duration::ZERO, 0),
        };
        let ranked = decided.iter().enumerate().filter(|(_, (_, enforcement))| decides(*enforcement));
        Self {
            allowed: of(Enforcement::Enforced).all(Decision::is_allowed) && !quotas_decide,
            decisions: decided.iter().map(|(decision, _)| *decision).collect(),
            // The first of equals.
            decided_by: ranked.rev().max_by_key(|(_, (decision, _))| rank(decision)).map(|(index, _)| index),
        }
    }

    /// Whether the request may go.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// What each limit said, in the order of the hits. When the request was denied, those that would have admitted it
    /// were not charged: they tell what is left without it.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Which hit decided: of the limits that denied, the one to wait for longest; else the one with least left. Limits in
    /// shadow decide nothing.
    pub fn decided_by(&self) -> Option<usize> {
        self.decided_by
    }
}

/// What a request took of each limit. See [`Grant`](crate::Grant).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping it keeps what it took"]
pub struct SetGrant {
    parts: Vec<Part>,
}

/// What a request took of one limit.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    hit: Hit,
    /// The number of the limit's table, which no other one ever has.
    table: u64,
    stamp: u64,
}

/// A request met too many limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request meets {hits} limits, {hits_max} is the most: merge rules")]
pub struct TooManyHits {
    /// How many it met.
    pub hits: usize,
    /// The most.
    pub hits_max: usize,
}

/// Limits that are checked together.
///
/// # Guarantees
///
/// - A request that one enforced limit denies is charged nowhere: what it would have taken elsewhere was never taken,
///   not taken and given back.
/// - Requests that have keys in common take effect one after the other.
/// - What [`Limiter`](crate::Limiter) promises of one limit holds for each.
pub struct LimitSet {
    limits: Vec<(Arc<KeyedLimit>, Enforcement)>,
    hasher: Hasher,
}

impl LimitSet {
    /// A set without limits. The secret has to be random.
    pub fn new(secret: HashSecret) -> Self {
        Self { limits: Vec::new(), hasher: Hasher::new(secret) }
    }

    /// Adds a limit with a table of its own.
    ///
    /// # Errors
    ///
    /// [`TableError`] when the table cannot be had; the set is as before.
    pub fn add(
        &mut self,
        limit: Limit,
        size: TableSize,
        enforcement: Enforcement,
    ) -> Result<LimitId, TableError> {
        self.limits.push((Arc::new(KeyedLimit::new(limit, size)?), enforcement));
        Ok(LimitId(self.limits.len() - 1))
    }

    /// Replaces the limits of the set by `heirs`, whose ids are their places in the list. A heir of an equal limit has its very
    /// table, and grants of it stay good. A heir of another limit takes its keys over as [`Limiter::succeed`] does, as they
    /// are `now`, and grants of it give nothing back any more unless both are permits. Limits without a heir are gone.
    ///
    /// Nobody asks the set meanwhile, so each request is decided by the limits of before or by those of after.
    ///
    /// # Errors
    ///
    /// [`CannotReplace`], when nothing has changed: two heirs of one limit, too many limits that wait for their keys to be
    /// taken over, or a table that cannot be had.
    ///
    /// [`Limiter::succeed`]: crate::Limiter::succeed
    pub fn succeed(&mut self, heirs: Vec<Heir>, now: Nanos) -> Result<Vec<Carried>, CannotReplace> {
        let (limits, carried) = heirs::succeed(&self.limits, heirs, now)?;
        self.limits = limits;
        Ok(carried)
    }

    /// The ids of all limits, in their order.
    pub fn ids(&self) -> impl Iterator<Item = LimitId> + use<> {
        (0..self.limits.len()).map(LimitId)
    }

    /// How many limits there are.
    pub fn len(&self) -> usize {
        self.limits.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The limit, if the id is one of this set.
    pub fn limit(&self, id: LimitId) -> Option<&Limit> {
        self.limits.get(id.0).map(|(keyed, _)| keyed.limit())
    }

    /// A request's hit on a limit. Keys of one limit are of one kind.
    pub fn hit(&self, limit: LimitId, key: &(impl Key + ?Sized), cost: u64) -> Hit {
        Hit { limit, tag: key.tag(&self.hasher), cost, needs: 0, within: None }
    }

    /// Charges every hit, or none. Hits on the same limit and key add up, and the smallest size that one of them names is that
    /// of all. No hits are admitted.
    ///
    /// # Errors
    ///
    /// [`TooManyHits`] above 32.
    pub fn check(&self, hits: &[Hit], now: Nanos) -> Result<Verdict, TooManyHits> {
        Ok(self.acquire(hits, now)?.0)
    }

    /// What `check` would answer, without charging anything.
    ///
    /// # Errors
    ///
    /// [`TooManyHits`] above 32.
    pub fn peek(&self, hits: &[Hit], now: Nanos) -> Result<Verdict, TooManyHits> {
        let request = Request::new(hits)?;
        let look = |hit: &Hit| hit.decided(self.kept_from(hit), |cost| self.look(hit, cost, now));
        let mut decisions: Vec<Decision> = request.distinct.iter().map(look).collect();
        if !self.verdict(&request, &decisions).allowed {
            for (hit, decision) in request.distinct.iter().zip(&mut decisions) {
                if decision.is_allowed() {
                    *decision = self.look(hit, 0, now).without(self.kept_from(hit));
                }
            }
        }
        Ok(self.verdict(&request, &decisions))
    }

    /// Charges every hit, or none; with the grant all of it can be given back.
    ///
    /// # Errors
    ///
    /// [`TooManyHits`] above 32.
    pub fn acquire(&self, hits: &[Hit], now: Nanos) -> Result<(Verdict, Option<SetGrant>), TooManyHits> {
        let request = Request::new(hits)?;
        // A denial by a limit whose state is one word needs no lock: it was true at the moment at which it was read.
        let denies = |hit: &Hit| {
            self.enforced(hit.limit)
                && self.limit(hit.limit).is_none_or(|limit| limit.compact().is_some())
                && !self.look(hit, hit.asks(self.kept_from(hit)), now).is_allowed()
        };
        if request.distinct.iter().any(denies) {
            let verdict = self.peek(hits, now)?;
            // Unless it has become possible meanwhile: then it is decided like any other.
            if !verdict.allowed {
                return Ok((verdict, None));
            }
        }
        Ok(self.decide_held(&request, now))
    }

    /// Holds every key, decides, and keeps all or nothing.
    fn decide_held(&self, request: &Request, now: Nanos) -> (Verdict, Option<SetGrant>) {
        let tables = request.distinct.iter().filter_map(|hit| Some((hit, self.keyed(hit.limit)?)));
        // Before anything is held: it takes the stripes of earlier limits.
        let without: Vec<_> = tables
            .clone()
            .filter(|(hit, keyed)| !keyed.inherit(hit.tag, now))
            .map(|(hit, _)| (hit.limit, hit.tag))
            .collect();
        let mut stripes: Vec<_> =
            tables.map(|(hit, keyed)| (hit.limit, keyed.table().stripe(hit.tag))).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let lock = |(limit, stripe): &(LimitId, usize)| self.keyed(*limit)?.table().lock_stripe(*stripe);
        let _guards: Vec<_> = stripes.iter().filter_map(lock).collect();

        let hold = |hit: &Hit| match self.keyed(hit.limit) {
            Some(keyed) if without.contains(&(hit.limit, hit.tag)) => Pending::nowhere(keyed, now),
            keyed => Pending::of(keyed, hit.tag, now),
        };
        let mut pending: Vec<Pending<'_>> = request.distinct.iter().map(hold).collect();
        let decide = |(pending, hit): (&mut Pending<'_>, &Hit)| {
            hit.decided(self.kept_from(hit), |cost| pending.decide(cost))
        };
        let mut decisions: Vec<Decision> = pending.iter_mut().zip(&request.distinct).map(decide).collect();
        let allowed = self.verdict(request, &decisions).allowed;
        let mut parts = Vec::new();
        for ((hit, mut pending), decision) in request.distinct.iter().zip(pending).zip(&mut decisions) {
            if allowed && decision.is_allowed() {
                let table = self.keyed(hit.limit).map(|keyed| keyed.number());
                let stamp = pending.keep();
                parts.extend(stamp.zip(table).map(|(stamp, table)| Part { hit: *hit, table, stamp }));
                continue;
            }
            if decision.is_allowed() {
                // What is left without the request.
                *decision = pending.decide(0).without(self.kept_from(hit));
                pending.leave();
            } else {
                pending.refuse();
            }
        }
        let grant = (!parts.is_empty()).then_some(SetGrant { parts });
        (self.verdict(request, &decisions), grant)
    }

    /// Gives back what a grant took, as far as it can be: what it took of limits that are not in this set stays paid.
    pub fn refund(&self, grant: SetGrant, now: Nanos) {
        for Part { hit, table, stamp } in grant.parts {
            if let Some(keyed) = self.numbered(hit.limit, table) {
                keyed.refund(hit.tag, hit.cost, stamp, now);
            }
        }
    }

    /// Settles a grant at what its hits have really cost: `real` names the same limits and keys. Less than was taken gives the
    /// rest back, aged (permits all together); more is charged whether it is there or not, down to the debt that the limit
    /// allows. What is not named stays paid, and so is what was taken of limits that are not in this set.
    pub fn settle(&self, grant: SetGrant, real: &[Hit], now: Nanos) {
        for Part { hit, table, stamp } in grant.parts {
            let Some(keyed) = self.numbered(hit.limit, table) else { continue };
            let same = |real: &&Hit| {
                real.tag == hit.tag && self.keyed(real.limit).is_some_and(|keyed| keyed.number() == table)
            };
            let Some(real) = real.iter().find(same) else { continue };
            match real.cost.checked_sub(hit.cost) {
                Some(0) => {}
                Some(excess) => keyed.debit(hit.tag, excess, now),
                None => keyed.refund(hit.tag, hit.cost - real.cost, stamp, now),
            }
        }
    }

    /// Leaves the key of a hit no more than a counter elsewhere has said of it: one of the same limit, or one of which this
    /// is a [share](Limit::share). Does nothing for logs and permits.
    pub fn observe(&self, hit: &Hit, seen: &Decision, now: Nanos) {
        if let Some(keyed) = self.keyed(hit.limit) {
            keyed.observe(hit.tag, seen, now);
        }
    }

    /// Forgets what the keys of the hits used.
    pub fn reset(&self, hits: &[Hit], now: Nanos) {
        for hit in hits {
            if let Some(keyed) = self.keyed(hit.limit) {
                keyed.reset(hit.tag, now);
            }
        }
    }

    /// The tables of all limits, for what reads all of them.
    pub fn census(&self) -> Census {
        Census::of(self.limits.iter().map(|(keyed, _)| keyed))
    }

    /// Keys that have a slot and are not full, over all limits. Reads all tables.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        self.census().live_keys(now)
    }

    /// How many charges found no slot, over all limits.
    pub fn overflowed(&self) -> u64 {
        self.limits.iter().map(|(keyed, _)| keyed.table().overflowed()).fold(0, u64::saturating_add)
    }

    fn keyed(&self, id: LimitId) -> Option<&KeyedLimit> {
        self.limits.get(id.0).map(|(keyed, _)| &**keyed)
    }

    /// The limit with that table, which once was at `id`.
    fn numbered(&self, id: LimitId, table: u64) -> Option<&KeyedLimit> {
        let is = |keyed: &&KeyedLimit| keyed.number() == table;
        let elsewhere = || self.limits.iter().map(|(keyed, _)| &**keyed).find(is);
        self.keyed(id).filter(is).or_else(elsewhere)
    }

    /// A limit that there is not is enforced, and denies.
    fn enforcement(&self, id: LimitId) -> Enforcement {
        self.limits.get(id.0).map_or(Enforcement::Enforced, |(_, enforcement)| *enforcement)
    }

    fn enforced(&self, id: LimitId) -> bool {
        self.enforcement(id) == Enforcement::Enforced
    }

    fn kept_from(&self, hit: &Hit) -> u64 {
        self.limit(hit.limit).map_or(0, |limit| hit.kept_from(limit))
    }

    fn look(&self, hit: &Hit, cost: u64, now: Nanos) -> Decision {
        match self.keyed(hit.limit) {
            Some(keyed) => keyed.look(hit.tag, cost, now),
            None => Decision::timeless(Outcome::NeverFits, 0, now),
        }
    }

    /// The verdict of decisions about the distinct hits.
    fn verdict(&self, request: &Request, decisions: &[Decision]) -> Verdict {
        let of_hit = request.of_hit.iter().filter_map(|index| {
            let hit = request.distinct.get(*index)?;
            Some((*decisions.get(*index)?, self.enforcement(hit.limit)))
        });
        Verdict::of(&of_hit.collect::<Vec<_>>())
    }
}

impl std::fmt::Debug for LimitSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = self.limits.iter().map(|(keyed, enforcement)| (keyed.limit(), enforcement));
        formatter.debug_list().entries(limits).finish()
    }
}

/// The hits of a request, with those on the same limit and key as one.
struct Request {
    distinct: Vec<Hit>,
    /// For each hit the index of its distinct one.
    of_hit: Vec<usize>,
}

impl Request {
    fn new(hits: &[Hit]) -> Result<Self, TooManyHits> {
        if hits.len() > HITS_MAX {
            return Err(TooManyHits { hits: hits.len(), hits_max: HITS_MAX });
        }
        let mut distinct: Vec<Hit> = Vec::with_capacity(hits.len());
        let mut of_hit = Vec::with_capacity(hits.len());
        for hit in hits {
            let same = |other: &Hit| (other.limit, other.tag) == (hit.limit, hit.tag);
            let index = distinct.iter().position(same).unwrap_or(distinct.len());
            match distinct.get_mut(index) {
                Some(other) => {
                    other.cost = other.cost.saturating_add(hit.cost);
                    other.needs = other.needs.max(hit.needs);
                    other.within = [other.within, hit.within].into_iter().flatten().min();
                }
                None => distinct.push(*hit),
            }
            of_hit.push(index);
        }
        Ok(Self { distinct, of_hit })
    }
}
