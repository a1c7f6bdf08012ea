//! `strongroom config check`

use clap::{Args, Subcommand};
use serde_json::json;
use service_kit::configuration::Resolved;

use crate::failure::Failure;
use crate::output::Output;
use crate::rate_limit_flags::RateLimitFlags;
use crate::server_flags::{ConfigFile, ServerFlags};
use crate::table;

/// Print the effective configuration: every setting, its value, and where that comes from. Secrets are redacted.
/// Takes the flags of `ledger serve`; `config check ratelimit` is about a rate limit server.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    strongroom config check\n  \
    strongroom config check --config strongroom.toml --listen 127.0.0.1:0\n  \
    strongroom config check ratelimit --config strongroom.toml"
)]
pub struct ConfigCheck {
    #[command(subcommand)]
    other: Option<OtherServer>,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: ServerFlags,
}

/// Servers beside the ledger.
#[derive(Debug, Subcommand)]
enum OtherServer {
    /// The same for a rate limit server. Takes the flags of `ratelimit serve`.
    Ratelimit(RateLimitCheck),
}

/// Print the effective configuration of a rate limit server. Takes the flags of `ratelimit serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom config check ratelimit\n  \
    strongroom config check ratelimit --config strongroom.toml --rules rules.yaml")]
struct RateLimitCheck {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: RateLimitFlags,
}

impl ConfigCheck {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let resolved = match self.other {
            None => self.flags.resolve(&self.config)?.0,
            Some(OtherServer::Ratelimit(check)) => check.flags.resolve(&check.config)?.0,
        };
        print(&resolved, output)
    }
}

fn print(resolved: &Resolved, output: Output) -> Result<(), Failure> {
    let rows = resolved.rows();
    let document = json!({ "server": resolved.server(), "settings": rows });
    output.result(&document, || {
        let cells = |row: &service_kit::configuration::SettingRow| {
            vec![row.key.to_owned(), row.value.clone().unwrap_or_else(|| "-".to_owned()), row.source.clone()]
        };
        table::render(&["setting", "value", "source"], &rows.iter().map(cells).collect::<Vec<_>>())
    })
}
