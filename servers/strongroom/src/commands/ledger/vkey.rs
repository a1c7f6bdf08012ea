//! `strongroom ledger vkey`

use clap::Args;
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Print the key that verifies the ledger's checkpoints, as the server states it. Compare it with what the
/// operator published before you rely on it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom verify door.proof.json --vkey \"$(strongroom ledger vkey)\"")]
pub struct Vkey {
    #[command(flatten)]
    server: ServerArgs,
}

impl Vkey {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let info = self.server.client()?.node_info().await?;
        let key = info.parsed_verifier_key()?;
        let document = json!({ "vkey": key.to_string(), "ledger_id": info.ledger_id.to_string() });
        output.result(&document, || key.to_string())
    }
}
