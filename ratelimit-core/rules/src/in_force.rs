//! The rules that are in force, with their counters: all of them, or beside a store what stands in for it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use ratelimit_core::rules::{Counters, Entry, OnFailure, Placed, Request as Asked, RuleSet};
use ratelimit_core::{
    CannotReplace, Carried, Enforcement, HashSecret, Heir, Hit, Keep, KeyParts, Limit, LimitId, LimitSet,
    Nanos, TableSize,
};

use crate::answer::RuleRef;
use crate::engine::{EngineError, Reloaded};
use crate::limit_override::LimitOverride;
use crate::request::{Request, RequestError};
use crate::tallies::Tally;

/// Rules that may have as many counters as there are clients: each has a table of its own.
pub const TABLES_MAX: usize = 4_096;
/// Different windows of the limits that requests may bring: each has a table of its own. One epoch needs seven.
pub const OVERRIDES_MAX: usize = 16;
/// Their place in messages.
const OVERRIDES_PLACE: &str = "limits that requests brought";

/// The table of a rule with one counter.
const LONE: TableSize = TableSize { keys: 1, sketch_bytes: 0 };

pub(crate) struct InForce {
    pub rules: RuleSet,
    pub set: LimitSet,
    /// In the order of listings.
    pub kept: Vec<KeptRule>,
    by_place: HashMap<KeyParts, usize>,
    overrides: Vec<(Limit, LimitId)>,
    size: TableSize,
    keeping: Keeping,
}

/// Whose counters the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Those of the rules.
    All,
    /// Those that decide while a store does not: a rule's share of its limit among so many nodes, or all, or nothing.
    StandIn {
        /// How many nodes share the limits.
        nodes: NonZeroU32,
    },
}

impl Keeping {
    fn limit(self, placed: &Placed<'_>) -> Result<Limit, EngineError> {
        let limit = &placed.rule.limit;
        let Self::StandIn { nodes } = self else { return Ok(limit.clone()) };
        match placed.rule.on_failure {
            _ if !counts(limit) => Ok(limit.clone()),
            OnFailure::Open => Ok(Limit::Unlimited),
            OnFailure::Closed => Ok(Limit::DenyAll),
            OnFailure::LocalShare => limit
                .share(nodes)
                .map_err(|source| EngineError::NoShare { path: placed.path.clone(), source }),
        }
    }
}

/// A rule and its counters. Its place in the list is its limit's place in the set.
#[derive(Clone)]
pub(crate) struct KeptRule {
    pub told: Arc<RuleRef>,
    pub enforcement: Enforcement,
    pub on_failure: OnFailure,
    pub tally: Arc<Tally>,
    pub place: KeyParts,
    id: Option<LimitId>,
}

/// What a descriptor met.
#[derive(Clone)]
pub(crate) struct Met {
    pub told: Arc<RuleRef>,
    pub enforcement: Enforcement,
    pub hit: Hit,
    /// `None` for limits that requests bring.
    pub tally: Option<Arc<Tally>>,
    pub counter: KeyParts,
    /// The place in the list of the rule that was met; `None` for limits that requests bring.
    pub index: Option<usize>,
    /// Cells that are taken.
    pub cost: u64,
    /// Cells that have to be there.
    pub needs: u64,
}

impl InForce {
    pub(crate) fn new(
        rules: RuleSet,
        size: TableSize,
        secret: HashSecret,
        keeping: Keeping,
    ) -> Result<Self, EngineError> {
        let mut none = Self {
            rules: RuleSet::default(),
            set: LimitSet::new(secret),
            kept: Vec::new(),
            by_place: HashMap::new(),
            overrides: Vec::new(),
            size,
            keeping,
        };
        none.reload(rules, Nanos(0))?;
        Ok(none)
    }

