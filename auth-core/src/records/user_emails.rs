use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::email_address::{ADDRESS_BYTES_MAX, EmailAddress};
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// E-mail addresses of one user.
pub const EMAILS_PER_USER_LIMIT: usize = 8;

/// Bytes of the envelope, at most.
const SEALED_BYTES_MAX: usize = 4_096;

/// The addresses of a user, sealed under the user's key. Who adds, verifies or removes one writes this row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEmails {
    /// An envelope around an [`EmailList`].
    pub sealed: Vec<u8>,
}

impl UserEmails {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, user: UserId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(user.to_bytes())
    }
}

impl Stored for UserEmails {
    const TABLE: Table = tables::USER_EMAILS;

    fn encode(&self) -> Vec<u8> {
        Writer::new(Self::VERSION).sized(&self.sealed).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let sealed = reader.sized(SEALED_BYTES_MAX, "addresses")?.to_vec();
        reader.finish()?;
        Ok(Self { sealed })
    }
}

/// One address of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// As it was typed, the domain lower-cased.
    pub address: EmailAddress,
    /// When it was added.
    pub added_at: Millis,
    /// When the user showed that they read its mail.
    pub verified_at: Option<Millis>,
}

/// What is in the envelope: the first one is the primary address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmailList {
    /// Each address once, up to [`EMAILS_PER_USER_LIMIT`].
    pub emails: Vec<Email>,
}

impl EmailList {
    const VERSION: u8 = 1;

    /// The one that mails go to.
    pub fn primary(&self) -> Option<&Email> {
        self.emails.first()
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.emails.len()).unwrap_or(u8::MAX);
        let writer = Writer::new(Self::VERSION).u8(count);
        let write = |writer: Writer, email: &Email| {
            let writer = writer.sized(email.address.as_str().as_bytes()).millis(email.added_at);
            match email.verified_at {
                None => writer.u8(0),
                Some(at) => writer.u8(1).millis(at),
            }
        };
        self.emails.iter().fold(writer, write).finish()
    }

    /// The list of these bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError`] for bytes that no list has.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const FIELD: RecordError = RecordError::Field { field: "addresses" };
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let count = usize::from(reader.u8()?);
        if count > EMAILS_PER_USER_LIMIT {
            return Err(FIELD);
        }
        let mut emails: Vec<Email> = Vec::with_capacity(count);
        for _ in 0..count {
            let text =
                std::str::from_utf8(reader.sized(ADDRESS_BYTES_MAX, "addresses")?).map_err(|_| FIELD)?;
            let address = EmailAddress::parse(text).map_err(|_| FIELD)?;
            if address.as_str() != text || emails.iter().any(|email| email.address == address) {
                return Err(FIELD);
            }
            let added_at = reader.millis()?;
            let verified_at = match reader.u8()? {
                0 => None,
                1 => Some(reader.millis()?),
                _ => return Err(FIELD),
            };
            emails.push(Email { address, added_at, verified_at });
        }
        reader.finish()?;
        Ok(Self { emails })
    }
}
