//! Rules whose counters are in a store: decided there, and without it while it fails.
//!
//! # Guarantees
//!
//! - Those of [`Engine`](crate::Engine): all or nothing over all descriptors, and a reload as a whole or not at all. Requests are
//!   decided by the store, so its own contract holds.
//! - A call that the store answers with an error, or not by the caller's deadline, is decided by each rule's choice: `open`
//!   admits, `closed` denies, `local_share` counts here with the rule's [share](ratelimit_core::Limit::share) of its limit.
//! - After [`FAILURES_TO_DEGRADE`] failures in a row (or more than one in three for a while) the store is not asked any more; all
//!   of one [`FAILURE_INTERVAL`] count as one at most, since many requests may wait for one slow commit. It is asked
//!   again after [`PROBES_TO_RETURN`] good probes in a row, each a durable write within the time that a request waits, and after it
//!   was told what the shares have admitted.
//! - A share begins where the store was last seen for the key, or by what the store [still knows](RuleStore::last_known). So each of `N` nodes admits at most `⌈B / N⌉ + ⌊w / (N · T)⌋` during an
//!   outage, less what it knew to be used before.
//! - The store decides about a key when it knows what was admitted of it here: it is told first, and what it cannot take yet stays owed.
//!   So with one node a share and the store together admit `B + ⌊w / T⌋`, however often calls fail, alone or in a row. Calls
//!   about the key that are under way while another one fails come on top: they are decided in two places at a time.
//! - Bounded: the shares' tables have a fixed size, and at most [`UNPUSHED_KEYS_MAX`] keys wait to be told; keys beyond are denied.
//!
//! A call that was not answered may have been charged there all the same: that denies more, never less.
//!
//! Limits that requests bring are counted here, in memory.

mod handover;
mod health;
mod policies;
mod stand_in;
mod there;
mod unpushed;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use ratelimit_core::ports::{Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::rules::RuleSet;
use ratelimit_core::{Decision, HashSecret, KeyParts, Limit, Nanos, SetGrant, TableSize};

pub use handover::{TEND_INTERVAL, TendDeadlines};
pub use health::{FAILURE_INTERVAL, FAILURES_TO_DEGRADE, PROBES_TO_RETURN, StoreHealth};
pub use unpushed::{UNPUSHED_BYTES_MAX, UNPUSHED_KEYS_MAX};

use self::health::{Failed, Health};
use self::policies::{InUse, Policies};
use self::stand_in::DecidedHere;
use self::there::{Decided, in_time};
use self::unpushed::{Tellers, Unpushed};
use crate::answer::Answer;
use crate::counts::Counts;
use crate::engine::{EngineError, Reloaded, RuleView};
use crate::in_force::{InForce, Keeping, KeptRule};
use crate::request::{Request, RequestError};
use crate::tallies::Totals;
use crate::top::TopDenied;

/// A store that rules can be kept in.
pub trait RuleStore: RateStore {
    /// Opens it with other policies; their order is their number. A policy takes over the counters of the one of its name, with
    /// another limit what was left of each. Nothing has changed when it fails.
    fn reopen(
        &self,
        policies: Vec<Policy>,
        now: Nanos,
    ) -> impl Future<Output = Result<(), RateStoreError>> + Send;

    /// Proves that it can do what makes requests fail: a write goes to where charges go, is as durable as they are, and is
    /// answered. It changes no counter. A look proves nothing: a disk that takes no writes may well be read.
    fn probe(&self, now: Nanos) -> impl Future<Output = Result<(), RateStoreError>> + Send;

    /// Does what can be done about a failure that lasts. Called before each probe.
    fn revive(&self, now: Nanos) -> impl Future<Output = Result<(), RateStoreError>> + Send {
        let _ = now;
        async { Ok(()) }
    }

