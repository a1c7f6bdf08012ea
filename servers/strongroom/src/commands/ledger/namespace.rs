//! `strongroom ledger namespace …`

use clap::{Args, Subcommand};
use ledger_client::PageRequest;
use ledger_core::command::NamespaceInfo;
use ledger_core::names::NamespaceName;
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Namespace {
    /// Create a namespace.
    #[command(after_help = "Example:\n  strongroom ledger namespace create acme")]
    Create(One),
    /// List all namespaces.
    #[command(after_help = "Example:\n  strongroom ledger namespace list --json")]
    List(All),
    /// Show a namespace.
    #[command(after_help = "Example:\n  strongroom ledger namespace show acme")]
    Show(One),
    /// Delete an empty namespace.
    #[command(after_help = "Example:\n  strongroom ledger namespace delete acme")]
    Delete(One),
}

/// A command on one namespace.
#[derive(Debug, Args)]
pub struct One {
    /// Its name: 1 to 63 characters of a-z, 0-9, '.', '_', '-'.
    #[arg(value_parser = name)]
    name: NamespaceName,
    #[command(flatten)]
    server: ServerArgs,
}

/// A command on all.
#[derive(Debug, Args)]
pub struct All {
    #[command(flatten)]
    server: ServerArgs,
}

fn name(text: &str) -> Result<NamespaceName, String> {
    NamespaceName::new(text).map_err(|error| error.to_string())
}

impl Namespace {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(one) => {
                one_line(output, "created", &one.server.client()?.create_namespace(&one.name).await?)
            }
            Self::Delete(one) => {
                one_line(output, "deleted", &one.server.client()?.delete_namespace(&one.name).await?)
            }
            Self::Show(one) => {
                let namespace = one.server.client()?.namespace(&one.name).await?;
                let facts = || {
                    table::facts(&[
                        ("name", namespace.name.to_string()),
                        ("vaults", namespace.vault_count.to_string()),
                        ("created", table::time(namespace.created_at_ms)),
                    ])
                };
                output.result(&record::namespace(&namespace), facts)
            }
            Self::List(all) => list(&all.server, output).await,
        }
    }
}

fn one_line(output: Output, done: &str, namespace: &NamespaceInfo) -> Result<(), Failure> {
    output.result(&record::namespace(namespace), || format!("{done}  {}", namespace.name))
}

async fn list(server: &ServerArgs, output: Output) -> Result<(), Failure> {
    let client = server.client()?;
    let mut namespaces = Vec::new();
    let mut page = PageRequest { page_size: 1_000, page_token: String::new() };
    loop {
        let answer = client.namespaces(&page).await?;
        namespaces.extend(answer.items);
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    let document = json!({ "namespaces": namespaces.iter().map(record::namespace).collect::<Vec<_>>() });
    let row = |namespace: &NamespaceInfo| {
        vec![
            namespace.name.to_string(),
            namespace.vault_count.to_string(),
            table::time(namespace.created_at_ms),
        ]
    };
    output.result(&document, || {
        table::render(&["name", "vaults", "created"], &namespaces.iter().map(row).collect::<Vec<_>>())
    })
}
