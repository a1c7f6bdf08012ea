//! What a command fails with, and the exit code that says so.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger_client::{ClientError, ErrorCode, Refusal};
use serde_json::{Map, Value};

/// The exit codes of the program; part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Error = 1,
    /// The command line or a file given on it is wrong.
    Usage = 2,
    /// It does not exist.
    NotFound = 3,
    /// A condition does not hold, or a check is denied.
    ConditionFailed = 4,
    /// A proof is refused.
    VerificationFailed = 5,
    /// No credential, or one that does not suffice.
    NotAuthorized = 6,
    /// Nobody answers.
    Unavailable = 7,
}

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// In capitals, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// More facts for programs: fields of the error object.
    pub details: Map<String, Value>,
    /// Whether the command has said everything on standard output already.
    pub silent: bool,
}

impl Failure {
    /// Any error.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            details: Map::new(),
            silent: false,
        }
    }

    /// A fault of this machine or of the data.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, "ERROR", message)
    }

    /// A wrong command line or file.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, "NOT_FOUND", message)
    }

    /// A proof that is refused.
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(Exit::VerificationFailed, "VERIFICATION_FAILED", message)
    }

    /// A check that was answered with no: the answer stands on standard output.
    pub fn denied() -> Self {
        Self { silent: true, ..Self::new(Exit::ConditionFailed, "DENIED", "the relationship does not exist") }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with more facts for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        if let Value::Object(details) = details {
            self.details.extend(details);
        }
        self
    }

    /// A file of this machine that could not be read or written. Exit code 3 is for what a ledger does not hold.
    pub fn file(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let path = path.display();
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("cannot {action} {path}: it does not exist ({error})"),
            _ => format!("cannot {action} {path}: {error}"),
        };
        Self::new(Exit::Error, "FILE", message)
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error.code() {
            ErrorCode::InvalidArgument => Exit::Usage,
            ErrorCode::NotFound => Exit::NotFound,
            // Other preconditions, such as an empty namespace, are no conditions of the caller's.
            ErrorCode::ConditionFailed
                if error.refusal().is_some_and(|refusal| refusal.op_index.is_some()) =>
            {
                Exit::ConditionFailed
            }
            ErrorCode::VerificationFailed => Exit::VerificationFailed,
            ErrorCode::Unauthorized => Exit::NotAuthorized,
            ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Overloaded => Exit::Unavailable,
            _ => Exit::Error,
        };
        let mut message = error.to_string();
        if let Some(version) = error.refusal().and_then(|refusal| refusal.current_version) {
            message = format!("{message} (the version now is {version})");
        }
        let details = error.refusal().map(details).unwrap_or_default();
        Self { hint: error.hint(), details, ..Self::new(exit, error.reason(), message) }
    }
}

/// What a program needs to decide after a condition that did not hold.
fn details(refusal: &Refusal) -> Map<String, Value> {
    let mut details = Map::new();
    let Some(op_index) = refusal.op_index else { return details };
    details.insert("op_index".to_owned(), op_index.into());
    // Null when there is nothing now.
    details.insert("current_version".to_owned(), refusal.current_version.into());
    if let Some(value) = &refusal.current_value {
        details.insert("current_value_base64".to_owned(), STANDARD.encode(value).into());
    }
    details
}

/// An error with its causes, each said once: some messages hold their cause's already.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
