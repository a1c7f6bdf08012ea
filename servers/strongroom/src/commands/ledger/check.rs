//! `strongroom ledger check`

use clap::Args;
use ledger_client::Consistency;
use ledger_core::names::VaultRef;
use ledger_core::relationship::Relationship;
use serde_json::json;

use super::get::{extend, note_trust, trust_fields};
use super::{Tuple, shown};
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::{clock, record};

/// Ask whether a relationship exists, exactly as given: nothing is expanded. Exit code 4 when it does not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger check acme/prod doc:plan viewer user:ada\n  \
    strongroom ledger check acme/prod doc:plan viewer user:ada --verify --json")]
pub struct Check {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    #[command(flatten)]
    tuple: Tuple,
    /// Believe nothing that is not proved.
    #[arg(long)]
    verify: bool,
    /// Read what the node has, without asking whether it is the newest.
    #[arg(long, conflicts_with = "verify")]
    eventual: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Check {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let tuple = Relationship::from(self.tuple);
        let client = self.server.trusting_client(&self.trust)?;
        let (exists, record) = if self.verify || !self.trust.verifier_keys.is_empty() {
            let verified = client.verified_check(&self.vault, &tuple).await?;
            note_trust(output, &self.vault, &verified);
            let mut record = record::claim(&verified.claim, clock::now_ms());
            extend(&mut record, trust_fields(&self.vault, &verified));
            (verified.claim.present, record)
        } else {
            let consistency = if self.eventual { Consistency::Eventual } else { Consistency::Linearizable };
            let read = client.check(&self.vault, &tuple, consistency).await?;
            let record = json!({
                "relationship": record::relationship(&tuple),
                "version": read.value.unwrap_or(0),
                "height": read.height,
                "log_time_ms": read.log_time_ms,
                "verified": false,
            });
            (read.value.is_some(), record)
        };
        let mut record = record;
        extend(&mut record, json!({ "exists": exists }));
        let word = if exists { "yes" } else { "no" };
        output.result(&record, || format!("{word}  {}", shown(&tuple)))?;
        if exists { Ok(()) } else { Err(Failure::denied()) }
    }
}
