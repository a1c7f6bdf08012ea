//! `strongroom ledger recover`

use clap::Args;
use ledger_core::names::VaultRef;
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Make the rows of a vault that is fenced on one node anew from its blocks. The fence is lifted only when they lead to the
/// state root of the newest block; otherwise the answer names the block that cannot be used. A follower whose blocks
/// differ from its leader's takes the leader's content over, unless a majority has what it has. Name the node with
/// --url. Needs a token with the role admin.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger recover acme/prod --url http://node-b:50051")]
pub struct Recover {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    #[command(flatten)]
    server: ServerArgs,
}

impl Recover {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let recovered = self.server.client_of_one_node()?.recover_vault(&self.vault).await?;
        let document = json!({
            "vault": self.vault.to_string(),
            "height": recovered.height,
            "state_root": hex::encode(recovered.state_root),
            "blocks": recovered.blocks,
            "rows_repaired": recovered.rows_repaired,
            "entries_resumed": recovered.entries_resumed,
            "from_node_id": recovered.from_node_id,
        });
        output.result(&document, || {
            if let Some(node) = recovered.from_node_id {
                let root = hex::encode(recovered.state_root);
                let height = recovered.height;
                return format!(
                    "recovered  {}  took over the content of node {node}, height {height}, state root {root}",
                    self.vault
                );
            }
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
