//! `rls-load`: closed-loop load on a server of Envoy's rate limit protocol, and the server that it is measured beside.

#[path = "../connector.rs"]
mod connector;
mod echo;
#[path = "../latency.rs"]
mod latency;
mod load;
mod proto;

use clap::Parser;

/// Load on Envoy's rate limit protocol, and a server of it that does nothing.
#[derive(Debug, Parser)]
#[command(name = "rls-load", version)]
enum Command {
    /// A server of tonic that says yes to everything.
    Echo {
        /// What it answers.
        #[arg(long, value_enum, default_value = "empty")]
        answer: echo::Answer,
    },
    /// Asks a server.
    Load(load::Load),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Echo { answer } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(echo::serve(answer))
        }
        Command::Load(load) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load.run())
        }
    }
}
