//! `strongroom ratelimit reset`

use clap::Args;
use http::Method;
use serde_json::json;

use super::client::RateLimitServer;
use super::{Entry, descriptors};
use crate::failure::Failure;
use crate::output::Output;

/// Forget what a key has used. Needs the admin token. Exit code 3 when no rule matches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit reset demo client_ip=203.0.113.9\n  \
    strongroom ratelimit reset shop path=/login client_ip=203.0.113.9 --token-file admin.token")]
pub struct Reset {
    /// Whose rules.
    domain: String,
    /// Entries of one descriptor, in the order of the rules.
    #[arg(required = true, value_name = "KEY=VALUE")]
    entries: Vec<Entry>,
    #[command(flatten)]
    server: RateLimitServer,
}

impl Reset {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let body = json!({ "domain": self.domain, "descriptors": descriptors(&self.entries) });
        let answer = self.server.ask(Method::POST, "/v1/reset", Some(&body)).await?;
        let reset = answer["reset"].as_u64().unwrap_or(0);
        if reset == 0 {
            return Err(Failure::not_found(format!("no rule of {} matches these entries", self.domain)));
        }
        output.result(&json!({ "reset": reset }), || "it starts over\n".to_owned())
    }
}
