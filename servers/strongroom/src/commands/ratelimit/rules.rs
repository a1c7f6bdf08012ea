//! `strongroom ratelimit rules …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use ratelimit_core::rules::{OnFailure, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, TableSize};
use ratelimit_rules::{Engine, RuleView};
use ratelimit_server::rule_files::{RuleFiles, RulesError};
use serde_json::{Value, json};

use super::client::RateLimitServer;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::table;

/// `strongroom ratelimit rules …`
#[derive(Debug, Subcommand)]
pub enum Rules {
    /// Read rule files as a server would, and print what they mean.
    Validate(Validate),
    /// List the rules that a running server enforces, and what they have decided. Needs the admin token.
    List(List),
}

/// Read rule files as a server would, and print what they mean. Exit code 2, with file and line, when they cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit rules validate rules.yaml\n  \
    strongroom ratelimit rules validate shop.yaml partners.toml --json")]
pub struct Validate {
    /// Files in YAML, or in TOML when their names end in `.toml`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// List the rules that a running server enforces, and what they have decided. Needs the admin token.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit rules list\n  \
    strongroom ratelimit rules list --url http://127.0.0.1:8080 --token-file admin.token")]
pub struct List {
    #[command(flatten)]
    server: RateLimitServer,
}

impl Validate {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let rules = RuleFiles::new(self.files).read().map_err(|error| refused(&error))?;
        let rules = views(rules)?;
        let records: Vec<Value> = rules.iter().map(record).collect();
        output.result(&json!({ "valid": true, "rules": records }), || {
            let cells = |rule: &Value| {
                let text = |name: &str| table::cell(rule[name].as_str().unwrap_or("-"));
                ["path", "name", "limit", "algorithm", "enforcement", "on_failure"].map(text).to_vec()
            };
            let rows: Vec<_> = records.iter().map(cells).collect();
            table::render(&["rule", "name", "limit", "algorithm", "enforcement", "on failure"], &rows)
        })
    }
}

impl List {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let answer = self.server.ask(Method::GET, "/v1/rules", None).await?;
        output.result(&json!({ "rules": answer }), || {
            let rules = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let cells = |rule: &Value| {
                let text = |name: &str| table::cell(rule[name].as_str().unwrap_or("-"));
                let number = |name: &str| rule[name].as_u64().unwrap_or(0).to_string();
                let mut cells = ["path", "limit", "algorithm", "enforcement"].map(text).to_vec();
                cells.extend(["allowed", "denied"].map(number));
                cells
            };
            let rows: Vec<_> = rules.iter().map(cells).collect();
            table::render(&["rule", "limit", "algorithm", "enforcement", "allowed", "denied"], &rows)
        })
    }
}

/// As an engine lists them: what it would refuse is refused here too.
fn views(rules: RuleSet) -> Result<Vec<RuleView>, Failure> {
    let smallest = TableSize { keys: 1, sketch_bytes: 0 };
    let engine = Engine::new(rules, smallest, HashSecret([0; 16]));
    Ok(engine.map_err(|error| refused(&error.into()))?.rules())
}

fn record(rule: &RuleView) -> Value {
    json!({
        "path": rule.path,
        "name": rule.name,
        "limit": rule.limit,
        "algorithm": rule.algorithm,
        "enforcement": match rule.enforcement {
            Enforcement::Enforced => "enforced",
            Enforcement::Shadow => "shadow",
            Enforcement::Quota => "quota",
        },
        "on_failure": match rule.on_failure {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
            OnFailure::LocalShare => "local_share",
        },
    })
}

/// The message begins with file and line.
fn refused(error: &RulesError) -> Failure {
    let failure = Failure::new(Exit::Usage, "RULES", error.to_string());
    match error {
        RulesError::File(error) => failure.with_details(json!({ "file": error.file, "line": error.line })),
        RulesError::Unreadable { path, source } => Failure::file("read", path, source),
        _ => failure,
    }
}
