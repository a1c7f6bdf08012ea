//! `strongroom ledger recover`

use clap::Args;
use ledger_core::names::VaultRef;
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Make the rows of a fenced vault anew from its blocks. The fence is lifted only when they lead to the state root of
/// the newest block; otherwise the answer names the block that cannot be used. Needs a token with the role admin.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger recover acme/prod")]
pub struct Recover {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    #[command(flatten)]
    server: ServerArgs,
}

impl Recover {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let recovered = self.server.client()?.recover_vault(&self.vault).await?;
        let document = json!({
            "vault": self.vault.to_string(),
            "height": recovered.height,
            "state_root": hex::encode(recovered.state_root),
            "blocks": recovered.blocks,
            "rows_repaired": recovered.rows_repaired,
            "entries_resumed": recovered.entries_resumed,
        });
        output.result(&document, || {
            format!(
                "recovered  {}  {} blocks replayed, {} rows repaired, height {}, state root {}",
                self.vault,
                recovered.blocks,
                recovered.rows_repaired,
                recovered.height,
                hex::encode(recovered.state_root)
            )
        })
    }
}
