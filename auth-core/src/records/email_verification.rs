use auth_credentials::opaque_token::{TokenHash, VerifyEmail};

use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::email_address::AddressHash;
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// A token that verifies an address, as long as it was not used: the commit of its effect removes the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmailVerification {
    /// For whom.
    pub user: UserId,
    /// Which of their addresses.
    pub address: AddressHash,
    /// From when on it verifies nothing.
    pub ends_at: Millis,
}

impl EmailVerification {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, token: &TokenHash<VerifyEmail>) -> Key {
        Key::new(Self::TABLE, tenant).bytes(token.to_bytes())
    }
}

impl Stored for EmailVerification {
    const TABLE: Table = tables::EMAIL_VERIFICATION;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.user.to_bytes());
        writer.bytes(&self.address.to_bytes()).millis(self.ends_at).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let verification = Self {
            user: UserId::from_bytes(reader.array()?),
            address: AddressHash::from_bytes(reader.array()?),
            ends_at: reader.millis()?,
        };
        reader.finish()?;
        Ok(verification)
    }
}
