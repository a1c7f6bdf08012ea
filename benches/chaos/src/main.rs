//! Three processes of the ledger under faults. `scripts/chaos` prepares a network of its own for them, builds what is
//! needed and runs this; by itself it changes nothing outside of that network and of its work directory.
//!
//! `hosts` are the places that processes run in, `fleet` the processes, `sight` what they say of themselves, `load` what
//! clients do and write down, `nemesis` breaks things, `judgement` compares what was seen with what must be, `failover`
//! and `stalls` measure.

mod failover;
mod fleet;
mod hosts;
mod judgement;
mod load;
mod nemesis;
mod pulse;
mod scene;
mod settings;
mod sight;
mod stalls;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use settings::{Mode, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let outcome = match settings.mode {
        Mode::Faults => nemesis::campaign(&settings).await,
        Mode::Failover => failover::measure_kills(&settings).await,
        Mode::Transfer => failover::measure_transfers(&settings).await,
        Mode::Stalls => stalls::campaign(&settings).await,
    };
    match outcome {
        Ok(verdict) => {
            println!("{}", verdict.table);
            for problem in &verdict.problems {
                println!("WRONG  {problem}");
            }
            println!("{} wrong", verdict.problems.len());
            if verdict.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("strongroom-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}
