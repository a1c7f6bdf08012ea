//! `strongroom ledger vault …`

use clap::{Args, Subcommand};
use ledger_client::PageRequest;
use ledger_core::command::Retention;
use ledger_core::names::{NamespaceName, VaultRef};
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Vault {
    /// Create a vault; its namespace must exist.
    #[command(after_help = "Examples:\n  \
        strongroom ledger vault create acme/prod\n  \
        strongroom ledger vault create acme/metrics --retention compacted:10000")]
    Create(New),
    /// List the vaults of a namespace, or of all.
    #[command(after_help = "Example:\n  strongroom ledger vault list acme")]
    List(All),
    /// Show a vault.
    #[command(after_help = "Example:\n  strongroom ledger vault show acme/prod")]
    Show(One),
    /// Show or change how much of its past a vault keeps. What is dropped does not come back.
    #[command(after_help = "Examples:\n  \
        strongroom ledger vault retention acme/prod\n  \
        strongroom ledger vault retention acme/prod compacted:10000")]
    Retention(Keep),
    /// Delete a vault with all that it holds. There is no way back.
    #[command(after_help = "Example:\n  strongroom ledger vault delete acme/prod")]
    Delete(One),
}

/// A command on one vault.
#[derive(Debug, Args)]
pub struct One {
    /// NAMESPACE/VAULT, each 1 to 63 characters of a-z, 0-9, '.', '_', '-'.
    vault: VaultRef,
    #[command(flatten)]
    server: ServerArgs,
}

/// A new vault.
#[derive(Debug, Args)]
pub struct New {
    #[command(flatten)]
    one: One,
    /// What to keep of its past: `full`, or `compacted:N` for the transactions and earlier states of the newest N
    /// blocks. Headers and proofs of inclusion are kept for ever.
    #[arg(long, default_value = "full", value_name = "RETENTION")]
    retention: Retention,
}

/// How much to keep.
#[derive(Debug, Args)]
pub struct Keep {
    #[command(flatten)]
    one: One,
    /// `full` or `compacted:N`. Without it the present one is shown.
    retention: Option<Retention>,
}

/// A command on many.
#[derive(Debug, Args)]
pub struct All {
    /// Only those of this namespace.
    #[arg(value_parser = name)]
    namespace: Option<NamespaceName>,
    #[command(flatten)]
    server: ServerArgs,
}

fn name(text: &str) -> Result<NamespaceName, String> {
    NamespaceName::new(text).map_err(|error| error.to_string())
}

impl Vault {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(New { one, retention }) => {
                let vault = one.server.client()?.create_vault_retaining(&one.vault, retention).await?;
                output.result(&record::vault(&vault), || format!("created  {}  id {}", vault.vault, vault.id))
            }
            Self::Retention(Keep { one, retention }) => {
                let client = one.server.client()?;
                let vault = match retention {
                    Some(retention) => client.set_retention(&one.vault, retention).await?,
                    None => client.vault(&one.vault).await?,
                };
                output.result(&record::vault(&vault), || {
                    format!(
                        "{}  {}  readable from block {} of {}",
                        vault.vault, vault.retention, vault.first_height, vault.height
                    )
                })
            }
            Self::Delete(one) => {
                let vault = one.server.client()?.delete_vault(&one.vault).await?;
                output.result(&record::vault(&vault), || {
                    format!(
                        "deleted  {}  with {} keys in {} blocks",
                        vault.vault,
                        vault.key_count,
                        vault.height + 1
                    )
                })
            }
            Self::Show(one) => show(&one.server.client()?.vault(&one.vault).await?, output),
            Self::List(all) => list(&all, output).await,
        }
    }
}

fn show(vault: &ledger_client::Vault, output: Output) -> Result<(), Failure> {
    output.result(&record::vault(vault), || {
        let mut facts = vec![
            ("vault", vault.vault.to_string()),
            ("id", vault.id.to_string()),
            (
                "keys",
                vault.fence.as_ref().map_or_else(|| vault.key_count.to_string(), |_| "unknown".to_owned()),
            ),
            ("version", vault.version.to_string()),
            ("height", vault.height.to_string()),
            ("block hash", hex::encode(vault.block_hash)),
            ("state root", hex::encode(vault.state_root)),
            ("created", table::time(vault.created_at_ms)),
            ("origin", vault.origin.clone()),
            ("retention", vault.retention.to_string()),
            ("readable from", vault.first_height.to_string()),
        ];
        if let Some(fence) = &vault.fence {
            let since = table::time(fence.since_ms);
            facts.push(("FENCED", format!("since {since}: {} (block {})", fence.what, fence.height)));
        }
        table::facts(&facts)
    })
}

async fn list(all: &All, output: Output) -> Result<(), Failure> {
    let client = all.server.client()?;
    let mut vaults = Vec::new();
    let mut page = PageRequest { page_size: 1_000, page_token: String::new() };
    loop {
        let answer = client.vaults(all.namespace.as_ref(), &page).await?;
        vaults.extend(answer.items);
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    let document = json!({ "vaults": vaults.iter().map(record::vault).collect::<Vec<_>>() });
    let row = |vault: &ledger_client::Vault| {
        let counts = [vault.key_count, vault.version, vault.height].map(|number| number.to_string());
        let mut row = vec![vault.vault.to_string()];
        row.extend(counts);
        row.push(table::time(vault.created_at_ms));
        row
    };
    output.result(&document, || {
        let rows: Vec<_> = vaults.iter().map(row).collect();
        table::render(&["vault", "keys", "version", "height", "created"], &rows)
    })
}
