//! `strongroom dev`

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ledger_server::settings::LedgerSettings;
use service_kit::ReadyLine;
use service_kit::configuration::{Resolved, Source};
use service_kit::logs::LogFormat;

use crate::commands::ledger::serve::{facts, warn_of_loss};
use crate::compose::{self, BusyPort};
use crate::failure::Failure;
use crate::output::Output;
use crate::server_flags::{ConfigFile, ServerFlags};
use crate::start::{self, WhenReady};
use crate::state_home;

/// Start everything on this machine, for development: a ledger on a temporary directory, a token with every right,
/// and free ports where the usual ones are taken. Other commands find it by themselves.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom dev\n  \
    strongroom dev --data ./ledger       keep the data\n  \
    strongroom dev --json --listen 127.0.0.1:0")]
pub struct Dev {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: ServerFlags,
}

impl Dev {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let settings = self
            .flags
            .resolve(&self.config)
            .and_then(|(resolved, settings)| for_development(&resolved, settings));
        start::run(output, settings, BusyPort::TakeFree, Announce(output))
    }
}

/// Development stays on this machine, and its log is for eyes: short, unless somebody asked for more.
fn for_development(resolved: &Resolved, mut settings: LedgerSettings) -> Result<LedgerSettings, Failure> {
    for (flag, address) in [("listen", settings.listen), ("metrics", settings.metrics)] {
        if !compose::is_loopback(address) {
            let message =
                format!("dev serves this machine only: --{flag} {address} is not a loopback address");
            return Err(Failure::usage(message).with_hint("`strongroom ledger serve` serves others"));
        }
    }
    let is_default = |key: &str| matches!(resolved.source(key), Some(Source::Default));
    if is_default("log_level") {
        "warn".clone_into(&mut settings.logs.filter);
    }
    if is_default("log_format") {
        settings.logs.format = LogFormat::Text;
    }
    Ok(settings)
}

struct Announce(Output);

impl WhenReady for Announce {
    type Kept = DevFileGuard;

    fn ready(self, ready: &ReadyLine, ephemeral: bool) -> Result<DevFileGuard, Failure> {
        let guard = DevFileGuard::write(&state_home::dev_file(), ready)?;
        if self.0.is_json() {
            warn_of_loss(ephemeral);
        } else {
            self.0.text(&banner(ready, ephemeral))?;
        }
        Ok(guard)
    }
}

fn banner(ready: &ReadyLine, ephemeral: bool) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "strongroom".to_owned());
    let facts: String = facts(ready, ephemeral).lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "Strongroom {} is ready.\n\n{facts}\nPaste into another terminal:\n\n  \
         {program} ledger namespace create acme\n  \
         {program} ledger vault create acme/prod\n  \
         {program} ledger put acme/prod door:front locked\n  \
         {program} ledger get acme/prod door:front --verify\n  \
         {program} ledger proof acme/prod door:front -o door.proof.json\n\n\
         Stop with Ctrl-C.\n",
        ready.version,
    )
}

/// `dev.json`, there while `dev` runs.
struct DevFileGuard {
    path: PathBuf,
    content: Vec<u8>,
}

impl DevFileGuard {
    fn write(path: &Path, ready: &ReadyLine) -> Result<Self, Failure> {
        let mut content = Vec::new();
        ready.print(&mut content).map_err(|error| Failure::file("write", path, &error))?;
        let write = || {
            let directory = path.parent().unwrap_or(Path::new("."));
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let temporary = path.with_extension(format!("json.{}", std::process::id()));
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&content)?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|error: std::io::Error| Failure::file("write", path, &error))?;
        Ok(Self { path: path.to_owned(), content })
    }
}

impl Drop for DevFileGuard {
    fn drop(&mut self) {
        // Another `dev` may have written its own since: that one stays.
        if std::fs::read(&self.path).is_ok_and(|content| content == self.content) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
