//! What a call can fail with.

use std::time::Duration;

use ledger_core::transaction::{IdempotencyKey, TransactionError};
use ledger_verify::ProofError;
use ledger_verify::note::NoteError;
use tonic_types::StatusExt;

use crate::connector::NotConnected;
use crate::leader_hint::LeaderHint;
use crate::pins::PinError;

/// The kind of an error: what a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is malformed; the same request will fail again.
    InvalidArgument,
    /// The namespace, vault, token or height does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// A condition of the transaction, or of the call, does not hold. Nothing changed.
    ConditionFailed,
    /// The idempotency key is too old, too far ahead, or was used for something else.
    IdempotencyKey,
    /// No valid credential, or one that does not suffice.
    Unauthorized,
    /// The server has more work than it takes; it said when to come back.
    Overloaded,
    /// The ledger holds as many vaults, namespaces, tokens or keys as it may.
    LimitReached,
    /// Nobody answers, or the node does not serve now. A write may or may not have happened.
    Unavailable,
    /// No answer in time. A write may or may not have happened.
    DeadlineExceeded,
    /// A proof, a checkpoint or a pin did not hold: do not believe the answer.
    VerificationFailed,
    /// The answer has not the shape that the protocol requires.
    MalformedAnswer,
    /// Anything else: a fault of the server or of this machine.
    #[default]
    Internal,
}

impl ErrorCode {
    /// The code in capitals, as programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::ConditionFailed => "CONDITION_FAILED",
            Self::IdempotencyKey => "IDEMPOTENCY_KEY",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Overloaded => "OVERLOADED",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::VerificationFailed => "VERIFICATION_FAILED",
            Self::MalformedAnswer => "MALFORMED_ANSWER",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The options cannot work.
    #[error("{what}")]
    Options {
        /// What is wrong and what to give instead.
        what: String,
    },
    /// An argument breaks a limit of the ledger; nothing was sent.
    #[error("{what}")]
    Argument {
        /// What is wrong.
        what: String,
    },
    /// The transaction breaks a limit of the ledger; nothing was sent.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The server refused, or could not be reached.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer has not the shape that the protocol requires.
    #[error("the server's answer is malformed: {what}. Is this a Strongroom ledger of the same version?")]
    Answer {
        /// What is malformed.
        what: &'static str,
    },
    /// A proof did not hold.
    #[error("the proof is refused: {0}")]
    Proof(#[from] ProofError),
    /// A checkpoint was not signed by a trusted key.
    #[error("the checkpoint is refused: {0}")]
    Note(#[from] NoteError),
    /// The proof is sound, but is about something else than was asked.
    #[error("the proof is refused: it is about {found}, asked was {asked}")]
    OtherSubject {
        /// What was asked.
        asked: String,
        /// What the proof is about.
        found: String,
    },
    /// The ledger shows a history that contradicts the pinned one.
    #[error("{0}")]
    Fork(Box<Fork>),
    /// A block does not continue the one before it.
    #[error(
        "block {height} does not continue the block before it: the history was changed on its way or at the server"
    )]
    BrokenChain {
        /// Its height.
        height: u64,
    },
    /// The pins could not be read or written.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Other clients moved the pin at every try.
    #[error("the pin of the vault moved {tries} times while this call verified its answer: try again")]
    PinContention {
        /// Tries.
        tries: u32,
    },
    /// The system gave no random bytes for an idempotency key.
    #[error("the system has no randomness to offer: {0}")]
    Randomness(String),
    /// A task of this client was cancelled.
    #[error("the client's runtime stopped while it worked on the pins")]
    Stopped,
}

/// Two signed checkpoints of one vault of which neither extends the other: proof that its history was rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger shows a history that contradicts the one it showed before (pinned size {pinned_size}, now {received_size}): \
     {reason}. Both signed checkpoints are kept in {evidence}"
)]
pub struct Fork {
    /// Size of the pinned checkpoint.
    pub pinned_size: u64,
    /// Size of the checkpoint received now.
    pub received_size: u64,
    /// What does not fit.
    pub reason: String,
    /// Where both notes were written.
    pub evidence: String,
}

/// What the server said, or what the connection did.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind.
    pub code: ErrorCode,
    /// The server's reason in capitals, such as `VERSION_MISMATCH`; empty when it gave none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Index of the operation that failed.
    pub op_index: Option<u32>,
    /// Version of the key now; `None` when it does not exist or the error is another.
    pub current_version: Option<u64>,
    /// Value of the entity now, when it has at most 1 KiB.
    pub current_value: Option<Vec<u8>>,
    /// The ledger's time, when the error tells it, unix milliseconds.
    pub log_time_ms: Option<u64>,
    /// Idempotency keys with an earlier time are refused, when the error tells it, unix milliseconds.
    pub floor_ms: Option<u64>,
    /// The idempotency key of the write that failed: with it the write can be repeated safely.
    pub idempotency_key: Option<IdempotencyKey>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Tries that were made.
    pub tries: u32,
    /// Whether it is certain that this try changed nothing: it was not sent, or the node says so.
    pub nothing_happened: bool,
    /// Tries before this one that may have changed something.
    pub unknown_outcomes: u32,
    /// Where the node is that leads, when the node that answered does not and told so.
    pub leader_url: Option<String>,
    /// Raft term of its lead.
    pub leader_term: Option<u64>,
}

