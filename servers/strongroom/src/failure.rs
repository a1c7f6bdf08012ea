//! What a command fails with, and the exit code that says so.

use std::process::ExitCode;

use ledger_client::{ClientError, ErrorCode};

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
    /// Whether the command has said everything on standard output already.
    pub silent: bool,
}

impl Failure {
    /// Any error.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), hint: None, silent: false }
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

    /// A file that could not be read or written.
    pub fn file(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
        Self::new(exit, "FILE", format!("cannot {action} {}: {error}", path.display()))
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
        Self { hint: error.hint(), ..Self::new(exit, error.reason(), message) }
    }
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