    /// Puts other rules in force. Nothing has changed when it fails.
    pub(crate) fn reload(&mut self, rules: RuleSet, now: Nanos) -> Result<Reloaded, EngineError> {
        let placed = rules.rules();
        let limits: Vec<Limit> =
            placed.iter().map(|placed| self.keeping.limit(placed)).collect::<Result<_, _>>()?;
        let sizes = placed.iter().zip(&limits).map(|(placed, limit)| self.table_size(placed, limit));
        let sizes: Vec<TableSize> = sizes.collect();
        let tables = sizes.iter().filter(|size| **size != LONE).count();
        if tables > TABLES_MAX {
            return Err(EngineError::TooManyTables { tables, tables_max: TABLES_MAX });
        }
        let old =
            |placed: &Placed<'_>| self.by_place.get(&placed.place).and_then(|index| self.kept.get(*index));
        let heirs = placed.iter().zip(limits).zip(&sizes).map(|((placed, limit), size)| Heir {
            limit,
            size: *size,
            enforcement: placed.rule.enforcement,
            of: old(placed).and_then(|kept| kept.id),
            keep: Keep::Cells,
        });
        let brought = self.overrides.iter().map(|(limit, id)| Heir {
            limit: limit.clone(),
            size: self.size,
            enforcement: Enforcement::Enforced,
            of: Some(*id),
            keep: Keep::Cells,
        });
        let heirs: Vec<Heir> = heirs.chain(brought).collect();
        let kept: Vec<KeptRule> = placed.iter().map(|placed| KeptRule::new(placed, old(placed))).collect();
        let mut reloaded = Reloaded { rules: kept.len(), ..Reloaded::default() };
        let stay = placed.iter().filter(|placed| old(placed).is_some()).count();
        reloaded.removed = self.kept.len().saturating_sub(stay);
        let known: Vec<bool> = placed.iter().map(|placed| old(placed).is_some()).collect();
        let carried = self.set.succeed(heirs, now).map_err(|CannotReplace { heir, reason }| {
            let path = placed.get(heir).map(|placed| placed.path.clone());
            EngineError::CannotPlace { path: path.unwrap_or_else(|| OVERRIDES_PLACE.to_owned()), reason }
        })?;
        drop(placed);
        for (carried, known) in carried.iter().zip(known) {
            match (carried, known) {
                (Carried::Table, _) => reloaded.unchanged += 1,
                (Carried::Cells, _) => reloaded.changed += 1,
                (Carried::Nothing, true) => reloaded.restarted += 1,
                (Carried::Nothing, false) => reloaded.added += 1,
            }
        }
        self.by_place = kept.iter().enumerate().map(|(index, rule)| (rule.place.clone(), index)).collect();
        let mut ids = self.set.ids();
        self.kept =
            kept.into_iter().zip(&mut ids).map(|(rule, id)| KeptRule { id: Some(id), ..rule }).collect();
        for ((_, id), now) in self.overrides.iter_mut().zip(ids) {
            *id = now;
        }
        self.rules = rules;
        Ok(reloaded)
    }

    fn table_size(&self, placed: &Placed<'_>, limit: &Limit) -> TableSize {
        match placed.counters {
            Counters::Many if counts(limit) => self.size,
            _ => LONE,
        }
    }

    /// The rules' own limits, by place.
    pub(crate) fn limits(&self) -> Vec<(KeyParts, Limit)> {
        self.kept.iter().map(|rule| (rule.place.clone(), rule.told.limit.clone())).collect()
    }

    /// Whether a request brings a limit whose window has no table yet.
    pub(crate) fn lacks_override(&self, request: &Request<'_>) -> bool {
        let mut brought = request.descriptors.iter().filter_map(|descriptor| descriptor.limit_override);
        brought.any(|limit| self.overriding(limit).is_none())
    }

