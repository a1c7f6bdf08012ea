//! `strongroom ledger checkpoint`

use clap::Args;
use ledger_core::names::VaultRef;
use serde_json::json;

use super::get::{extend, note_renamed, warning_field};
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Print the newest signed checkpoint of a vault, after checking that it extends the last one seen.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger checkpoint acme/prod > acme-prod.checkpoint")]
pub struct Checkpoint {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Checkpoint {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let verified = self.server.trusting_client(&self.trust)?.verified_checkpoint(&self.vault).await?;
        let mut document = json!({
            "checkpoint": verified.note,
            "origin": verified.checkpoint.origin,
            "size": verified.checkpoint.size,
            "root": hex::encode(verified.checkpoint.root),
            "vkey": verified.verifier_key.to_string(),
            "ledger_id": verified.ledger_id.to_string(),
            "vault_id": verified.vault_id.to_string(),
            "verified": true,
            "trust": verified.trust.as_str(),
        });
        extend(&mut document, warning_field(&self.vault, verified.formerly));
        note_renamed(output, &self.vault, verified.formerly);
        output.note(&format!("trust: {}", verified.trust));
        output.result(&document, || verified.note.clone())
    }
}
