//! Rules put in force without a server: what the engine of one would refuse is refused here, with the rule's line.

use std::num::NonZeroU32;

use ratelimit_core::ports::{Charge, Policy, RateStore, RateStoreError};
use ratelimit_core::rules::{Counters, RuleSet};
use ratelimit_core::{CannotSucceed, HashSecret, Nanos, TableSize, Verdict};
use ratelimit_rules::{Engine, EngineError, ReadRules, RuleLines, RuleStore, RuleView, StoreEngine};
use storage_adapters::redb::rates::{NAME_BYTES_MAX, POLICIES_MAX, RedbRateError};

use crate::rule_files::RulesError;
use crate::servers::ServersError;
use crate::settings::EngineChoice;

/// Nobody asks it anything, and what tables would take was computed; that they are more than one counter matters, since
/// there are only so many such tables.
const SMALLEST: TableSize = TableSize { keys: 2, sketch_bytes: 0 };

/// What a server would make of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The rules, as it lists them.
    pub rules: Vec<RuleView>,
    /// Bytes that their counters reserve in memory. With a file they are rows instead: `None`.
    pub room_bytes: Option<u64>,
}

/// Puts the rules in force as a server does that has this engine, and room for so many keys. The file of counters is neither made nor opened.
///
/// # Errors
/// [`ServersError::Rules`] and [`ServersError::Counters`], as a server that starts with these rules and a new file.
pub fn put_in_force(read: ReadRules, engine: &EngineChoice, keys: u64) -> Result<Trial, ServersError> {
    let ReadRules { rules, lines, .. } = read;
    let room_bytes = match engine {
        EngineChoice::Memory => Some(room(&rules, TableSize::for_keys(keys), &lines)?),
        EngineChoice::Redb(_) => None,
    };
    let rules = views(rules, &lines, engine)?;
    Ok(Trial { rules, room_bytes })
}

/// What the tables of rules with a counter for each value reserve; those with one counter take a kilobyte or two, but for logs
/// and permits.
fn room(rules: &RuleSet, size: TableSize, lines: &RuleLines) -> Result<u64, ServersError> {
    let mut bytes: u64 = 0;
    for placed in rules.rules().iter().filter(|placed| placed.counters == Counters::Many) {
        let table = placed.rule.limit.table_bytes(size).map_err(|error| {
            let reason = CannotSucceed::Table(error);
            RulesError::at(EngineError::CannotPlace { path: placed.path.clone(), reason }, lines)
        })?;
        bytes = bytes.saturating_add(table);
    }
    Ok(bytes)
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
