//! A request that the store decides.

use std::sync::PoisonError;

use futures::future::{Either, select};
use ratelimit_core::ports::{Charge, PolicyId, RateStoreError};
use ratelimit_core::rules::OnFailure;
use ratelimit_core::{Decision, Enforcement, Hit, KeyParts, Nanos, SetGrant, Verdict};

use super::health::Failed;
use super::policies::InUse;
use super::{How, InForceThere, RuleStore, StoreEngine};
use crate::in_force::Met;
use crate::request::Request;

/// What a request met.
pub(super) struct Asked {
    pub met: Vec<Option<Met>>,
    pub parts: Vec<Part>,
    /// Of the rules that it met.
    generation: u64,
    /// Keeps the numbers of its policies from being given to other rules.
    _in_use: InUse,
}

/// A limit that a request met.
pub(super) struct Part {
    pub met: Met,
    way: Way,
    follows: bool,
}

/// Who decides about it.
#[derive(Clone, Copy)]
enum Way {
    /// The store.
    Store(PolicyId),
    /// It counts nothing.
    Fixed,
    /// It came with the request, and is counted here.
    Brought,
}

/// What the store has said.
pub(super) struct Decided<G> {
    pub verdict: Verdict,
    pub grant: Option<G>,
}

/// Waits for the call, and no longer than the deadline.
pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, RateStoreError>>,
    deadline: impl Future<Output = ()>,
) -> Result<T, (Failed, Option<RateStoreError>)> {
    match select(std::pin::pin!(call), std::pin::pin!(deadline)).await {
        Either::Left((Ok(answer), _)) => Ok(answer),
        Either::Left((Err(error), _)) => Err((Failed::Error, Some(error))),
        Either::Right(((), _)) => Err((Failed::Slow, None)),
    }
}

fn verdict(parts: &[Part], decisions: &[Decision]) -> Verdict {
    let decided = decisions.iter().zip(parts).map(|(decision, part)| (*decision, part.met.enforcement));
    Verdict::of(&decided.collect::<Vec<_>>())
}

impl Asked {
    /// Whether there is anything to ask the store.
    pub(super) fn needs_store(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.way, Way::Store(_)))
    }

    /// What each part costs.
    pub(super) fn charges(&self, cost: impl Fn(&Met) -> u64) -> Vec<Charge<'_>> {
        let parts = self.parts.iter();
        let charges = parts.filter_map(|part| match part.way {
            Way::Store(policy) => Some(Charge { policy, key: &part.met.counter, cost: cost(&part.met) }),
            Way::Fixed | Way::Brought => None,
        });
        charges.collect()
    }

    /// What has to be there for each counter: charges of one add up, what has to be there does not.
    fn needed(&self) -> Vec<Charge<'_>> {
        let mut needed = self.charges(|met| met.cost);
        let needs = self.charges(|met| met.needs);
        for index in 0..needed.len() {
            let same = |other: &Charge<'_>| {
                needed.get(index).is_some_and(|own| (own.policy, own.key) == (other.policy, other.key))
            };
            let is_first = !needed.iter().take(index).any(same);
            let cost = needed.iter().filter(|other| same(other)).map(|other| other.cost);
            let cost = cost.fold(0, u64::saturating_add);
            let needs = needs.iter().filter(|other| same(other)).map(|other| other.cost).max();
            let lacking = needs.unwrap_or(0).saturating_sub(cost);
            if let Some(charge) = needed.get_mut(index).filter(|_| is_first) {
                charge.cost = charge.cost.saturating_add(lacking);
            }
        }
        needed
    }

    /// The places of the parts that the store decides.
    fn stored(&self) -> impl Iterator<Item = usize> {
        let parts = self.parts.iter().enumerate();
        parts.filter(|(_, part)| matches!(part.way, Way::Store(_))).map(|(index, _)| index)
    }

    /// All but the quotas that the store has denied, and what they cost.
    fn admitted(&self, decisions: &[Decision]) -> (Vec<usize>, Vec<Charge<'_>>) {
        let charges = self.stored().zip(self.charges(|met| met.cost));
        let admits = |(place, _): &(usize, Charge<'_>)| {
            let is_quota =
                self.parts.get(*place).is_some_and(|part| part.met.enforcement == Enforcement::Quota);
            !is_quota || decisions.get(*place).is_some_and(Decision::is_allowed)
        };
        charges.filter(admits).unzip()
    }

    /// What the store has denied.
    fn denied(&self, decisions: &[Decision]) -> Vec<(usize, Decision)> {
        let said = self.stored().filter_map(|place| Some((place, *decisions.get(place)?)));
        said.filter(|(_, decision)| !decision.is_allowed()).collect()
    }

    /// The counters that rules with a local share keep in the store.
    pub(super) fn followed(&self) -> impl Iterator<Item = (PolicyId, &KeyParts)> {
        self.parts.iter().filter(|part| part.follows).filter_map(|part| match part.way {
            Way::Store(policy) => Some((policy, &part.met.counter)),
            Way::Fixed | Way::Brought => None,
        })
    }

    fn brought(&self) -> (Vec<usize>, Vec<Hit>) {
        let parts = self.parts.iter().enumerate().filter(|(_, part)| matches!(part.way, Way::Brought));
        parts.map(|(index, part)| (index, part.met.hit)).unzip()
    }
}