impl Refusal {
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ledger_proto::ERROR_DOMAIN);
        let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
        let field = |name: &str| info.and_then(|info| info.metadata.get(name));
        let hint = LeaderHint::from_header(status.metadata());
        // A status with a source was made on this side: the connection failed, whatever code tonic chose for it.
        let code = match status.code() {
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled
                if std::error::Error::source(status).is_some() =>
            {
                ErrorCode::Unavailable
            }
            code => code_of(code, &reason),
        };
        Self {
            code,
            message: message_of(status),
            op_index: field("op_index").and_then(|text| text.parse().ok()),
            current_version: field("current_version").and_then(|text| text.parse().ok()),
            current_value: field("current_value_base64").and_then(|text| decode_base64(text)),
            log_time_ms: field("log_time_ms").and_then(|text| text.parse().ok()),
            floor_ms: field("floor_ms").and_then(|text| text.parse().ok()),
            idempotency_key: None,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            tries: 0,
            nothing_happened: matches!(
                reason.as_str(),
                "NOT_LEADER" | "NO_LEADER" | "NOT_SERVING_YET" | "OVERLOADED"
            ) || was_not_sent(status),
            unknown_outcomes: 0,
            leader_url: hint.as_ref().map(|hint| hint.url.clone()).or_else(|| field("leader_url").cloned()),
            leader_term: hint
                .map(|hint| hint.term)
                .or_else(|| field("leader_term").and_then(|text| text.parse().ok())),
            reason,
        }
    }

    pub(crate) fn leader_hint(&self) -> Option<LeaderHint> {
        LeaderHint::new(self.leader_term?, self.leader_url.as_deref()?)
    }

    /// A stream that ended without a word.
    pub(crate) fn connection(message: &str) -> Self {
        Self { code: ErrorCode::Unavailable, message: message.to_owned(), ..Self::default() }
    }

    pub(crate) fn deadline(timeout: Duration) -> Self {
        Self {
            code: ErrorCode::DeadlineExceeded,
            message: format!("no answer within {} ms", timeout.as_millis()),
            ..Self::default()
        }
    }
}

/// Whether there was no connection to send anything over.
fn was_not_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.downcast_ref().is_some_and(NotConnected::is_cause_of) {
            return true;
        }
        source = cause.source();
    }
    false
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// tonic says "transport error" and keeps the cause in the source chain: people need the cause.
fn message_of(status: &tonic::Status) -> String {
    let mut message = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
        source = cause.source();
    }
    if message.is_empty() { status.code().description().to_owned() } else { message }
}

fn code_of(code: tonic::Code, reason: &str) -> ErrorCode {
    match reason {
        "OVERLOADED" => return ErrorCode::Overloaded,
        "IDEMPOTENCY_KEY_EXPIRED" | "IDEMPOTENCY_MISMATCH" | "IDEMPOTENCY_KEY_IN_FUTURE" => {
            return ErrorCode::IdempotencyKey;
        }
        "HEIGHT_UNAVAILABLE" => return ErrorCode::NotFound,
        _ => {}
    }
    match code {
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => ErrorCode::InvalidArgument,
        tonic::Code::NotFound => ErrorCode::NotFound,
        tonic::Code::AlreadyExists => ErrorCode::AlreadyExists,
        tonic::Code::FailedPrecondition | tonic::Code::Aborted => ErrorCode::ConditionFailed,
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => ErrorCode::Unauthorized,
        // Without a reason it is a limit of the transport, such as too many calls at once.
        tonic::Code::ResourceExhausted if reason.is_empty() => ErrorCode::Overloaded,
        tonic::Code::ResourceExhausted => ErrorCode::LimitReached,
        tonic::Code::Unavailable => ErrorCode::Unavailable,
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => ErrorCode::DeadlineExceeded,
        _ => ErrorCode::Internal,
    }
}

