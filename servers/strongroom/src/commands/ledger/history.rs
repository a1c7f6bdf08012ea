//! `strongroom ledger history`

use clap::Args;
use ledger_client::{Consistency, HistorySubject, PageRequest};
use ledger_core::entity::EntityKey;
use ledger_core::ledger_state::{KeyChange, KeyVersion};
use ledger_core::names::VaultRef;
use serde_json::json;

use super::proof::tuple;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// Versions on one page of the protocol.
const PAGE_VERSIONS_MAX: usize = 1_000;
/// Characters of a value that a person is shown.
const SHOWN_CHARACTERS_MAX: usize = 48;

/// Show the versions of a key, newest first: what each transaction did to it. Not verified; `get --at HEIGHT --verify`
/// proves what it held at a block. Exit code 3 when there is none.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger history acme/prod door:front\n  \
    strongroom ledger history acme/prod --check doc:plan viewer user:ada --json")]
pub struct History {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(value_parser = super::entity_key, required_unless_present = "check", conflicts_with = "check")]
    key: Option<EntityKey>,
    /// A relationship instead of a key.
    #[arg(long, num_args = 3, value_names = ["RESOURCE", "RELATION", "SUBJECT"])]
    check: Option<Vec<String>>,
    /// Most versions to show.
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// Read what the node has, without asking whether it is the newest.
    #[arg(long)]
    eventual: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl History {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let subject = match (self.key, &self.check) {
            (Some(key), _) => HistorySubject::Entity(key),
            (None, Some(words)) => HistorySubject::Relationship(tuple(words)?),
            (None, None) => return Err(Failure::usage("give a key, or --check RESOURCE RELATION SUBJECT")),
        };
        let consistency = if self.eventual { Consistency::Eventual } else { Consistency::Linearizable };
        let client = self.server.client()?;
        let mut versions: Vec<KeyVersion> = Vec::new();
        let mut page = PageRequest::default();
        let (more, cut_at) = loop {
            let room = self.limit.saturating_sub(versions.len()).min(PAGE_VERSIONS_MAX);
            // Never more than the limit above.
            page.page_size = u32::try_from(room.max(1)).unwrap_or(1);
            let answer = client.history(&self.vault, &subject, &page, consistency).await?.value;
            versions.extend(answer.versions);
            page.page_token = answer.next_page_token;
            if page.page_token.is_empty() || versions.len() >= self.limit {
                break (!page.page_token.is_empty(), answer.cut_at);
            }
        };
        if versions.is_empty() {
            let kept = cut_at.map(|first| format!(" from block {first} on")).unwrap_or_default();
            return Err(Failure::not_found(format!("there is no version of it{kept}")));
        }
        let document = json!({
            "versions": versions.iter().map(record::version).collect::<Vec<_>>(),
            "more": more,
            "cut_at": cut_at,
            "verified": false,
        });
        output.result(&document, || shown(&versions))?;
        if let Some(first) = cut_at {
            output.note(&format!("versions before block {first} are not kept"));
        }
        if more {
            output.note("there are older versions: raise --limit");
        }
        Ok(())
    }
}

fn shown(versions: &[KeyVersion]) -> String {
    let row = |version: &KeyVersion| {
        let value = match &version.change {
            KeyChange::Set { value, .. } => shown_value(value),
            _ => String::new(),
        };
        vec![
            version.height.to_string(),
            version.version.to_string(),
            table::time(version.time_ms),
            version.actor.clone(),
            record::change_name(&version.change).to_lowercase(),
            value,
        ]
    };
    let rows: Vec<_> = versions.iter().map(row).collect();
    table::render(&["block", "version", "time", "actor", "change", "value"], &rows)
}

fn shown_value(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => {
            let mut shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            shown
        }
        _ => format!("({} bytes)", value.len()),
    }
}
