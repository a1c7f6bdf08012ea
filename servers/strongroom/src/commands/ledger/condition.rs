//! Conditions on the command line.

use clap::Args;
use ledger_core::entity::EntityValue;
use ledger_core::transaction::Condition;

use crate::failure::Failure;

/// What must hold, or nothing happens.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Condition (exit code 4 when it does not hold)")]
#[group(multiple = false)]
pub struct ConditionArgs {
    /// Only when the key does not exist.
    #[arg(long)]
    pub if_absent: bool,
    /// Only when the key exists.
    #[arg(long)]
    pub if_exists: bool,
    /// Only when the key has this version.
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only when the entity has exactly this value.
    #[arg(long, value_name = "TEXT")]
    pub if_value: Option<String>,
}

impl ConditionArgs {
    /// The condition, when one is given.
    pub fn condition(self) -> Result<Option<Condition>, Failure> {
        if let Some(value) = self.if_value {
            let value = EntityValue::new(value).map_err(|error| Failure::usage(error.to_string()))?;
            return Ok(Some(Condition::ValueEquals(value)));
        }
        Ok(match (self.if_absent, self.if_exists, self.if_version) {
            (true, _, _) => Some(Condition::MustNotExist),
            (_, true, _) => Some(Condition::MustExist),
            (_, _, Some(version)) => Some(Condition::VersionEquals(version)),
            _ => None,
        })
    }
}
