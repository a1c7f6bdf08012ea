//! `strongroom ledger doctor`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ledger_core::doctor::{self, Problem, Report, VaultReport};
use ledger_core::ports::StateStore;
use ledger_node::{DataDirectory, Divergence, read_divergences};
use serde_json::{Value, json};
use storage_adapters::redb::{RedbOptions, RedbStateStore};

use crate::failure::Failure;
use crate::output::Output;

/// Recompute everything that blocks commit to, from the stored rows, and name what does not fit. No stored row, block or
/// file of the state changes; the server must be stopped. Exit code 5 when something is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger doctor --data /var/lib/strongroom")]
pub struct Doctor {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Doctor {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        // What a restore left begun or refused says so itself.
        if !self.data.join("state.db").exists() && !self.data.join("restoring").exists() {
            return Err(Failure::not_found(format!(
                "{} holds no ledger: it has no state.db",
                self.data.display()
            )));
        }
        // Its lock keeps a server out while the rows are read.
        let directory = DataDirectory::open(&self.data).map_err(|error| Failure::error(error.to_string()))?;
        directory.require_present_layout().map_err(|error| Failure::error(error.to_string()))?;
        let state = RedbStateStore::open_read_only(directory.path(), RedbOptions::default());
        let state =
            state.map_err(|error| Failure::verification(format!("the state does not open: {error}")))?;
        let report = inspect(Arc::new(state))?;
        let divergences = read_divergences(&self.data)
            .map_err(|error| Failure::error(format!("the list of divergences cannot be read: {error}")))?;
        let mut document = document(&report);
        if let Some(fields) = document.as_object_mut() {
            fields.insert("divergences".to_owned(), json!(divergences));
        }
        output.result(&document, || render(&report) + &render_divergences(&divergences))?;
        if report.is_sound() {
            Ok(())
        } else {
            Err(Failure { silent: true, ..Failure::verification("the data was changed") })
        }
    }
}

/// Inspects a store.
pub fn inspect(state: Arc<dyn StateStore>) -> Result<Report, Failure> {
    doctor::inspect(state).map_err(|error| Failure::verification(format!("the data cannot be read: {error}")))
}

/// The report for programs.
pub fn document(report: &Report) -> Value {
    let vault = |vault: &VaultReport| {
        json!({
            "vault": vault.vault,
            "id": vault.id.to_string(),
            "height": vault.height,
            "blocks": vault.blocks,
            "keys": vault.keys,
            "recorded_state_root": hex::encode(vault.recorded_state_root),
            "computed_state_root": hex::encode(vault.computed_state_root),
            "problem_count": vault.problem_count,
            "problems": vault.problems.iter().map(problem).collect::<Vec<_>>(),
        })
    };
    json!({
        "sound": report.is_sound(),
        "ledger_id": report.ledger_id.map(|id| id.to_string()),
        "vaults": report.vaults.iter().map(vault).collect::<Vec<_>>(),
    })
}

fn problem(problem: &Problem) -> Value {
    json!({ "kind": kind(problem), "key": key_of(problem), "message": problem.to_string() })
}

fn kind(problem: &Problem) -> &'static str {
    match problem {
        Problem::RowChanged { .. } => "ROW_CHANGED",
        Problem::RowMissing { .. } => "ROW_MISSING",
        Problem::RowUnexplained { .. } => "ROW_UNEXPLAINED",
        Problem::RowCorrupt { .. } => "ROW_CORRUPT",
        Problem::DerivedRow { .. } => "DERIVED_ROW",
        Problem::TileWrong { .. } => "TILE_WRONG",
        Problem::Fenced { .. } => "FENCED",
        Problem::BlockUnreadable { .. } => "BLOCK_UNREADABLE",
        Problem::ChainBroken { .. } => "CHAIN_BROKEN",
        Problem::TransactionsChanged { .. } => "TRANSACTIONS_CHANGED",
        Problem::TipDiffers { .. } => "TIP_DIFFERS",
        Problem::StateRootDiffers { .. } => "STATE_ROOT_DIFFERS",
        _ => "OTHER",
    }
}

/// The key that a problem names.
pub fn key_of(problem: &Problem) -> Option<&str> {
    match problem {
        Problem::RowChanged { key, .. }
        | Problem::RowMissing { key, .. }
        | Problem::RowCorrupt { key }
        | Problem::RowUnexplained { key } => Some(key),
        _ => None,
    }
}

/// What the node was found to have otherwise than its cluster.
fn render_divergences(divergences: &[Divergence]) -> String {
    let line = |found: &Divergence| {
        format!(
            "This node differed from its leader: {} {} at {}, here {}, there {}: {} {}\n",
            found.kind.as_str(),
            found.vault_name,
            found.position,
            hex::encode(found.own.digest),
            hex::encode(found.leader.digest),
            found.state.as_str(),
            found.reason,
        )
    };
    divergences.iter().map(line).collect()
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    for vault in &report.vaults {
        let verdict = if vault.problem_count == 0 { "ok " } else { "BAD" };
        text.push_str(&format!("{verdict}  {}  {} keys, {} blocks\n", vault.vault, vault.keys, vault.blocks));
        for problem in &vault.problems {
            text.push_str(&format!("     {problem}\n"));
        }
        let unlisted = vault.problem_count - vault.problems.len() as u64;
        if unlisted > 0 {
            text.push_str(&format!("     and {unlisted} more\n"));
        }
    }
    text.push_str(match (report.is_sound(), report.vaults.is_empty()) {
        (true, true) => "The ledger has no vaults.\n",
        (true, false) => "Every stored row, block and hash fits.\n",
        (false, _) => "The data was changed outside the ledger. Keep a copy as evidence. A server fences a \
                       vault whose state\ndoes not fit and serves the others; `strongroom ledger recover` makes its rows \
                       anew from whole blocks.\nDamaged blocks need a backup.\n",
    });
    text
}
