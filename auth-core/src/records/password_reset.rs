use auth_credentials::opaque_token::{ResetPassword, TokenHash};

use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// A token that sets a new password, as long as it was not used: the commit of its effect removes the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordReset {
    /// Whose.
    pub user: UserId,
    /// The user's epoch when it was asked for. One change of the password ends all that were asked for before.
    pub epoch: u64,
    /// From when on it sets nothing.
    pub ends_at: Millis,
}

impl PasswordReset {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, token: &TokenHash<ResetPassword>) -> Key {
        Key::new(Self::TABLE, tenant).bytes(token.to_bytes())
    }
}

impl Stored for PasswordReset {
    const TABLE: Table = tables::PASSWORD_RESET;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.user.to_bytes());
        writer.u64(self.epoch).millis(self.ends_at).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let reset = Self {
            user: UserId::from_bytes(reader.array()?),
            epoch: reader.u64()?,
            ends_at: reader.millis()?,
        };
        reader.finish()?;
        Ok(reset)
    }
}
