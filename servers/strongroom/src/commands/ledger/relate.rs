//! `strongroom ledger relate` and `strongroom ledger unrelate`

use clap::Args;
use ledger_core::names::VaultRef;
use ledger_core::relationship::Relationship;
use ledger_core::transaction::{Action, Operation};

use super::submit::{self, IdempotencyArgs};
use super::{Tuple, shown};
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Create one relationship. Creating what exists is no error.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger relate acme/prod doc:plan viewer user:ada")]
pub struct Relate {
    #[command(flatten)]
    change: Change,
}

/// Delete one relationship. Deleting what does not exist is no error.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger unrelate acme/prod doc:plan viewer user:ada")]
pub struct Unrelate {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    #[command(flatten)]
    tuple: Tuple,
    #[command(flatten)]
    idempotency: IdempotencyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Relate {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        self.change.run(output, Action::CreateRelationship).await
    }
}

impl Unrelate {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        self.change.run(output, Action::DeleteRelationship).await
    }
}

impl Change {
    async fn run(self, output: Output, action: fn(Relationship) -> Action) -> Result<(), Failure> {
        let tuple = Relationship::from(self.tuple);
        let what = shown(&tuple);
        let operation = Operation { action: action(tuple), condition: None };
        let client = self.server.client()?;
        let receipt = submit::submit(&client, &self.vault, vec![operation], &self.idempotency).await?;
        submit::print(output, &receipt, &what)
    }
}
