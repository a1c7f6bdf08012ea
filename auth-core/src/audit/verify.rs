use crate::key::Tenant;
use crate::records::{AuditEntry, AuditHead, RecordError, Stored};

/// A point of a chain: so many entries, and the hash of the last. Whoever keeps one elsewhere knows later whether what was before it
/// is still what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainPoint {
    /// Of which tenant.
    pub tenant: Tenant,
    /// Of which of its chains.
    pub shard: u16,
    /// The chain up to there.
    pub head: AuditHead,
}

impl ChainPoint {
    /// Before the first entry.
    pub fn start(tenant: Tenant, shard: u16) -> Self {
        Self { tenant, shard, head: AuditHead::default() }
    }
}

/// An exported chain is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainBroken {
    /// These bytes are no entry.
    #[error("entry {sequence} cannot be read: {source}")]
    Unreadable {
        /// Which it should be.
        sequence: u64,
        /// Why.
        source: RecordError,
    },
    /// An entry of another place or chain.
    #[error("entry {sequence} is missing: entry {found} is there instead, or one of another chain")]
    Misplaced {
        /// Which it should be.
        sequence: u64,
        /// Which it says it is.
        found: u64,
    },
    /// It does not follow from the one before it: one of both was changed.
    #[error("entry {sequence} does not continue the entry before it: one of both was changed")]
    Unlinked {
        /// Which.
        sequence: u64,
    },
}

/// Follows a chain from a point on, over the bytes of its entries, and says to which point they lead. Compare that with a
/// head from elsewhere: a chain whose end was cut off is one as well.
///
/// # Errors
///
/// [`ChainBroken`] at the first entry that does not follow.
pub fn verify_chain<B: AsRef<[u8]>>(
    from: ChainPoint,
    entries: impl IntoIterator<Item = B>,
) -> Result<ChainPoint, ChainBroken> {
    let mut point = from;
    for bytes in entries {
        let sequence = point.head.count.saturating_add(1);
        let entry = AuditEntry::decode(bytes.as_ref())
            .map_err(|source| ChainBroken::Unreadable { sequence, source })?;
        if (entry.tenant, entry.shard, entry.sequence) != (point.tenant, point.shard, sequence) {
            return Err(ChainBroken::Misplaced { sequence, found: entry.sequence });
        }
        if entry.previous != point.head.hash {
            return Err(ChainBroken::Unlinked { sequence });
        }
        point.head = AuditHead { count: sequence, hash: entry.hash() };
    }
    Ok(point)
}
