use sha2::{Digest, Sha256};

use super::layout::{Reader, RecordError, Writer};
use super::{EndReason, Stored, tables};
use crate::audit::AuditEvent;
use crate::ids::{AddressId, FamilyId, SessionId, UserId};
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The engine, by a rule: time was up, a token came twice.
    System,
    /// Whoever runs the server.
    Operator,
    /// A user.
    User(UserId),
}

/// To what it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A user.
    User(UserId),
    /// A session.
    Session(SessionId),
    /// A family of refresh tokens.
    RefreshToken(FamilyId),
    /// An e-mail address.
    Address(AddressId),
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The hash of the entry before it; zeros, for the first.
    pub previous: [u8; 32],
    /// Of which tenant.
    pub tenant: Tenant,
    /// Of which of its chains.
    pub shard: u16,
    /// Its place in the chain: 1, 2, 3 …
    pub sequence: u64,
    /// When. Clocks of servers differ: it may be before that of the entry before.
    pub at: Millis,
    /// What.
    pub event: AuditEvent,
    /// Who.
    pub actor: Actor,
    /// About whom: all entries about a user are in one chain. Of an address that is nobody's the first half of its hash, so that
    /// the log does not tell it from a user's.
    pub user: UserId,
    /// To what.
    pub resource: Resource,
    /// Why something was ended.
    pub reason: Option<EndReason>,
}

impl AuditEntry {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, shard: u16, sequence: u64) -> Key {
        Self::chain_key(tenant, shard).number(sequence)
    }

    /// What the keys of a chain begin with.
    pub fn chain_key(tenant: Tenant, shard: u16) -> Key {
        Key::new(Self::TABLE, tenant).number(u64::from(shard))
    }

    /// SHA-256 of a domain and the entry's bytes, which begin with the hash before it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"strongroom audit entry v1\0")
            .chain_update(self.encode())
            .finalize()
            .into()
    }
}

impl Stored for AuditEntry {
    const TABLE: Table = tables::AUDIT_ENTRY;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION)
            .bytes(&self.previous)
            .u64(self.tenant.0)
            .u16(self.shard)
            .u64(self.sequence)
            .millis(self.at)
            .u16(self.event.number());
        let writer = match self.actor {
            Actor::System => writer.u8(0),
            Actor::Operator => writer.u8(1),
            Actor::User(user) => writer.u8(2).bytes(&user.to_bytes()),
        };
        let writer = writer.bytes(&self.user.to_bytes());
        let writer = match self.resource {
            Resource::User(user) => writer.u8(1).bytes(&user.to_bytes()),
            Resource::Session(session) => writer.u8(2).bytes(&session.to_bytes()),
            Resource::RefreshToken(family) => writer.u8(3).bytes(&family.to_bytes()),
            Resource::Address(address) => writer.u8(4).bytes(&address.to_bytes()),
        };
        writer.u8(self.reason.map_or(0, EndReason::number)).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let entry = Self {
            previous: reader.array()?,
            tenant: Tenant(reader.u64()?),
            shard: reader.u16()?,
            sequence: reader.u64()?,
            at: reader.millis()?,
            event: AuditEvent::from_number(reader.u16()?)?,
            actor: match reader.u8()? {
                0 => Actor::System,
                1 => Actor::Operator,
                2 => Actor::User(UserId::from_bytes(reader.array()?)),
                _ => return Err(RecordError::Field { field: "actor" }),
            },
            user: UserId::from_bytes(reader.array()?),
            resource: match reader.u8()? {
                1 => Resource::User(UserId::from_bytes(reader.array()?)),
                2 => Resource::Session(SessionId::from_bytes(reader.array()?)),
                3 => Resource::RefreshToken(FamilyId::from_bytes(reader.array()?)),
                4 => Resource::Address(AddressId::from_bytes(reader.array()?)),
                _ => return Err(RecordError::Field { field: "resource" }),
            },
            reason: match reader.u8()? {
                0 => None,
                reason => Some(EndReason::from_number(reason)?),
            },
        };
        reader.finish()?;
        Ok(entry)
    }
}
