//! The commands, a file each.

pub mod bench_ledger;
pub mod certs;
pub mod completions;
pub mod config_check;
pub mod config_init;
pub mod demo_tamper;
pub mod dev;
pub mod health;
pub mod ledger;
pub mod ratelimit;
pub mod verify;

use crate::cli::{BenchCommand, Command, ConfigCommand, DemoCommand, LedgerCommand, RateLimitCommand};
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command to its end.
pub fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Dev(dev) => dev.run(output),
        Command::Ledger(command) => run_ledger(command, output),
        Command::Ratelimit(command) => run_rate_limits(command, output),
        Command::Verify(verify) => verify.run(output),
        Command::Demo(DemoCommand::Tamper(tamper)) => block_on(tamper.run(output)),
        Command::Bench(BenchCommand::Ledger(bench)) => bench.run(output),
        Command::Health(health) => block_on(health.run(output)),
        Command::Config(ConfigCommand::Init(init)) => init.run(output),
        Command::Config(ConfigCommand::Check(check)) => check.run(output),
        Command::Certs(certs) => certs.run(output),
        Command::Completions(completions) => completions.run(output),
    }
}

fn run_ledger(command: LedgerCommand, output: Output) -> Result<(), Failure> {
    match command {
        LedgerCommand::Serve(serve) => serve.run(output),
        LedgerCommand::Namespace(namespace) => block_on(namespace.run(output)),
        LedgerCommand::Vault(vault) => block_on(vault.run(output)),
        LedgerCommand::Put(put) => block_on(put.run(output)),
        LedgerCommand::Get(get) => block_on(get.run(output)),
        LedgerCommand::Delete(delete) => block_on(delete.run(output)),
        LedgerCommand::Relate(relate) => block_on(relate.run(output)),
        LedgerCommand::Unrelate(unrelate) => block_on(unrelate.run(output)),
        LedgerCommand::Check(check) => block_on(check.run(output)),
        LedgerCommand::List(list) => block_on(list.run(output)),
        LedgerCommand::Txn(txn) => block_on(txn.run(output)),
        LedgerCommand::Import(import) => block_on(import.run(output)),
        LedgerCommand::Checkpoint(checkpoint) => block_on(checkpoint.run(output)),
        LedgerCommand::Vkey(vkey) => block_on(vkey.run(output)),
        LedgerCommand::Proof(proof) => block_on(proof.run(output)),
        LedgerCommand::History(history) => block_on(history.run(output)),
        LedgerCommand::Blocks(blocks) => block_on(blocks.run(output)),
        LedgerCommand::Watch(watch) => block_on(watch.run(output)),
        LedgerCommand::Token(token) => block_on(token.run(output)),
        LedgerCommand::Cluster(cluster) => block_on(cluster.run(output)),
        LedgerCommand::Key(key) => key.run(output),
        LedgerCommand::Snapshot(snapshot) => snapshot.run(output),
        LedgerCommand::Backup(backup) => backup.run(output),
        LedgerCommand::Export(export) => block_on(export.run(output)),
        LedgerCommand::Integrity(integrity) => block_on(integrity.run(output)),
        LedgerCommand::Recover(recover) => block_on(recover.run(output)),
        LedgerCommand::Gc(gc) => block_on(gc.run(output)),
        LedgerCommand::Doctor(doctor) => doctor.run(output),
    }
}

fn run_rate_limits(command: RateLimitCommand, output: Output) -> Result<(), Failure> {
    use ratelimit::rules::Rules;
    match command {
        RateLimitCommand::Serve(serve) => serve.run(output),
        RateLimitCommand::Check(check) => block_on(check.run(output)),
        RateLimitCommand::Reset(reset) => block_on(reset.run(output)),
        RateLimitCommand::Top(top) => block_on(top.run(output)),
        RateLimitCommand::Rules(Rules::Validate(validate)) => validate.run(output),
        RateLimitCommand::Rules(Rules::Preset(preset)) => preset.run(output),
        RateLimitCommand::Rules(Rules::List(list)) => block_on(list.run(output)),
    }
}

/// Runs a command that waits for others, on one thread: it starts faster than many.
pub(crate) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::error(format!("cannot start the runtime: {error}")))?.block_on(command)
}
