//! `strongroom ratelimit serve`

use clap::Args;
use service_kit::ReadyLine;
use service_kit::logs::LogTarget;
use service_kit::ready_line::print_failed_start;

use crate::failure::{Exit, Failure, with_causes};
use crate::output::Output;
use crate::rate_limit_flags::RateLimitFlags;
use crate::rate_limits;
use crate::server_flags::ConfigFile;
use crate::table;

/// Serve rate limits until SIGTERM: over Envoy's protocol, HTTP and Redis' protocol. Counters are in memory, or
/// with --engine redb:FILE in a file that a restart takes up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit serve --rules rules.yaml\n  \
    strongroom ratelimit serve --rules shop.yaml --rules partners.toml --admin-token-file admin.token\n  \
    strongroom ratelimit serve --rules shop.yaml --engine redb:counters.db    restarts give nobody a second helping\n  \
    strongroom ratelimit serve --config strongroom.toml --json\n\n\
    The files are followed: a change is in force within a second, or at once with SIGHUP. Counters stay. A file that cannot\n\
    be used is logged with its line, and changes nothing.")]
pub struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: RateLimitFlags,
}

impl Serve {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let mut announced = false;
        let served = self.serve(output, &mut announced);
        served.inspect_err(|failure| {
            if output.is_json() && !announced {
                // Whoever reads the line may be gone; the exit code says it too.
                let _ = print_failed_start(&mut std::io::stdout().lock(), &failure.message);
            }
        })
    }

    fn serve(self, output: Output, announced: &mut bool) -> Result<(), Failure> {
        let (_, settings) = self.flags.resolve(&self.config)?;
        if output.is_json() && settings.logs.target == LogTarget::Stdout {
            return Err(Failure::usage(
                "--json keeps standard output for one line: leave out --log-to stdout",
            ));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::error(format!("cannot start the runtime: {error}")))?;
        runtime.block_on(async {
            let running = rate_limits::start(settings).await.map_err(|error| failed(&error))?;
            announce(output, &running.ready)?;
            *announced = true;
            running.serve().await.map_err(|error| failed(&error))
        })
    }
}

fn announce(output: Output, ready: &ReadyLine) -> Result<(), Failure> {
    if output.is_json() {
        let printed = ready.print(&mut std::io::stdout().lock());
        return printed.map_err(|error| Failure::error(format!("cannot print the ready line: {error}")));
    }
    let mut facts = rate_limits::facts(ready);
    facts.extend(ready.metrics_url.clone().map(|url| ("metrics", url)));
    output.text(&table::facts(&facts))
}

/// Rules that cannot be used are a wrong file on the command line, as with `rules validate`.
fn failed(error: &rate_limits::RateLimitError) -> Failure {
    match error {
        rate_limits::RateLimitError::Rules(_) => Failure::new(Exit::Usage, "RULES", with_causes(error)),
        _ => Failure::new(Exit::Error, "SERVER", with_causes(error)),
    }
}
