use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::email_address::AddressHash;
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};

/// Whose an e-mail address is. One row for an address, so of any number who want it one is first; but as long as nobody has
/// verified it, whoever comes later takes the row over: an address that somebody only claims blocks nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressClaim {
    /// Whose; while it is not verified, that of whoever claimed it last.
    pub user: UserId,
    /// Whether they have shown that they read its mail.
    pub is_verified: bool,
}

impl AddressClaim {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, address: AddressHash) -> Key {
        Key::new(Self::TABLE, tenant).bytes(address.to_bytes())
    }
}

impl Stored for AddressClaim {
    const TABLE: Table = tables::ADDRESS_CLAIM;

    fn encode(&self) -> Vec<u8> {
        Writer::new(Self::VERSION).bytes(&self.user.to_bytes()).u8(u8::from(self.is_verified)).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let user = UserId::from_bytes(reader.array()?);
        let is_verified = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(RecordError::Field { field: "verified" }),
        };
        reader.finish()?;
        Ok(Self { user, is_verified })
    }
}
