use super::layout::{Reader, RecordError, Writer, stored_enum};
use super::{Stored, tables};
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

stored_enum! {
    /// Whether somebody may sign in.
    UserState: u8, "user state" {
        /// May.
        Active = 0,
        /// May not: an operator said so.
        Disabled = 1,
    }
}

/// A user: what every check of a session reads besides the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Whether sessions are let in.
    pub state: UserState,
    /// What sessions and tokens carry from when they were made. Those of another epoch are dead, so one write ends all.
    pub epoch: u64,
    /// Since when the user exists.
    pub created_at: Millis,
}

impl User {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, user: UserId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(user.to_bytes())
    }
}

impl Stored for User {
    const TABLE: Table = tables::USER;

    fn encode(&self) -> Vec<u8> {
        Writer::new(Self::VERSION).u8(self.state.number()).u64(self.epoch).millis(self.created_at).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let state = UserState::from_number(reader.u8()?)?;
        let user = Self { state, epoch: reader.u64()?, created_at: reader.millis()? };
        reader.finish()?;
        Ok(user)
    }
}
