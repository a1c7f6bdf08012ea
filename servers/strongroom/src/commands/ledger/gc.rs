//! `strongroom ledger gc`

use clap::Args;
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Expire now what has expired, as the server does by itself every minute. Needs a token with the role admin on *.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger gc")]
pub struct Gc {
    #[command(flatten)]
    server: ServerArgs,
}

impl Gc {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let expired = self.server.client()?.force_gc().await?;
        output.result(&json!({ "entities_expired": expired }), || format!("expired  {expired} entities"))
    }
}
