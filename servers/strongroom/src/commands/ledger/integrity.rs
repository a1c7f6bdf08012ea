//! `strongroom ledger integrity`

use clap::Args;
use ledger_client::{IntegrityDepth, IntegrityReport, LedgerClient, PageRequest};
use ledger_core::names::VaultRef;
use serde_json::{Value, json};

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Check that what is stored of a vault is what its blocks say. Reads and writes go on meanwhile; a vault whose state
/// is found wrong is fenced. Needs a token with the role admin. Exit code 5 when something does not fit.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger integrity acme/prod\n  \
    strongroom ledger integrity --all --full")]
pub struct Integrity {
    /// NAMESPACE/VAULT.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    vault: Option<VaultRef>,
    /// Every vault.
    #[arg(long)]
    all: bool,
    /// Replay every block and compare every row, instead of the newest blocks and the roots.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Integrity {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.server.client_of_named_node()?;
        let vaults = match self.vault {
            Some(vault) => vec![vault],
            None => all_vaults(&client).await?,
        };
        let depth = if self.full { IntegrityDepth::Full } else { IntegrityDepth::Quick };
        let mut reports = Vec::with_capacity(vaults.len());
        for vault in vaults {
            let report = client.check_integrity(&vault, depth).await?;
            reports.push((vault, report));
        }
        let sound = reports.iter().all(|(_, report)| report.issue_count == 0);
        let document = json!({ "sound": sound, "vaults": reports.iter().map(record).collect::<Vec<_>>() });
        output.result(&document, || reports.iter().map(render).collect::<String>())?;
        if sound {
            Ok(())
        } else {
            Err(Failure { silent: true, ..Failure::verification("the stored data does not fit its blocks") })
        }
    }
}

async fn all_vaults(client: &LedgerClient) -> Result<Vec<VaultRef>, Failure> {
    let mut vaults = Vec::new();
    let mut page = PageRequest { page_size: 1_000, page_token: String::new() };
    loop {
        let answer = client.vaults(None, &page).await?;
        vaults.extend(answer.items.into_iter().map(|vault| vault.vault));
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            return Ok(vaults);
        }
    }
}

fn record((vault, report): &(VaultRef, IntegrityReport)) -> Value {
    let issues = report.issues.iter();
    let issues =
        issues.map(|issue| json!({ "kind": issue.kind, "height": issue.height, "what": issue.what }));
    json!({
        "vault": vault.to_string(),
        "height": report.height,
        "blocks": report.blocks,
        "rows": report.rows,
        "fenced": report.fenced,
        "issue_count": report.issue_count,
        "issues": issues.collect::<Vec<_>>(),
    })
}

fn render((vault, report): &(VaultRef, IntegrityReport)) -> String {
    let verdict = if report.issue_count == 0 { "ok " } else { "BAD" };
    let fenced = if report.fenced { "  FENCED" } else { "" };
    // A quick check compares no rows.
    let rows = match report.rows {
        0 => String::new(),
        rows => format!(", {rows} rows compared"),
    };
    let mut text = format!("{verdict}  {vault}  {} blocks{rows}{fenced}\n", report.blocks);
    for issue in &report.issues {
        text.push_str(&format!("     {}  block {}: {}\n", issue.kind, issue.height, issue.what));
    }
    let unlisted = report.issue_count - report.issues.len() as u64;
    if unlisted > 0 {
        text.push_str(&format!("     and {unlisted} more\n"));
    }
    text
}
