//! The flags of a ledger server, made from its table of settings.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use ledger_server::settings::{self, LedgerSettings};
use service_kit::configuration::{Resolved, flags_of, given_flags};

use crate::failure::{Exit, Failure};

/// Flags that stood on the command line: name without dashes, and value.
#[derive(Debug, Clone, Default)]
pub struct ServerFlags(pub Vec<(String, String)>);

/// Which file to read.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// TOML file with settings; flags and variables win over it.
    #[arg(short, long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ServerFlags {
    /// Resolves flags, environment, file and defaults.
    pub fn resolve(&self, config: &ConfigFile) -> Result<(Resolved, LedgerSettings), Failure> {
        let environment = std::env::vars_os();
        settings::resolve(self.0.clone(), environment, config.config.as_deref()).map_err(|error| {
            Failure::new(Exit::Usage, "CONFIGURATION", error.to_string())
                .with_hint("strongroom config check prints every setting and where it comes from")
        })
    }
}

impl Args for ServerFlags {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Settings").args(flags_of(settings::SERVER_NAME, settings::table()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(given_flags(matches, settings::table())))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Err(clap::Error::raw(ErrorKind::InvalidSubcommand, "flags are read once\n"))
    }
}
