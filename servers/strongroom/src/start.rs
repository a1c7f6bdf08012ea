//! Running a server from a command: one line for programs, a few for people, and the end of the process.

use service_kit::ReadyLine;
use service_kit::logs::LogTarget;
use service_kit::ready_line::print_failed_start;

use ledger_server::settings::LedgerSettings;

use crate::compose::{self, BusyPort, Ended, EndsWith};
use crate::failure::{Exit, Failure, with_causes};
use crate::output::Output;
use crate::rate_limits::RateLimitsBeside;

/// What the command does once the server is ready; kept until the server has ended.
pub trait WhenReady {
    /// What to keep.
    type Kept;

    /// Called once.
    fn ready(self, ready: &ReadyLine, ephemeral: bool) -> Result<Self::Kept, Failure>;
}

/// Starts a server, says so, and serves until a signal.
pub fn run(
    output: Output,
    settings: Result<(LedgerSettings, Option<RateLimitsBeside>), Failure>,
    busy: BusyPort,
    ends_with: EndsWith,
    when_ready: impl WhenReady,
) -> Result<(), Failure> {
    let started = settings.and_then(|(settings, beside)| {
        if output.is_json() && settings.logs.target == LogTarget::Stdout {
            return Err(Failure::usage(
                "--json keeps standard output for one line: leave out --log-to stdout",
            ));
        }
        let runtime =
            server_runtime().map_err(|error| Failure::error(format!("cannot start the runtime: {error}")))?;
        let started = runtime.block_on(compose::start(settings, beside, busy, ends_with));
        let running = started.map_err(|error| failed(&error))?;
        Ok((runtime, running))
    });
    let (runtime, running) = match started {
        Ok(started) => started,
        Err(failure) => {
            if output.is_json() {
                // Whoever reads the line may be gone; the exit code says it too.
                let _ = print_failed_start(&mut std::io::stdout().lock(), &failure.message);
            }
            return Err(failure);
        }
    };
    let mut kept = None;
    let mut announced = false;
    let announce = |ready: &ReadyLine, ephemeral: bool| {
        announced = true;
        kept = Some(when_ready.ready(ready, ephemeral)?);
        if output.is_json() {
            let printed = ready.print(&mut std::io::stdout().lock());
            printed.map_err(|error| Failure::error(format!("cannot print the ready line: {error}")))?;
        }
        Ok(())
    };
    let served = runtime.block_on(running.serve(announce));
    drop(kept);
    served.map_err(|ended| match ended {
        Ended::Announcement(failure) => failure,
        Ended::Server(error) => {
            let failure = failed(&error);
            if output.is_json() && !announced {
                let _ = print_failed_start(&mut std::io::stdout().lock(), &failure.message);
            }
            failure
        }
    })
}

/// The engine and the connections have threads of their own: this one starts, watches and drains them.
fn server_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn failed(error: &compose::ServeError) -> Failure {
    Failure::new(Exit::Error, "SERVER", with_causes(error))
}
