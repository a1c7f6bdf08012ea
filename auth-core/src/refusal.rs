//! Refusals: one face for clients, a reason for the log.

use std::fmt;

use crate::records::EndReason;

/// Why somebody was not let in. For logs and metrics: a client that learnt it would learn about others' sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The text is no token.
    Malformed,
    /// No such token was made, or what it was for has long ended.
    Unknown,
    /// Not used for too long.
    ExpiredIdle,
    /// Too old.
    ExpiredAbsolute,
    /// Ended.
    Ended(EndReason),
    /// All sessions of the user were ended since.
    Epoch,
    /// The user is disabled.
    UserDisabled,
    /// There is no such user.
    UserUnknown,
    /// A refresh token that had been exchanged before. What it was for has been ended.
    Reused,
    /// No such address, or not its password.
    Credentials,
    /// Nobody has verified the address yet, or somebody else has.
    Unverified,
}

/// Somebody was not let in. What it shows is the same whatever the reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refusal(RefusalReason);

impl Refusal {
    /// For logs and metrics, not for the client.
    pub fn reason(self) -> RefusalReason {
        self.0
    }
}

impl From<RefusalReason> for Refusal {
    fn from(reason: RefusalReason) -> Self {
        Self(reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not signed in")
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Refusal {}

/// What became of a request that was decided. A refusal is no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Answer<T> {
    /// It was done.
    Granted(T),
    /// It was not.
    Refused(Refusal),
}

impl<T> Answer<T> {
    /// What was granted, if it was.
    pub fn granted(self) -> Option<T> {
        match self {
            Self::Granted(granted) => Some(granted),
            Self::Refused(_) => None,
        }
    }

    /// Why it was refused, if it was.
    pub fn refusal(&self) -> Option<RefusalReason> {
        match self {
            Self::Granted(_) => None,
            Self::Refused(refusal) => Some(refusal.reason()),
        }
    }
}

impl<T> From<Result<T, RefusalReason>> for Answer<T> {
    fn from(decided: Result<T, RefusalReason>) -> Self {
        match decided {
            Ok(granted) => Self::Granted(granted),
            Err(reason) => Self::Refused(reason.into()),
        }
    }
}