    /// What it last knew of a key, from memory, at once, and whatever fails: a share of which nothing is known here begins there,
    /// as after a restart. `None` when it knows nothing of the key, or keeps nothing in memory.
    fn last_known(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Option<Decision> {
        let _ = (policy, key, now);
        None
    }

    /// Keys that have used something of their limits: for metrics.
    fn live_keys(&self, now: Nanos) -> u64;

    /// How many charges found no room for their key.
    fn overflowed(&self) -> u64;
}

/// Rules at work on a store. See the module's documentation.
pub struct StoreEngine<S> {
    store: S,
    force: RwLock<InForceThere>,
    /// One reload at a time.
    reloading: futures::lock::Mutex<()>,
    health: Health,
    unpushed: Mutex<Unpushed>,
    tellers: Tellers,
    counts: Counts,
}

/// The rules in force, and their policies in the store.
struct InForceThere {
    rules: InForce,
    policies: Policies,
    generation: u64,
    in_use: InUse,
    /// All that requests under way may hold.
    users: Vec<Weak<()>>,
}

/// What a request took. It gives back what it took of rules that have kept their limits since.
#[derive(Debug)]
#[must_use = "dropping it keeps what it took"]
pub struct StoreGrant<G> {
    there: Option<G>,
    here: Option<SetGrant>,
}

/// Something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreCallError {
    /// The request is bad.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The store failed. A refund was not done and a reset may have been; both may be tried again.
    #[error("the store of the counters failed, try again: {0}")]
    Store(#[source] RateStoreError),
    /// The store did not answer in time. A refund was not done and a reset may have been; both may be tried again.
    #[error("the store of the counters did not answer in time: try again")]
    Slow,
    /// The store failed during a refund and cannot say whether it gave back: that cannot be tried again.
    #[error(
        "the store of the counters failed, and it is unknown whether it gave back: it cannot be tried again"
    )]
    Unknown,
}

impl<G> StoreGrant<G> {
    /// Whether there is nothing to give back any more.
    pub fn is_spent(&self) -> bool {
        self.there.is_none() && self.here.is_none()
    }
}

impl StoreCallError {
    fn of((why, error): (Failed, Option<RateStoreError>)) -> Self {
        match (why, error) {
            (Failed::Error, Some(error)) => Self::Store(error),
            _ => Self::Slow,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Take,
    Look,
}

/// Why a request is decided without the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is not trusted.
    Degraded,
    /// It did not answer.
    Failed,
    /// It has nothing to say.
    NotNeeded,
}

impl<S: RuleStore> StoreEngine<S> {
    /// The policies with which a store has to be opened for these rules.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotStored`]: logs, permits and sliding windows stay in memory.
    pub fn policies(rules: &RuleSet) -> Result<Vec<Policy>, EngineError> {
        Ok(Policies::default().succeeded_by(rules, &[])?.list())
    }

    /// An engine over a store that was opened with [`policies`](Self::policies) of these rules, which `nodes` nodes share. Each
    /// rule with a local share and a counter for each value has a table of `size` here; the secret has to be random.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn new(
        store: S,
        rules: RuleSet,
        nodes: NonZeroU32,
        size: TableSize,
        secret: HashSecret,
    ) -> Result<Self, EngineError> {
        let policies = Policies::default().succeeded_by(&rules, &[])?;
        let in_use = InUse::default();
        let force = InForceThere {
            rules: InForce::new(rules, size, secret, Keeping::StandIn { nodes })?,
            policies,
            generation: 0,
            users: vec![Arc::downgrade(&in_use)],
            in_use,
        };
        Ok(Self {
            store,
            force: RwLock::new(force),
            reloading: futures::lock::Mutex::new(()),
            health: Health::default(),
            unpushed: Mutex::default(),
            tellers: Tellers::default(),
            counts: Counts::new(),
        })
    }

    /// Decides, and charges everything or nothing. An unknown domain and a descriptor without a rule are allowed.
    ///
    /// # Errors
    ///
    /// [`RequestError`], when nothing was charged.
    pub async fn check(
        &self,
        request: &Request<'_>,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<Answer, RequestError> {
        Ok(self.acquire(request, now, deadline).await?.0)
    }

    /// As [`check`](Self::check); with the grant what was taken can be given back.
    ///
    /// # Errors
    ///
    /// [`RequestError`], when nothing was charged.
    pub async fn acquire(
        &self,
        request: &Request<'_>,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<(Answer, Option<StoreGrant<S::Grant>>), RequestError> {
        self.admits(request).inspect_err(|_| self.counts.refused())?;
        self.decide(request, How::Take, now, deadline).await
    }

