//! Rules put in force without a server: what the engine of one would refuse is refused here, with the rule's line.

use std::num::NonZeroU32;

use ratelimit_core::ports::{Charge, Policy, RateStore, RateStoreError};
use ratelimit_core::rules::{Counters, Placed, RuleSet};
use ratelimit_core::{HashSecret, Limit, Nanos, TableSize, Verdict};
use ratelimit_rules::{Engine, ReadRules, RuleLines, RuleStore, RuleView, StoreEngine};
use storage_adapters::redb::rates::{NAME_BYTES_MAX, POLICIES_MAX, RedbRateError};

use crate::rule_files::RulesError;
use crate::servers::ServersError;
use crate::settings::EngineChoice;

/// Nobody asks it anything, so the size of its tables does not matter; that they are more than one counter does, since there are
/// only so many such tables.
const SMALLEST: TableSize = TableSize { keys: 2, sketch_bytes: 0 };

/// What a server would make of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The rules, as it lists them.
    pub rules: Vec<RuleView>,
    /// How many of them have a counter for each value, and so in memory a table each.
    pub tables: usize,
}

/// Puts the rules in force as a server with that engine does. The file of counters is neither made nor opened.
///
/// # Errors
/// [`ServersError::Rules`] and [`ServersError::Counters`], as a server that starts with these rules and a new file.
pub fn put_in_force(read: ReadRules, engine: &EngineChoice) -> Result<Trial, ServersError> {
    let ReadRules { rules, lines, .. } = read;
    let has_table = |placed: &Placed<'_>| {
        placed.counters == Counters::Many && !matches!(placed.rule.limit, Limit::Unlimited | Limit::DenyAll)
    };
    let tables = rules.rules().into_iter().filter(has_table).count();
    let rules = views(rules, &lines, engine)?;
    Ok(Trial { rules, tables })
}

fn views(rules: RuleSet, lines: &RuleLines, engine: &EngineChoice) -> Result<Vec<RuleView>, ServersError> {
    let refused = |error| RulesError::at(error, lines);
    let secret = HashSecret([0; 16]);
    if *engine == EngineChoice::Memory {
        return Ok(Engine::new(rules, SMALLEST, secret).map_err(refused)?.rules());
    }
    check(&StoreEngine::<NoStore>::policies(&rules).map_err(refused)?)?;
    let engine = StoreEngine::new(NoStore, rules, NonZeroU32::MIN, SMALLEST, secret);
    Ok(engine.map_err(refused)?.rules())
}

/// What a file of counters checks of policies beyond their limits.
fn check(policies: &[Policy]) -> Result<(), RedbRateError> {
    if policies.len() > POLICIES_MAX {
        return Err(RedbRateError::TooManyPolicies { policies: policies.len() });
    }
    match policies.iter().map(|policy| policy.name.len()).find(|bytes| *bytes > NAME_BYTES_MAX) {
        Some(bytes) => Err(RedbRateError::NameTooLong { bytes }),
        None => Ok(()),
    }
}

/// Stands where the file would be, and decides nothing.
struct NoStore;

fn asked() -> RateStoreError {
    RateStoreError::Failed { action: "decide in a trial", source: "there is no store".into() }
}

impl RateStore for NoStore {
    type Grant = ();

    async fn check(&self, _: &[Charge<'_>], _: Nanos) -> Result<(Verdict, Option<()>), RateStoreError> {
        Err(asked())
    }

    async fn peek(&self, _: &[Charge<'_>], _: Nanos) -> Result<Verdict, RateStoreError> {
        Err(asked())
    }

    async fn refund(&self, _: &mut Option<()>, _: Nanos) -> Result<(), RateStoreError> {
        Err(asked())
    }

    async fn reset(&self, _: &[Charge<'_>], _: Nanos) -> Result<(), RateStoreError> {
        Err(asked())
    }
}

impl RuleStore for NoStore {
    async fn reopen(&self, _: Vec<Policy>, _: Nanos) -> Result<(), RateStoreError> {
        Err(asked())
    }

    async fn probe(&self, _: Nanos) -> Result<(), RateStoreError> {
        Err(asked())
    }

    fn live_keys(&self, _: Nanos) -> u64 {
        0
    }

    fn overflowed(&self) -> u64 {
        0
    }
}