fn put(decisions: &mut [Decision], places: impl Iterator<Item = usize>, said: &[Decision]) {
    for (place, said) in places.zip(said) {
        if let Some(decision) = decisions.get_mut(place) {
            *decision = *said;
        }
    }
}

fn put_each(decisions: &mut [Decision], said: &[(usize, Decision)]) {
    for (place, said) in said {
        if let Some(decision) = decisions.get_mut(*place) {
            *decision = *said;
        }
    }
}

impl<S: RuleStore> StoreEngine<S> {
    /// What a request meets now.
    pub(super) fn asked(&self, request: &Request<'_>) -> Asked {
        let force = self.read();
        let met = force.rules.meet(request);
        let part = |met: &Met| {
            let rule = met.index.and_then(|index| force.rules.kept.get(index));
            let way = match rule {
                None => Way::Brought,
                Some(rule) => force.policies.id(&rule.place).map_or(Way::Fixed, Way::Store),
            };
            let follows = rule.is_some_and(|rule| rule.on_failure == OnFailure::LocalShare);
            Part { met: met.clone(), way, follows }
        };
        let parts = met.iter().flatten().map(part).collect();
        Asked { met, parts, generation: force.generation, _in_use: force.in_use.clone() }
    }

    /// Decides on the store. What the limits that came with the request took is in `brought`, until it is known that nothing
    /// is to be given back.
    pub(super) async fn there(
        &self,
        asked: &Asked,
        how: How,
        now: Nanos,
        brought: &mut Option<SetGrant>,
    ) -> Result<Decided<S::Grant>, RateStoreError> {
        let parts = &asked.parts;
        self.push_asked(asked, now).await?;
        // What is not known yet counts as admitted: whoever is denied even so need not be charged anywhere.
        let hopeful = |part: &Part| {
            let limit = &part.met.told.limit;
            limit.uncounted(now).unwrap_or_else(|| Decision::unchecked(limit.size(), now))
        };
        let mut decisions: Vec<Decision> = parts.iter().map(hopeful).collect();
        *brought = self.decide_brought(asked, how, now, &mut decisions);
        // What has not as much as a part needs stays denied there, whatever it costs.
        let mut lacking = Vec::new();
        let needs_more = parts.iter().any(|part| part.met.needs > part.met.cost);
        if how == How::Look || needs_more || !verdict(parts, &decisions).is_allowed() {
            self.look(asked, asked.needed(), now, &mut decisions).await?;
            let looked = verdict(parts, &decisions);
            if !looked.is_allowed() {
                self.give_back(brought, now);
                let verdict = self.without(asked, decisions, now).await?;
                return Ok(Decided { verdict, grant: None });
            }
            lacking = asked.denied(&decisions);
            if how == How::Look {
                let (places, charges) = asked.admitted(&decisions);
                if !charges.is_empty() && (needs_more || places.len() < asked.stored().count()) {
                    let said = self.store.peek(&charges, now).await?;
                    put(&mut decisions, places.into_iter(), said.decisions());
                    put_each(&mut decisions, &lacking);
                }
                return Ok(Decided { verdict: verdict(parts, &decisions), grant: None });
            }
        }
        let (said, mut grant) = self.store.check(&asked.charges(|met| met.cost), now).await?;
        put(&mut decisions, asked.stored(), said.decisions());
        put_each(&mut decisions, &lacking);
        let mut decided = verdict(parts, &decisions);
        if decided.is_allowed() && !said.is_allowed() {
            // A quota without limit admits what the others deny: those that admit are charged, as ever.
            let (places, charges) = asked.admitted(&decisions);
            let (said, charged) = self.store.check(&charges, now).await?;
            grant = charged;
            put(&mut decisions, places.into_iter(), said.decisions());
            put_each(&mut decisions, &lacking);
            decided = verdict(parts, &decisions);
        }
        if !decided.is_allowed() {
            self.give_back(brought, now);
        }
        self.follow(asked, &decisions, now);
        Ok(Decided { verdict: decided, grant })
    }

