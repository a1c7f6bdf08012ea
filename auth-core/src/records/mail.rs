use std::fmt;

use auth_credentials::opaque_token::TOKEN_TEXT_BYTES;
use zeroize::Zeroizing;

use super::layout::{Reader, RecordError, Writer, stored_enum};
use super::{Stored, tables};
use crate::email_address::{ADDRESS_BYTES_MAX, EmailAddress};
use crate::ids::{MailId, UserId};
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// Bytes of the envelope, at most.
const SEALED_BYTES_MAX: usize = 1_024;

stored_enum! {
    /// What a mail says. The words are a server's.
    MailKind: u8, "mail" {
        /// Verify this address, with a token.
        VerifyEmail = 1,
        /// Somebody tried to register with this address: it is yours already.
        AlreadyRegistered = 2,
        /// Set a new password, with a token.
        ResetPassword = 3,
        /// The password was changed.
        PasswordChanged = 4,
    }
}

stored_enum! {
    /// Why a mail was given up.
    DeathReason: u8, "death reason" {
        /// It was tried as often as it may be.
        Attempts = 1,
        /// The mail server said that it will never take it.
        Permanent = 2,
        /// What it is about has ended.
        Expired = 3,
        /// Its user is gone, and with them the key that opens it.
        Unreadable = 4,
    }
}

/// A mail that has to be sent, made in the commit of what it is about. Its key begins with when it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMail {
    /// To whom.
    pub user: UserId,
    /// What it says.
    pub kind: MailKind,
    /// Since when it waits.
    pub made_at: Millis,
    /// From when on it is of no use.
    pub ends_at: Millis,
    /// How often somebody has begun to send it.
    pub attempts: u8,
    /// Address and token, sealed under the user's key.
    pub sealed: Vec<u8>,
}

impl OutboxMail {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, due_at: Millis, mail: MailId) -> Key {
        Key::new(Self::TABLE, tenant).number(due_at.0).bytes(mail.to_bytes())
    }

    /// The id in a key.
    pub(crate) fn id(key: &Key) -> Option<MailId> {
        key.parts().nth(1)?.try_into().ok().map(MailId::from_bytes)
    }
}

impl Stored for OutboxMail {
    const TABLE: Table = tables::OUTBOX_MAIL;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.user.to_bytes()).u8(self.kind.number());
        let writer = writer.millis(self.made_at).millis(self.ends_at).u8(self.attempts);
        writer.sized(&self.sealed).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let mail = Self {
            user: UserId::from_bytes(reader.array()?),
            kind: MailKind::from_number(reader.u8()?)?,
            made_at: reader.millis()?,
            ends_at: reader.millis()?,
            attempts: reader.u8()?,
            sealed: reader.sized(SEALED_BYTES_MAX, "mail")?.to_vec(),
        };
        reader.finish()?;
        Ok(mail)
    }
}

/// A mail that was given up: what it said is gone, why it died is kept for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadMail {
    /// To whom.
    pub user: UserId,
    /// What it said.
    pub kind: MailKind,
    /// Since when it had waited.
    pub made_at: Millis,
    /// How often somebody had begun to send it.
    pub attempts: u8,
    /// When it was given up.
    pub died_at: Millis,
    /// Why.
    pub reason: DeathReason,
}

impl DeadMail {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, mail: MailId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(mail.to_bytes())
    }
}

impl Stored for DeadMail {
    const TABLE: Table = tables::DEAD_MAIL;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.user.to_bytes()).u8(self.kind.number());
        let writer = writer.millis(self.made_at).u8(self.attempts);
        writer.millis(self.died_at).u8(self.reason.number()).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let mail = Self {
            user: UserId::from_bytes(reader.array()?),
            kind: MailKind::from_number(reader.u8()?)?,
            made_at: reader.millis()?,
            attempts: reader.u8()?,
            died_at: reader.millis()?,
            reason: DeathReason::from_number(reader.u8()?)?,
        };
        reader.finish()?;
        Ok(mail)
    }
}

/// What is sealed of a mail.
pub(crate) struct MailContent {
    pub to: EmailAddress,
    pub token: Option<Zeroizing<String>>,
}

impl MailContent {
    const VERSION: u8 = 1;

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let writer = Writer::new(Self::VERSION).sized(self.to.as_str().as_bytes());
        let token = self.token.as_ref().map_or("", |token| token.as_str());
        // The writer begins with room for 192 bytes; a longer address makes it grow before the token comes.
        Zeroizing::new(writer.sized(token.as_bytes()).finish())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const FIELD: RecordError = RecordError::Field { field: "mail" };
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let to = std::str::from_utf8(reader.sized(ADDRESS_BYTES_MAX, "mail")?).map_err(|_| FIELD)?;
        let to = EmailAddress::parse(to).map_err(|_| FIELD)?;
        let token = std::str::from_utf8(reader.sized(TOKEN_TEXT_BYTES, "mail")?).map_err(|_| FIELD)?;
        let token = (!token.is_empty()).then(|| Zeroizing::new(token.to_owned()));
        reader.finish()?;
        Ok(Self { to, token })
    }
}

impl fmt::Debug for MailContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MailContent(..)")
    }
}
