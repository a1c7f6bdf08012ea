//! `strongroom ratelimit rules …`

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use ratelimit_core::Enforcement;
use ratelimit_core::rules::OnFailure;
use ratelimit_rules::RuleView;
use ratelimit_server::ServersError;
use ratelimit_server::rule_files::{PRESETS, RuleFiles, RulesError};
use ratelimit_server::rule_trial;
use ratelimit_server::settings::{EngineChoice, KEYS_DEFAULT, KEYS_MAX};
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
    /// Print a rule file to begin with: limits for an API, and for what guards accounts.
    Preset(Preset),
    /// List the rules that a running server enforces, and what they have decided. Needs the admin token.
    List(List),
}

/// Read rule files as a server would, and print what they mean. Exit code 2, with file and line, when they cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit rules validate rules.yaml\n  \
    strongroom ratelimit rules validate shop.yaml partners.toml --json\n  \
    strongroom ratelimit rules validate rules.yaml --engine redb:counters.db    what that server would refuse")]
pub struct Validate {
    /// Files in YAML, or in TOML when their names end in `.toml`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For a server with this engine: `memory` or `redb:FILE`. The file is neither made nor opened.
    #[arg(long, value_name = "ENGINE", default_value = "memory", value_parser = engine)]
    engine: EngineChoice,
    /// For a server with room for so many live keys in each rule: says what they take where the counters are in memory.
    #[arg(long, value_name = "N", default_value_t = KEYS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,
}

fn engine(text: &str) -> Result<EngineChoice, String> {
    EngineChoice::read(text).ok_or_else(|| "write memory, or redb: and the path of a file".to_owned())
}

/// Print a rule file to begin with: 60 a minute and 20 at once for each address, 1000 a minute for each API key, 10 a minute
/// without one; login 100 an hour, registration 5 a day, verification 5 an hour, password reset 3 an hour.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ratelimit rules preset -o rules.yaml\n  \
    strongroom ratelimit serve --rules rules.yaml\n  \
    strongroom ratelimit check accounts action=login client_ip=203.0.113.9")]
pub struct Preset {
    /// File to write. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
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
        let read = RuleFiles::new(self.files).read().map_err(|error| refused(&error.into()))?;
        let warnings: Vec<String> = read.idle.iter().map(ToString::to_string).collect();
        let trial =
            rule_trial::put_in_force(read, &self.engine, self.keys).map_err(|error| refused(&error))?;
        let records: Vec<Value> = trial.rules.iter().map(record).collect();
        let room = trial.room_bytes;
        warnings.iter().for_each(|warning| output.note(&format!("warning: {warning}")));
        if let Some(bytes) = room {
            output.note(&format!(
                "the counters take up to {} MiB, when all {} keys of each rule are used",
                bytes.div_ceil(1 << 20),
                self.keys
            ));
        }
        let document = json!({ "valid": true, "rules": records, "warnings": warnings, "room_bytes": room });
        output.result(&document, || {
            let cells = |rule: &Value| {
                let text = |name: &str| table::cell(rule[name].as_str().unwrap_or("-"));
                ["path", "name", "limit", "algorithm", "enforcement", "on_failure"].map(text).to_vec()
            };
            let rows: Vec<_> = records.iter().map(cells).collect();
            table::render(&["rule", "name", "limit", "algorithm", "enforcement", "on failure"], &rows)
        })
    }
}

impl Preset {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let Some(path) = &self.output else { return output.text(PRESETS.text) };
        let write = || {
            let mut file = std::fs::File::create_new(path)?;
            file.write_all(PRESETS.text.as_bytes())
        };
        write().map_err(|error: std::io::Error| Failure::file("write", path, &error))?;
        let file = path.display().to_string();
        output.result(&json!({ "file": file }), || format!("wrote {file}"))
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
fn refused(error: &ServersError) -> Failure {
    let failure = Failure::new(Exit::Usage, "RULES", error.to_string());
    let at = |file: &str, line: usize| json!({ "file": file, "line": line });
    match error {
        ServersError::Rules(RulesError::File(error)) => failure.with_details(at(&error.file, error.line)),
        ServersError::Rules(RulesError::Rule { file, line, .. }) => failure.with_details(at(file, *line)),
        ServersError::Rules(RulesError::Unreadable { path, source }) => Failure::file("read", path, source),
        _ => failure,
    }
}