impl ClientError {
    /// The kind of the error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Options { .. } | Self::Argument { .. } | Self::Transaction(_) => ErrorCode::InvalidArgument,
            Self::Refused(refusal) => refusal.code,
            Self::Answer { .. } => ErrorCode::MalformedAnswer,
            Self::Proof(_)
            | Self::Note(_)
            | Self::OtherSubject { .. }
            | Self::BrokenChain { .. }
            | Self::Fork(_) => ErrorCode::VerificationFailed,
            Self::Pin(_) | Self::PinContention { .. } | Self::Randomness(_) | Self::Stopped => {
                ErrorCode::Internal
            }
        }
    }

    /// The server's reason in capitals, or the kind when it gave none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) if !refusal.reason.is_empty() => &refusal.reason,
            // The server's name for the same.
            Self::Transaction(TransactionError::TooLarge { .. }) => "TRANSACTION_TOO_LARGE",
            Self::Fork(_) => "FORK",
            _ => self.code().as_str(),
        }
    }

    /// The refusal with all that the server said, when it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Fork(_) => {
                "keep the evidence, show it to the ledger's operator, and compare with other clients"
            }
            Self::Note(_) | Self::Proof(ProofError::Note(_)) => {
                "the key is not the pinned or given one: when the log key was rotated on purpose, name the new key (--vkey)"
            }
            Self::Proof(_) | Self::OtherSubject { .. } | Self::BrokenChain { .. } => {
                "do not believe this answer; ask another node and check the ledger"
            }
            Self::Refused(refusal) => return refusal.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        // A fenced vault takes nothing: only an earlier try may have.
        let may_have_happened = self.reason != "VAULT_DIVERGED" || self.unknown_outcomes > 0;
        if let (Some(key), ErrorCode::Unavailable | ErrorCode::DeadlineExceeded, true) =
            (self.idempotency_key, self.code, may_have_happened)
        {
            let safe =
                format!("the write may or may not have happened: repeat it with --idempotency-key {key}");
            return Some(match tls_hint(&self.message) {
                Some(tls) => format!("{tls}; {safe}"),
                None => safe,
            });
        }
        let hint = match (self.reason.as_str(), self.code) {
            ("VAULT_NOT_FOUND", _) => "create it: strongroom ledger vault create NAMESPACE/VAULT",
            ("NAMESPACE_NOT_FOUND", _) => "create it: strongroom ledger namespace create NAMESPACE",
            ("KEY_EXISTS" | "KEY_NOT_FOUND" | "VERSION_MISMATCH" | "VALUE_MISMATCH", _) => {
                "nothing changed: read the key again, then decide"
            }
            ("IDEMPOTENCY_KEY_EXPIRED", _) => "read the state first, then write with a new key",
            ("IDEMPOTENCY_MISMATCH", _) => "one key stands for one transaction: use a new key for another",
            ("IDEMPOTENCY_KEY_IN_FUTURE", _) => "check this machine's clock, or let the client make the key",
            ("VAULT_DIVERGED", _) => {
                "an administrator checks and recovers it: strongroom ledger integrity NS/VAULT --full, \
                 strongroom ledger recover NS/VAULT"
            }
            ("LAST_ADMIN_TOKEN", _) => "create another admin token first",
            ("NO_LEADER" | "NOT_LEADER", _) => {
                "the nodes elect a leader, or too few of them run: look at strongroom ledger cluster status"
            }
            (_, ErrorCode::Unauthorized) => {
                "name a token file with --token-file or STRONGROOM_TOKEN_FILE whose role and scope suffice"
            }
            (_, ErrorCode::Unavailable) => tls_hint(&self.message)
                .unwrap_or("is the server running? Name it with --url or STRONGROOM_LEDGER_URL"),
            (_, ErrorCode::DeadlineExceeded) => {
                "the server is slow or stuck: look at its log and its metrics"
            }
            (_, ErrorCode::Overloaded) => "the server has more work than it takes: try again later",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// What to do about a connection that failed for its TLS, by what the connection said; `None` for other causes.
/// The texts are those of rustls and h2: neither gives more than text through the layers above it.
pub fn tls_hint(message: &str) -> Option<&'static str> {
    const HINTS: &[(&str, &str)] = &[
        (
            "UnknownIssuer",
            "another authority signed the server's certificate: name its PEM file with --tls-ca",
        ),
        (
            "not valid for name",
            "the server's certificate has another name: use that name in the URL, or --tls-server-name",
        ),
        (
            "invalid peer certificate",
            "the server's certificate is refused: look at its dates and at --tls-ca",
        ),
        (
            "CertificateRequired",
            "the server asks for a client certificate: name it with --tls-cert and --tls-key",
        ),
        (
            "received fatal alert",
            "the server refused the TLS connection: is the client certificate (--tls-cert, --tls-key) one that it trusts?",
        ),
        ("InvalidContentType", "the server speaks no TLS at this address: try http://"),
        ("frame with invalid size", "the server may speak TLS at this address: try https:// and --tls-ca"),
        (
            "broken pipe",
            "the server closed the connection: it may speak TLS at this address (try https:// and --tls-ca), or be ending",
        ),
        (
            "connection closed",
            "the server closed the connection: it may be ending, or ask for a client certificate that it trusts \
             (--tls-cert, --tls-key)",
        ),
    ];
    HINTS.iter().find(|(said, _)| message.contains(said)).map(|(_, hint)| *hint)
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
