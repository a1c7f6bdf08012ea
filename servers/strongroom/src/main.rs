//! `strongroom`: serves a verifiable ledger, operates it, and checks its proofs.

mod cli;
mod clock;
mod commands;
mod compose;
mod discovery;
mod disk_watch;
mod failure;
mod membership;
mod moment;
mod output;
mod rate_limit_flags;
mod rate_limits;
mod reachable;
mod record;
mod server_flags;
mod start;
mod state_home;
mod table;
mod ttl;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// A request costs many small, short-lived buffers: the system's allocator took a seventh of a read.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The parser may fail before it knows: look for the flag itself.
    let json = arguments.iter().any(|argument| argument == "--json");
    let matches = match Cli::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return refuse_arguments(&error, json),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error, json),
    };
    let output = Output::new(cli.json);
    match commands::run(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

/// Help and version are no errors; the rest is exit code 2.
fn refuse_arguments(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let failure = Failure::usage(error.to_string().trim_end().to_owned());
        Output::new(true).failure(&failure);
        return failure.exit_code();
    }
    // Nothing is left to do when the terminal is gone.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}
