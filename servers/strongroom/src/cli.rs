//! The command line.

use clap::{Parser, Subcommand};

use crate::commands;

/// A verifiable ledger and rate limits: serve them, operate them, and check the ledger's proofs.
#[derive(Debug, Parser)]
#[command(
    name = "strongroom",
    version = service_kit::VERSION_WITH_COMMIT,
    propagate_version = true,
    max_term_width = 110,
    after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 condition failed or check denied, \
                  5 verification failed, 6 not authorized, 7 unavailable.\n\n\
                  Start here: strongroom dev"
)]
pub struct Cli {
    /// Print results, and errors, as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything on this machine, for development.
    Dev(commands::dev::Dev),
    /// Serve and operate a ledger.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Serve and operate rate limits.
    #[command(subcommand)]
    Ratelimit(RateLimitCommand),
    /// Check a proof document offline.
    Verify(commands::verify::Verify),
    /// Show something.
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Measure.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Ask a server whether it is ready.
    Health(commands::health::Health),
    /// Write or check the configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make and show certificates for the nodes of a cluster, for development.
    #[command(subcommand)]
    Certs(commands::certs::Certs),
    /// Print completions for a shell.
    Completions(commands::completions::Completions),
}

/// `strongroom demo …`
#[derive(Debug, Subcommand)]
pub enum DemoCommand {
    /// Change one stored byte in a copy of a ledger, and watch it being caught.
    Tamper(commands::demo_tamper::DemoTamper),
}

/// `strongroom bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure a ledger with closed-loop clients.
    Ledger(commands::bench_ledger::BenchLedger),
}

/// `strongroom config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a commented configuration file with every default.
    Init(commands::config_init::ConfigInit),
    /// Print the effective configuration and where each value comes from; secrets are redacted.
    Check(commands::config_check::ConfigCheck),
}

/// `strongroom ratelimit …`
#[derive(Debug, Subcommand)]
pub enum RateLimitCommand {
    /// Serve rate limits to proxies and programs.
    Serve(commands::ratelimit::serve::Serve),
    /// Ask whether a request may go, and charge it. Exit code 4 when it may not.
    Check(commands::ratelimit::check::Check),
    /// Forget what a key has used.
    Reset(commands::ratelimit::reset::Reset),
    /// List the keys that are denied most.
    Top(commands::ratelimit::top::Top),
    /// Check rule files, and list the rules of a running server.
    #[command(subcommand)]
    Rules(commands::ratelimit::rules::Rules),
}

/// `strongroom ledger …`
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Serve a ledger.
    Serve(commands::ledger::serve::Serve),
    /// Create, list, show and delete namespaces.
    #[command(subcommand)]
    Namespace(commands::ledger::namespace::Namespace),
    /// Create, list, show and delete vaults.
    #[command(subcommand)]
    Vault(commands::ledger::vault::Vault),
    /// Write one entity.
    Put(commands::ledger::put::Put),
    /// Read one entity.
    Get(commands::ledger::get::Get),
    /// Delete one entity.
    Delete(commands::ledger::delete::Delete),
    /// Create one relationship.
    Relate(commands::ledger::relate::Relate),
    /// Delete one relationship.
    Unrelate(commands::ledger::relate::Unrelate),
    /// Ask whether a relationship exists. Exit code 4 when it does not.
    Check(commands::ledger::check::Check),
    /// List entities or relationships.
    List(commands::ledger::list::List),
    /// Show the versions of a key, newest first.
    History(commands::ledger::history::History),
    /// Show the blocks of a vault.
    Blocks(commands::ledger::blocks::Blocks),
    /// Follow the blocks of a vault: those that are there, then those that come.
    Watch(commands::ledger::watch::Watch),
    /// Write one transaction from a JSON file.
    Txn(commands::ledger::txn::Txn),
    /// Write many entities and relationships from a file of JSON lines.
    Import(commands::ledger::import::Import),
    /// Print the newest signed checkpoint of a vault.
    Checkpoint(commands::ledger::checkpoint::Checkpoint),
    /// Print the key that verifies the ledger's checkpoints.
    Vkey(commands::ledger::vkey::Vkey),
    /// Write a proof document that `strongroom verify` checks offline.
    Proof(commands::ledger::proof::Proof),
    /// Create, list and revoke tokens.
    #[command(subcommand)]
    Token(commands::ledger::token::Token),
    /// Show, export, import and rotate the key that signs checkpoints.
    #[command(subcommand)]
    Key(commands::ledger::key::Key),
    /// Write, list, verify and restore snapshots.
    #[command(subcommand)]
    Snapshot(commands::ledger::snapshot::Snapshot),
    /// Show the cluster, and change its members and its leader.
    #[command(subcommand)]
    Cluster(commands::ledger::cluster::Cluster),
    /// Back up a ledger into a folder, verify the backup offline, restore it to any point.
    #[command(subcommand)]
    Backup(commands::ledger::backup::Backup),
    /// Write the log of a vault as C2SP tlog-tiles, for other tools to verify.
    Export(commands::ledger::export::Export),
    /// Check that what is stored of a vault is what its blocks say, while the server runs. Exit code 5 when not.
    Integrity(commands::ledger::integrity::Integrity),
    /// Make the rows of a fenced vault anew from its blocks.
    Recover(commands::ledger::recover::Recover),
    /// Expire now what has expired.
    Gc(commands::ledger::gc::Gc),
    /// Recompute everything in a data directory and name what does not fit. The server must be stopped.
    Doctor(commands::ledger::doctor::Doctor),
}
