//! What goes to standard output and standard error, for people or for programs.

use std::io::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::commands::ledger::get::extend;
use crate::failure::{Exit, Failure};

/// How a command speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For programs when `json`, for people otherwise.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read it.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result: the value for programs, the text for people.
    pub fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json_line(value) } else { self.text(&text()) }
    }

    /// One JSON object on one line.
    pub fn json_line(self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value)
            .map_err(|error| Failure::error(format!("cannot encode JSON: {error}")))?;
        self.text(&line)
    }

    /// A text, ended by one line end.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let ended = text.is_empty() || text.ends_with('\n');
        let end: &[u8] = if ended { b"" } else { b"\n" };
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.write_all(end))
            .and_then(|()| stdout.flush())
            .map_err(|error| gone(&error))
    }

    /// Bytes as they are.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| gone(&error))
    }

    /// A remark for people, on standard error.
    pub fn note(self, text: &str) {
        if !self.json {
            // A remark that nobody reads any more is no failure.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// The error, on standard error.
    pub fn failure(self, failure: &Failure) {
        if failure.silent {
            return;
        }
        let text = if self.json {
            let mut error = json!({ "code": failure.code, "message": failure.message, "hint": failure.hint });
            extend(&mut error, failure.details.clone().into());
            json!({ "error": error }).to_string()
        } else {
            let hint = failure.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            format!("error: {}{hint}", failure.message.trim_start_matches("error: "))
        };
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

fn gone(error: &std::io::Error) -> Failure {
    Failure {
        silent: error.kind() == std::io::ErrorKind::BrokenPipe,
        ..Failure::new(Exit::Error, "OUTPUT", error.to_string())
    }
}
