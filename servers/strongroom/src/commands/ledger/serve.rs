//! `strongroom ledger serve`

use clap::Args;
use service_kit::ReadyLine;

use crate::compose::{BusyPort, EndsWith};
use crate::failure::Failure;
use crate::output::Output;
use crate::server_flags::{ConfigFile, ServerFlags};
use crate::start::{self, WhenReady};

/// Serve a ledger until SIGTERM. Without --data everything is gone after the end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger serve --data /var/lib/strongroom\n  \
    strongroom ledger serve --config strongroom.toml --json\n\n\
    The first start writes a token with the role admin to DIR/admin.token.")]
pub struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// End when standard input ends too: for a program that starts nodes and must not leave them behind.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    #[command(flatten)]
    flags: ServerFlags,
}

impl Serve {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let settings = self.flags.resolve(&self.config).map(|(_, settings)| (settings, None));
        let ends_with = if self.until_stdin_ends { EndsWith::StandardInput } else { EndsWith::Signal };
        start::run(output, settings, BusyPort::Fail, ends_with, Announce(output))
    }
}

struct Announce(Output);

impl WhenReady for Announce {
    type Kept = ();

    fn ready(self, ready: &ReadyLine, ephemeral: bool) -> Result<(), Failure> {
        if self.0.is_json() {
            warn_of_loss(ephemeral);
            return Ok(());
        }
        self.0.text(&facts(ready, ephemeral))
    }
}

/// Standard output has its one line; a program's log should still say that nothing is kept.
pub fn warn_of_loss(ephemeral: bool) {
    if ephemeral {
        tracing::warn!("no --data: the data directory is temporary, everything is gone after the end");
    }
}

/// Where everything is, for people.
pub fn facts(ready: &ReadyLine, ephemeral: bool) -> String {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let kept = if ephemeral { " (temporary: gone after the end)" } else { "" };
    let facts = [
        ("ledger", ready.ledger_url.clone()),
        ("token", path(&ready.token_file)),
        ("data", path(&ready.data_dir).map(|path| format!("{path}{kept}"))),
        ("metrics", ready.metrics_url.clone()),
        ("key", ready.vkey.clone()),
    ];
    let mut present: Vec<_> =
        facts.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
    present.extend(crate::rate_limits::facts(ready));
    crate::table::facts(&present)
}
