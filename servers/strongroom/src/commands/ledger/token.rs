//! `strongroom ledger token …`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ledger_client::{TokenInfo, TokenRole};
use serde_json::json;

use super::get::extend;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token. Its secret is shown once.
    #[command(after_help = "Examples:\n  \
        strongroom ledger token create --role writer --scope acme/prod -o ci.token\n  \
        STRONGROOM_TOKEN_FILE=ci.token strongroom ledger put acme/prod build 1")]
    Create(Create),
    /// List tokens, without their secrets.
    #[command(after_help = "Example:\n  strongroom ledger token list")]
    List(List),
    /// Revoke a token: calls that carry it are refused from now on.
    #[command(after_help = "Example:\n  strongroom ledger token revoke 0123456789abcdef")]
    Revoke(Revoke),
}

/// What a token allows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Role {
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Everything inside its scope; namespaces, vaults and tokens need the scope *.
    Admin,
}

/// `token create`
#[derive(Debug, Args)]
pub struct Create {
    /// What the token allows.
    #[arg(long)]
    role: Role,
    /// Where: `*`, NAMESPACE or NAMESPACE/VAULT.
    #[arg(long)]
    scope: String,
    /// Whose writes they are: user:ID or client:ID. Default: client: and the id of the token.
    #[arg(long, default_value = "", hide_default_value = true)]
    actor: String,
    /// File to write the secret to, readable by its owner only. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// `token list`
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    server: ServerArgs,
}

/// `token revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// The token's id, 16 hex digits.
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl Token {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(output).await,
            Self::List(list) => {
                let tokens = list.server.client()?.tokens().await?;
                let document = json!({ "tokens": tokens.iter().map(record::token).collect::<Vec<_>>() });
                output.result(&document, || render(&tokens))
            }
            Self::Revoke(revoke) => {
                let token = revoke.server.client()?.revoke_token(&revoke.id).await?;
                output.result(&record::token(&token), || format!("revoked  {}  {}", token.id, token.actor))
            }
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let role = match self.role {
            Role::Reader => TokenRole::Reader,
            Role::Writer => TokenRole::Writer,
            Role::Admin => TokenRole::Admin,
        };
        let client = self.server.client()?;
        // The file first: a token whose secret cannot be kept must not be made.
        let file = self.output.as_deref().map(create_file).transpose()?;
        let minted = match client.create_token(role, &self.scope, &self.actor).await {
            Ok(minted) => minted,
            Err(error) => {
                if let Some(path) = &self.output {
                    // It is empty and ours; a leftover would only be in the way.
                    let _ = std::fs::remove_file(path);
                }
                return Err(error.into());
            }
        };
        let mut record = record::token(&minted.token);
        match (file, &self.output) {
            (Some(mut file), Some(path)) => {
                let written = writeln!(file, "{}", minted.secret).and_then(|()| file.sync_all());
                written.map_err(|error| Failure::file("write", path, &error))?;
                extend(&mut record, json!({ "token_file": path.display().to_string() }));
                output.result(&record, || format!("created  {}  in {}", minted.token.id, path.display()))
            }
            _ => {
                extend(&mut record, json!({ "token": minted.secret }));
                output.note(&format!("created {}. This is shown once:", minted.token.id));
                output.result(&record, || minted.secret.clone())
            }
        }
    }
}

fn create_file(path: &Path) -> Result<std::fs::File, Failure> {
    let opened = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    opened.map_err(|error| Failure::file("create", path, &error))
}

fn render(tokens: &[TokenInfo]) -> String {
    let row = |token: &TokenInfo| {
        let texts = [token.id.as_str(), token.role.as_str(), &token.scope, &token.actor].map(str::to_owned);
        let mut row = Vec::from(texts);
        row.push(table::time(token.created_at_ms));
        row
    };
    table::render(&["id", "role", "scope", "actor", "created"], &tokens.iter().map(row).collect::<Vec<_>>())
}
