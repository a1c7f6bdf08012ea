//! `strongroom ratelimit top`

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::RateLimitServer;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// List the keys that are denied most. Needs the admin token.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit top\n  \
    strongroom ratelimit top --count 100 --json --token-file admin.token")]
pub struct Top {
    /// How many.
    #[arg(short, long, default_value_t = 20, value_name = "N")]
    count: usize,
    #[command(flatten)]
    server: RateLimitServer,
}

impl Top {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let path = format!("/v1/top?count={}", self.count);
        let answer = self.server.ask(Method::GET, &path, None).await?;
        output.result(&json!({ "top": answer }), || {
            let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let rows: Vec<_> = rows.iter().map(cells).collect();
            table::render(&["denied", "domain", "key", "rule"], &rows)
        })
    }
}

fn cells(row: &Value) -> Vec<String> {
    let text = |value: &Value| table::cell(value.as_str().unwrap_or_default());
    let entries = row["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |entry: &Value| format!("{}={}", text(&entry["key"]), text(&entry["value"]));
    let key = entries.iter().map(entry).collect::<Vec<_>>().join(" ");
    // Counters are shared when there are too many keys: the real number is within these.
    let (most, over) = (row["denied"].as_u64().unwrap_or(0), row["overcount"].as_u64().unwrap_or(0));
    let denied = if over == 0 { most.to_string() } else { format!("{}–{most}", most.saturating_sub(over)) };
    vec![denied, text(&row["domain"]), key, text(&row["rule"])]
}
