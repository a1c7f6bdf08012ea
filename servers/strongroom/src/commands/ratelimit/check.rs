//! `strongroom ratelimit check`

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::client::RateLimitServer;
use super::{Entry, descriptors};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::table;

/// Members of an answer; a denial is told as a problem document that has others too.
const MEMBERS: [&str; 7] =
    ["allowed", "limit", "remaining", "retry_after_ms", "reset_after_ms", "rule", "statuses"];

/// Ask whether a request may go, and charge it. Exit code 4 when it may not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit check demo client_ip=203.0.113.9\n  \
    strongroom ratelimit check shop path=/login client_ip=203.0.113.9 --hits 0   take nothing\n  \
    strongroom ratelimit check demo client_ip=203.0.113.9 --json")]
pub struct Check {
    /// Whose rules are asked.
    domain: String,
    /// Entries of one descriptor, in the order of the rules.
    #[arg(required = true, value_name = "KEY=VALUE")]
    entries: Vec<Entry>,
    /// What the request costs; 0 asks whether anything is left, and takes nothing.
    #[arg(long, default_value_t = 1, value_name = "N")]
    hits: u64,
    #[command(flatten)]
    server: RateLimitServer,
}

impl Check {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let body =
            json!({ "domain": self.domain, "descriptors": descriptors(&self.entries), "hits": self.hits });
        let answer = self.server.ask(Method::POST, "/v1/check", Some(&body)).await?;
        let members = MEMBERS.iter().map(|name| ((*name).to_owned(), answer[*name].clone()));
        let record = Value::Object(members.collect::<Map<_, _>>());
        output.result(&record, || facts(&record))?;
        if record["allowed"] == true {
            return Ok(());
        }
        let denied = Failure::new(Exit::ConditionFailed, "DENIED", "the request may not go");
        Err(Failure { silent: true, ..denied })
    }
}

fn facts(record: &Value) -> String {
    let word = if record["allowed"] == true { "allowed" } else { "denied" };
    if record["rule"].is_null() {
        return format!("{word}  no rule matches\n");
    }
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => table::cell(text),
        other => other.to_string(),
    };
    let wait = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    table::facts(&[
        ("answer", word.to_owned()),
        ("rule", text(&record["rule"])),
        ("limit", text(&record["limit"])),
        ("remaining", text(&record["remaining"])),
        ("retry after", wait(&record["retry_after_ms"])),
        ("reset after", wait(&record["reset_after_ms"])),
    ])
}
