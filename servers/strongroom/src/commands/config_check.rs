//! `strongroom config check`

use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::server_flags::{ConfigFile, ServerFlags};
use crate::table;

/// Print the effective configuration: every setting, its value, and where that comes from. Secrets are redacted.
/// Takes the flags of `ledger serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom config check\n  \
    strongroom config check --config strongroom.toml --listen 127.0.0.1:0")]
pub struct ConfigCheck {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: ServerFlags,
}

impl ConfigCheck {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let (resolved, _) = self.flags.resolve(&self.config)?;
        let rows = resolved.rows();
        let document = json!({ "server": resolved.server(), "settings": rows });
        output.result(&document, || {
            let cells = |row: &service_kit::configuration::SettingRow| {
                vec![
                    row.key.to_owned(),
                    row.value.clone().unwrap_or_else(|| "-".to_owned()),
                    row.source.clone(),
                ]
            };
            table::render(&["setting", "value", "source"], &rows.iter().map(cells).collect::<Vec<_>>())
        })
    }
}