    /// The limits that came with the request are charged first, and what they took is given back, as if it had never been taken,
    /// when the store denies: meanwhile they may deny others.
    fn decide_brought(
        &self,
        asked: &Asked,
        how: How,
        now: Nanos,
        decisions: &mut [Decision],
    ) -> Option<SetGrant> {
        let (places, hits) = asked.brought();
        if hits.is_empty() {
            return None;
        }
        let force = self.read();
        let (said, grant) = match how {
            How::Take => force.rules.set.acquire(&hits, now).ok()?,
            How::Look => (force.rules.set.peek(&hits, now).ok()?, None),
        };
        put(decisions, places.into_iter(), said.decisions());
        grant
    }

    pub(super) fn give_back(&self, brought: &mut Option<SetGrant>, now: Nanos) {
        if let Some(grant) = brought.take() {
            self.read().rules.set.refund(grant, now);
        }
    }

    async fn look(
        &self,
        asked: &Asked,
        charges: Vec<Charge<'_>>,
        now: Nanos,
        decisions: &mut [Decision],
    ) -> Result<(), RateStoreError> {
        if !charges.is_empty() {
            let said = self.store.peek(&charges, now).await?;
            put(decisions, asked.stored(), said.decisions());
        }
        Ok(())
    }

    /// The verdict about a request that is denied: limits that admit it tell what is left without it.
    async fn without(
        &self,
        asked: &Asked,
        mut decisions: Vec<Decision>,
        now: Nanos,
    ) -> Result<Verdict, RateStoreError> {
        let mut idle = decisions.clone();
        self.look(asked, asked.charges(|_| 0), now, &mut idle).await?;
        for place in asked.stored() {
            if let (Some(decision), Some(idle)) = (decisions.get_mut(place), idle.get(place))
                && decision.is_allowed()
            {
                *decision = *idle;
            }
        }
        Ok(verdict(&asked.parts, &decisions))
    }

    /// Local shares begin where the store was.
    fn follow(&self, asked: &Asked, decisions: &[Decision], now: Nanos) {
        if !asked.parts.iter().any(|part| part.follows) {
            return;
        }
        let force = self.force.read().unwrap_or_else(PoisonError::into_inner);
        if force.generation != asked.generation {
            return; // their tables are others now
        }
        for (part, decision) in asked.parts.iter().zip(decisions) {
            if part.follows && matches!(part.way, Way::Store(_)) {
                force.rules.set.observe(&part.met.hit, decision, now);
            }
        }
    }

    /// Shares of which nothing is known here begin where the store is. Before it is asked: what it charges and does not answer
    /// is decided here, and would count twice.
    pub(super) fn begin_shares(&self, asked: &Asked, now: Nanos) {
        if !asked.parts.iter().any(|part| part.follows) {
            return;
        }
        let force = self.read();
        if force.generation != asked.generation {
            return; // their tables are others now
        }
        for part in asked.parts.iter().filter(|part| part.follows) {
            if let Way::Store(policy) = part.way {
                self.begin_share(&force, &part.met, policy, now);
            }
        }
    }

    /// After a restart a store may know much and answer nothing.
    pub(super) fn begin_share(&self, force: &InForceThere, met: &Met, policy: PolicyId, now: Nanos) {
        let look = force.rules.set.peek(&[met.hit.with_cost(0).needing(0)], now);
        let has_all = |said: &Decision| said.remaining() == said.limit();
        if look.is_ok_and(|look| look.decisions().first().is_some_and(has_all))
            && let Some(seen) = self.store.last_known(policy, &met.counter, now)
        {
            force.rules.set.observe(&met.hit, &seen, now);
        }
    }
}
