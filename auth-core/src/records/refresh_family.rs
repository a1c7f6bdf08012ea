use auth_credentials::opaque_token::{Refresh, TokenHash};

use super::layout::{Reader, RecordError, Writer};
use super::{EndReason, Stored, tables};
use crate::ids::{FamilyId, SessionId, UserId};
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;
use crate::tokens::SEALED_SUCCESSOR_BYTES;

/// Whether a family lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyState {
    /// As far as this row knows.
    Live,
    /// No token of it is ever accepted again.
    Dead {
        /// When.
        at: Millis,
        /// Why.
        reason: EndReason,
    },
}

/// The token that the current one came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Previous {
    /// Its hash.
    pub token: TokenHash<Refresh>,
    /// When it was exchanged.
    pub rotated_at: Millis,
    /// The secret of the current token, sealed under a key that is made of this one.
    pub successor: [u8; SEALED_SUCCESSOR_BYTES],
}

impl std::fmt::Debug for Previous {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "exchanged at {:?}", self.rotated_at)
    }
}

/// A family of refresh tokens: one token and all that it was exchanged for, in one row. Exchange, reuse and revocation
/// write this row, so of any number that race one is first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshFamily {
    /// Of which session.
    pub session: SessionId,
    /// Whose.
    pub user: UserId,
    /// Whether it lives.
    pub state: FamilyState,
    /// The user's epoch when it was made.
    pub epoch: u64,
    /// Since when it exists.
    pub created_at: Millis,
    /// When it ends, however much it is used.
    pub ends_at: Millis,
    /// The how manieth token is the current one: 1, 2, 3 …
    pub generation: u64,
    /// The current token.
    pub current: TokenHash<Refresh>,
    /// The one before it; the first has none.
    pub previous: Option<Previous>,
}

impl RefreshFamily {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, family: FamilyId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(family.to_bytes())
    }
}

impl Stored for RefreshFamily {
    const TABLE: Table = tables::REFRESH_FAMILY;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.session.to_bytes()).bytes(&self.user.to_bytes());
        let writer = match self.state {
            FamilyState::Live => writer.u8(0),
            FamilyState::Dead { at, reason } => writer.u8(reason.number()).millis(at),
        };
        let writer = writer
            .u64(self.epoch)
            .millis(self.created_at)
            .millis(self.ends_at)
            .u64(self.generation)
            .hash(&self.current);
        match &self.previous {
            None => writer.u8(0).finish(),
            Some(previous) => writer
                .u8(1)
                .hash(&previous.token)
                .millis(previous.rotated_at)
                .bytes(&previous.successor)
                .finish(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let session = SessionId::from_bytes(reader.array()?);
        let user = UserId::from_bytes(reader.array()?);
        let state = match reader.u8()? {
            0 => FamilyState::Live,
            reason => {
                let reason = EndReason::from_number(reason)?;
                FamilyState::Dead { at: reader.millis()?, reason }
            }
        };
        let family = Self {
            session,
            user,
            state,
            epoch: reader.u64()?,
            created_at: reader.millis()?,
            ends_at: reader.millis()?,
            generation: reader.u64()?,
            current: reader.hash()?,
            previous: match reader.u8()? {
                0 => None,
                1 => Some(Previous {
                    token: reader.hash()?,
                    rotated_at: reader.millis()?,
                    successor: reader.array()?,
                }),
                _ => return Err(RecordError::Field { field: "previous" }),
            },
        };
        reader.finish()?;
        // The first token has no other before it, every later one has.
        if family.generation == 0 || (family.generation == 1) != family.previous.is_none() {
            return Err(RecordError::Field { field: "generation" });
        }
        Ok(family)
    }
}