    /// What `check` would answer, without charging or counting anything.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn peek(
        &self,
        request: &Request<'_>,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<Answer, RequestError> {
        self.admits(request)?;
        Ok(self.decide(request, How::Look, now, deadline).await?.0)
    }

    async fn decide(
        &self,
        request: &Request<'_>,
        how: How,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<(Answer, Option<StoreGrant<S::Grant>>), RequestError> {
        if self.health.is_degraded()
            && let Some(decided) = self.here(request, how, Why::Degraded, now)?
        {
            return Ok(self.decided_here(request, how, decided));
        }
        let asked = self.asked(request);
        let mut why = Why::NotNeeded;
        if asked.needs_store() {
            self.begin_shares(&asked, now);
            let mut brought = None;
            match in_time(self.there(&asked, how, now, &mut brought), deadline).await {
                Ok(Decided { verdict, grant }) => {
                    self.health.answered();
                    let answer = Answer::of(&asked.met, &verdict);
                    if how == How::Take {
                        self.counts.decided(request, &asked.met, &answer);
                    }
                    let has_grant = grant.is_some() || brought.is_some();
                    return Ok((answer, has_grant.then_some(StoreGrant { there: grant, here: brought })));
                }
                Err((failed, _)) => {
                    self.give_back(&mut brought, now);
                    self.health.failed(failed, now);
                    why = Why::Failed;
                }
            }
        }
        let decided = self.here(request, how, why, now)?;
        // Without the store it always decides, unless the store is to.
        let decided = decided.ok_or(RequestError::NoDescriptors)?;
        Ok(self.decided_here(request, how, decided))
    }

    fn decided_here(
        &self,
        request: &Request<'_>,
        how: How,
        (met, answer, grant): DecidedHere,
    ) -> (Answer, Option<StoreGrant<S::Grant>>) {
        if how == How::Take {
            self.counts.decided(request, &met, &answer);
        }
        (answer, grant.map(|grant| StoreGrant { there: None, here: Some(grant) }))
    }

    /// Gives back what a grant took, aged. What was taken without the store is given back as long as the store does not decide.
    /// What was given back is gone from the grant; what is left of it after an error may be tried again.
    ///
    /// # Errors
    ///
    /// [`StoreCallError`].
    pub async fn refund(
        &self,
        grant: &mut StoreGrant<S::Grant>,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<(), StoreCallError> {
        self.give_back(&mut grant.here, now);
        if grant.is_spent() {
            return Ok(());
        }
        match in_time(self.store.refund(&mut grant.there, now), deadline).await {
            Ok(()) => grant.there = None,
            Err(_) if grant.is_spent() => return Err(StoreCallError::Unknown),
            Err(failed) => return Err(StoreCallError::of(failed)),
        }
        Ok(())
    }

    /// Forgets what the descriptors of a request have used. How many counters that were.
    ///
    /// # Errors
    ///
    /// [`StoreCallError`].
    pub async fn reset(
        &self,
        request: &Request<'_>,
        now: Nanos,
        deadline: impl Future<Output = ()>,
    ) -> Result<usize, StoreCallError> {
        self.admits(request)?;
        let asked = self.asked(request);
        let charges = asked.charges(|_| 0);
        if !charges.is_empty() {
            in_time(self.store.reset(&charges, now), deadline).await.map_err(StoreCallError::of)?;
        }
        let mut unpushed = self.unpushed();
        charges.iter().for_each(|charge| unpushed.forget(charge.policy, charge.key));
        drop(unpushed);
        let force = self.read();
        // The rules may be others by now: those of the same places are reset.
        let hits: Vec<_> = force.rules.meet(request).iter().flatten().map(|met| met.hit).collect();
        force.rules.set.reset(&hits, now);
        Ok(asked.parts.len())
    }

    /// Puts other rules in force: requests under way are decided by those of before or of after.
    ///
    /// # Errors
    ///
    /// [`EngineError`], when the rules of before stay in force.
    pub async fn reload(&self, rules: RuleSet, now: Nanos) -> Result<Reloaded, EngineError> {
        let _one_at_a_time = self.reloading.lock().await;
        let (before, next) = {
            let force = self.read();
            (force.policies.list(), force.policies.succeeded_by(&rules, &force.users)?)
        };
        let refused = |error: RateStoreError| EngineError::Store { reason: error.to_string() };
        self.store.reopen(next.list(), now).await.map_err(refused)?;
        let put = self.put_in_force(rules, next, now);
        if put.is_err() {
            // With the limits of before each counter has at most what was left.
            self.store.reopen(before, now).await.map_err(refused)?;
        }
        put
    }

    fn put_in_force(&self, rules: RuleSet, next: Policies, now: Nanos) -> Result<Reloaded, EngineError> {
        // As in the engine in memory.
        let before = self.read().rules.set.census();
        before.tidy(now);
        let mut force = self.force.write().unwrap_or_else(PoisonError::into_inner);
        let known = force.rules.limits();
        force.rules.reload(rules, now)?;
        let reloaded = reloaded(&known, &force.rules);
        force.policies = next;
        force.generation = force.generation.wrapping_add(1);
        force.in_use = InUse::default();
        force.users.retain(|user| user.strong_count() > 0);
        let user = Arc::downgrade(&force.in_use);
        force.users.push(user);
        let policy = |rule: &KeptRule| Some((force.policies.id(&rule.place)?, rule.told.clone()));
        let of_policies = force.rules.kept.iter().filter_map(policy).collect();
        self.unpushed().succeeded_by(&of_policies, now);
        Ok(reloaded)
    }

    /// The rules that are in force.
    pub fn rules(&self) -> Vec<RuleView> {
        self.read().rules.kept.iter().map(RuleView::of).collect()
    }

    /// The descriptors that were denied most, most first; at most [`TOP_MAX`](crate::TOP_MAX). Their values are what clients
    /// sent.
    pub fn top(&self, count: usize) -> Vec<TopDenied> {
        self.counts.top(count)
    }

    /// What was decided over all.
    pub fn totals(&self) -> Totals {
        let here = self.read().rules.set.overflowed();
        self.counts.totals(here.saturating_add(self.store.overflowed()))
    }

    /// Keys that have used something of their limits in the store: for metrics.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        self.store.live_keys(now)
    }

    /// How the store does.
    pub fn health(&self, now: Nanos) -> StoreHealth {
        let unpushed = self.unpushed();
        StoreHealth {
            unpushed_keys: unpushed.len(),
            unpushed_refused: unpushed.refused(),
            ..self.health.read(now)
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Checks the bounds of a request, and gives tables to the limits that it brings.
    fn admits(&self, request: &Request<'_>) -> Result<(), RequestError> {
        request.check()?;
        if self.read().rules.lacks_override(request) {
            let mut force = self.force.write().unwrap_or_else(PoisonError::into_inner);
            force.rules.add_overrides(request)?;
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, InForceThere> {
        self.force.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpushed(&self) -> MutexGuard<'_, Unpushed> {
        self.unpushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of the rules' counters in the store.
fn reloaded(known: &[(KeyParts, Limit)], rules: &InForce) -> Reloaded {
    let known: BTreeMap<&KeyParts, &Limit> = known.iter().map(|(place, limit)| (place, limit)).collect();
    let mut reloaded = Reloaded { rules: rules.kept.len(), ..Reloaded::default() };
    let mut stay = 0;
    for rule in &rules.kept {
        match known.get(&rule.place) {
            None => reloaded.added += 1,
            Some(limit) => {
                stay += 1;
                match (limit.stored(), rule.told.limit.stored()) {
                    _ if **limit == rule.told.limit => reloaded.unchanged += 1,
                    (Some(_), Some(_)) => reloaded.changed += 1,
                    _ => reloaded.restarted += 1,
                }
            }
        }
    }
    reloaded.removed = known.len().saturating_sub(stay);
    reloaded
}

impl<S> std::fmt::Debug for StoreEngine<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StoreEngine").field("health", &self.health).finish_non_exhaustive()
    }
}
