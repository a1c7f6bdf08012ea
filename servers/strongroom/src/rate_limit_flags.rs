//! The flags of a rate limit server, made from its table of settings.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use ratelimit_server::settings::{self, RateLimitSettings};
use service_kit::configuration::{Resolved, flags_of, given_flags};

use crate::failure::{Exit, Failure};
use crate::server_flags::ConfigFile;

/// Flags that stood on the command line: name without dashes, and value.
#[derive(Debug, Clone, Default)]
pub struct RateLimitFlags(pub Vec<(String, String)>);

impl RateLimitFlags {
    /// Resolves flags, environment, file and defaults.
    pub fn resolve(&self, config: &ConfigFile) -> Result<(Resolved, RateLimitSettings), Failure> {
        let environment = std::env::vars_os();
        settings::resolve(self.0.clone(), environment, config.config.as_deref()).map_err(|error| {
            Failure::new(Exit::Usage, "CONFIGURATION", error.to_string())
                .with_hint("strongroom config check ratelimit prints every setting and where it comes from")
        })
    }
}

impl Args for RateLimitFlags {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Settings").args(flags_of(settings::SERVER_NAME, settings::table()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RateLimitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(given_flags(matches, settings::table())))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Err(clap::Error::raw(ErrorKind::InvalidSubcommand, "flags are read once\n"))
    }
}
