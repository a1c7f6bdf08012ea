//! What is stored: one file per kind of record, with its key and its bytes. `docs/formats.md` has the layouts.

mod address_claim;
mod audit_entry;
mod audit_head;
mod email_verification;
mod layout;
mod mail;
mod password_reset;
mod refresh_family;
mod session;
mod stored_password;
mod user;
mod user_emails;
mod user_key;
mod user_sessions;

pub use address_claim::AddressClaim;
pub use audit_entry::{Actor, AuditEntry, Resource};
pub use audit_head::AuditHead;
pub use email_verification::EmailVerification;
pub use layout::RecordError;
pub(crate) use layout::stored_enum;
pub(crate) use mail::MailContent;
pub use mail::{DeadMail, DeathReason, MailKind, OutboxMail};
pub use password_reset::PasswordReset;
pub use refresh_family::{FamilyState, Previous, RefreshFamily};
pub use session::{AssuranceLevel, EndReason, Session, SessionKind, SessionState, SignInMethod};
pub use stored_password::StoredPassword;
pub use user::{User, UserState};
pub use user_emails::{EMAILS_PER_USER_LIMIT, Email, EmailList, UserEmails};
pub use user_key::UserKey;
pub use user_sessions::{SESSIONS_PER_USER_LIMIT, UserSessions};

use crate::key::{Key, Table};
use crate::ports::{Expect, Version};

/// The numbers of all kinds of records. A number is never given to another kind.
pub mod tables {
    use crate::key::Table;

    /// [`User`](super::User).
    pub const USER: Table = Table(1);
    /// [`UserSessions`](super::UserSessions).
    pub const USER_SESSIONS: Table = Table(2);
    /// [`Session`](super::Session).
    pub const SESSION: Table = Table(3);
    /// [`RefreshFamily`](super::RefreshFamily).
    pub const REFRESH_FAMILY: Table = Table(4);
    /// [`AuditEntry`](super::AuditEntry).
    pub const AUDIT_ENTRY: Table = Table(5);
    /// [`AuditHead`](super::AuditHead).
    pub const AUDIT_HEAD: Table = Table(6);
    /// [`UserKey`](super::UserKey).
    pub const USER_KEY: Table = Table(7);
    /// [`UserEmails`](super::UserEmails).
    pub const USER_EMAILS: Table = Table(8);
    /// [`AddressClaim`](super::AddressClaim).
    pub const ADDRESS_CLAIM: Table = Table(9);
    /// [`StoredPassword`](super::StoredPassword).
    pub const STORED_PASSWORD: Table = Table(10);
    /// [`EmailVerification`](super::EmailVerification).
    pub const EMAIL_VERIFICATION: Table = Table(11);
    /// [`PasswordReset`](super::PasswordReset).
    pub const PASSWORD_RESET: Table = Table(12);
    /// [`OutboxMail`](super::OutboxMail).
    pub const OUTBOX_MAIL: Table = Table(13);
    /// [`DeadMail`](super::DeadMail).
    pub const DEAD_MAIL: Table = Table(14);
}

/// A kind of record.
pub trait Stored: Sized {
    /// Its table.
    const TABLE: Table;

    /// Its bytes. Equal values have equal bytes.
    fn encode(&self) -> Vec<u8>;

    /// The value of these bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError`] for bytes that no value has.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

/// A record as it was read: what a decision is made of, and commits under the condition that it still is so.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// Its key.
    pub key: Key,
    /// The value and its version, when there is one.
    pub found: Option<(T, Version)>,
}

impl<T> Loaded<T> {
    /// The value.
    pub fn value(&self) -> Option<&T> {
        self.found.as_ref().map(|(value, _)| value)
    }

    /// That it is as it was read.
    pub fn unchanged(&self) -> Expect {
        match &self.found {
            None => Expect::Absent,
            Some((_, version)) => Expect::Version(*version),
        }
    }
}
