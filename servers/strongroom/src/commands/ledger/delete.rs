//! `strongroom ledger delete`

use clap::Args;
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, Operation};

use super::condition::ConditionArgs;
use super::submit::{self, IdempotencyArgs};
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Delete one entity. Deleting what does not exist is no error; `--if-exists` makes it one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger delete acme/prod door:front --if-version 7")]
pub struct Delete {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(value_parser = super::entity_key)]
    key: EntityKey,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    idempotency: IdempotencyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Delete {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let operation = Operation {
            action: Action::DeleteEntity { key: self.key.clone() },
            condition: self.condition.condition()?,
        };
        let client = self.server.client()?;
        let receipt = submit::submit(&client, &self.vault, vec![operation], &self.idempotency).await?;
        submit::print(output, &receipt, self.key.as_str())
    }
}