    /// Gives a table to the window of each limit that a request brings.
    pub(crate) fn add_overrides(&mut self, request: &Request<'_>) -> Result<(), RequestError> {
        for limit in request.descriptors.iter().filter_map(|descriptor| descriptor.limit_override) {
            if self.overriding(limit).is_some() {
                continue;
            }
            if self.overrides.len() >= OVERRIDES_MAX {
                return Err(RequestError::TooManyOverrides { overrides_max: OVERRIDES_MAX });
            }
            let id = self.set.add(limit.window().clone(), self.size, Enforcement::Enforced)?;
            self.overrides.push((limit.window().clone(), id));
        }
        Ok(())
    }

    fn overriding(&self, limit: &LimitOverride) -> Option<LimitId> {
        self.overrides.iter().find(|(window, _)| window == limit.window()).map(|(_, id)| *id)
    }

    /// What the descriptors of a request meet, in their order.
    pub(crate) fn meet(&self, request: &Request<'_>) -> Vec<Option<Met>> {
        let descriptors: Vec<&[Entry<'_>]> =
            request.descriptors.iter().map(|descriptor| descriptor.entries).collect();
        let asked = Asked { domain: request.domain, descriptors: &descriptors };
        let matches = self.rules.matches(&asked);
        let known = self.rules.domain(request.domain).is_some();
        let met = request.descriptors.iter().zip(matches).map(|(descriptor, found)| {
            // A cost of 0 asks whether another hit would fit.
            let (hits, needs) = match request.cost(descriptor) {
                None => (0, 0),
                Some(0) => (0, 1),
                Some(hits) => (hits, hits),
            };
            if let Some(limit) = descriptor.limit_override {
                let id = self.overriding(limit).filter(|_| known)?;
                let counter = own_counter(request.domain, descriptor.entries);
                let told = RuleRef {
                    path: own_path(request.domain, descriptor.entries),
                    name: None,
                    limit: limit.limit().clone(),
                };
                return Some(Met {
                    told: Arc::new(told),
                    enforcement: Enforcement::Enforced,
                    hit: self.set.hit(id, &counter, hits).needing(needs).within(limit.count()),
                    tally: None,
                    counter,
                    index: None,
                    cost: hits,
                    needs,
                });
            }
            let found = found?;
            let rule = self.kept.get(found.number)?;
            let (cost, needs) = (hits.saturating_mul(found.rule.cost), needs.saturating_mul(found.rule.cost));
            Some(Met {
                told: rule.told.clone(),
                enforcement: rule.enforcement,
                hit: self.set.hit(rule.id?, &found.counter, cost).needing(needs),
                tally: Some(rule.tally.clone()),
                counter: found.counter,
                index: Some(found.number),
                cost,
                needs,
            })
        });
        met.collect()
    }
}

impl KeptRule {
    /// The rule at a place where `old` was. Its id comes with its table.
    fn new(placed: &Placed<'_>, old: Option<&Self>) -> Self {
        let told = RuleRef {
            path: placed.path.clone(),
            name: placed.rule.name.clone(),
            limit: placed.rule.limit.clone(),
        };
        Self {
            told: Arc::new(told),
            enforcement: placed.rule.enforcement,
            on_failure: placed.rule.on_failure,
            tally: old.map(|old| old.tally.clone()).unwrap_or_default(),
            place: placed.place.clone(),
            id: None,
        }
    }
}

/// Whether a limit counts anything.
pub(crate) fn counts(limit: &Limit) -> bool {
    !matches!(limit, Limit::Unlimited | Limit::DenyAll)
}

/// The counter of a descriptor under a limit that requests bring.
fn own_counter(domain: &str, entries: &[Entry<'_>]) -> KeyParts {
    entries.iter().fold(KeyParts::new([domain]), |counter, entry| {
        counter.with(entry.key.as_bytes()).with(entry.value.as_bytes())
    })
}

fn own_path(domain: &str, entries: &[Entry<'_>]) -> String {
    let mut path = domain.to_owned();
    for entry in entries {
        path.push('.');
        path.push_str(entry.key);
    }
    path
}
