//! Who the members are, as the stores of a node that does not run remember it.

use std::collections::BTreeMap;

use ledger_core::ports::{LogKind, StoreError};

use crate::ledger::Stores;
use crate::peers::MemberRecord;
use crate::raft::{RecordError, decode_membership};

/// Bytes of the log that are read at once.
const READ_BYTES: usize = 4 * 1_048_576;

/// The stores do not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredMembersError {
    /// A store.
    #[error("the stored membership cannot be read: {0}")]
    Store(#[from] StoreError),
    /// What is in it.
    #[error("the stored membership cannot be read: {reason}")]
    Content {
        /// What is wrong.
        reason: String,
    },
}

impl From<RecordError> for StoredMembersError {
    fn from(error: RecordError) -> Self {
        Self::Content { reason: error.to_string() }
    }
}

/// The members by the newest membership in the stores, voters and learners; a record is `None` when a ledger that ran
/// alone wrote it. Empty when there is none yet.
///
/// # Errors
/// Stores that cannot be read.
pub fn stored_members(stores: &Stores) -> Result<BTreeMap<u64, Option<MemberRecord>>, StoredMembersError> {
    let applied = stores.state.applied()?;
    let log = stores.log.snapshot()?;
    let mut newest = applied.as_ref().map(|applied| applied.membership.clone()).unwrap_or_default();
    let purged = log.purged.map(|id| id.index);
    let covered = applied.map(|applied| applied.last_applied.index).max(purged);
    let mut next = covered.map_or(0, |index| index.saturating_add(1));
    while let Some(last) = log.last.filter(|last| next <= last.index) {
        let records = stores.log.read(next, last.index.saturating_add(1), READ_BYTES)?;
        let Some(end) = records.last().map(|record| record.id.index) else { break };
        if let Some(record) = records.into_iter().rev().find(|record| record.kind == LogKind::Membership) {
            newest = record.payload;
        }
        next = end.saturating_add(1);
    }
    let membership = decode_membership(&newest)?;
    Ok(membership.membership().nodes().map(|(id, member)| (*id, member.record.clone())).collect())
}
