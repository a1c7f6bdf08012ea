use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::key::{Key, Table, Tenant};

/// The end of a chain of audit entries. Whoever appends writes this row, so entries have an order without gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditHead {
    /// How many entries the chain has.
    pub count: u64,
    /// The hash of the last one; zeros, when there is none.
    pub hash: [u8; 32],
}

impl AuditHead {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, shard: u16) -> Key {
        Key::new(Self::TABLE, tenant).number(u64::from(shard))
    }
}

impl Stored for AuditHead {
    const TABLE: Table = tables::AUDIT_HEAD;

    fn encode(&self) -> Vec<u8> {
        Writer::new(Self::VERSION).u64(self.count).bytes(&self.hash).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let head = Self { count: reader.u64()?, hash: reader.array()? };
        reader.finish()?;
        Ok(head)
    }
}
