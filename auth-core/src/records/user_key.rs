use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::ids::UserId;
use crate::key::{Key, Table, Tenant};

/// Bytes of the envelope, at most.
const SEALED_BYTES_MAX: usize = 256;

/// The key of a user's personal fields, sealed under the operator's. Without this row nobody reads them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserKey {
    /// The envelope.
    pub sealed: Vec<u8>,
}

impl UserKey {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, user: UserId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(user.to_bytes())
    }
}

impl Stored for UserKey {
    const TABLE: Table = tables::USER_KEY;

    fn encode(&self) -> Vec<u8> {
        Writer::new(Self::VERSION).sized(&self.sealed).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let sealed = reader.sized(SEALED_BYTES_MAX, "key")?.to_vec();
        reader.finish()?;
        Ok(Self { sealed })
    }
}
