//! `--force-new-cluster`: one node goes on alone after the others are lost for good.

use std::fmt;

use bytes::Bytes;
use ledger_core::codec::encode_proposal;
use ledger_core::command::{Command, Proposal};
use ledger_core::ledger_state::without_cluster;
use ledger_core::ports::{LogChange, LogId, LogKind, LogRecord, StateBatch, StoreError, StoredVote};

use super::stored_members::StoredMembersError;
use crate::directory::{DirectoryError, NodeDirectory, random_bytes};
use crate::ledger::Stores;
use crate::peers::ClusterId;
use crate::raft::sole_voter;

/// Dropped entries that are named one by one.
const NAMED_MAX: usize = 20;
/// Bytes of the log that are read at once.
const READ_BYTES: usize = 4 * 1_048_576;

/// The node could not be taken out of its cluster. Nothing is lost: force it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForceError {
    /// There is no cluster to leave.
    #[error("the data directory belongs to no cluster: start it without --force-new-cluster")]
    NoCluster,
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A store.
    #[error("the stores cannot be brought into a new cluster: {0}")]
    Store(#[from] StoreError),
    /// What is in the stores.
    #[error(transparent)]
    Content(#[from] StoredMembersError),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForcedCluster {
    /// The cluster that was left.
    pub old: ClusterId,
    /// The new one.
    pub new: ClusterId,
    /// The last entry that is kept.
    pub kept: Option<LogId>,
    /// Entries that were dropped because nothing on this node says that they were committed.
    pub lost: LostTail,
}

/// Entries that were in the log behind the last one that is known to be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostTail {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them.
    pub first: Vec<LogId>,
}

impl fmt::Display for ForcedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, kept, lost } = self;
        write!(f, "left cluster {old} for the new cluster {new}; kept the log ")?;
        match kept {
            Some(kept) => write!(f, "through entry {} of term {}", kept.index, kept.term)?,
            None => write!(f, "of nothing")?,
        }
        if lost.entries == 0 {
            return write!(f, "; no entry was lost");
        }
        write!(
            f,
            "; LOST {} entries ({} bytes) that were not known to be committed:",
            lost.entries, lost.bytes
        )?;
        lost.first.iter().try_for_each(|id| write!(f, " {} (term {})", id.index, id.term))?;
        if lost.entries > lost.first.len() as u64 { write!(f, " …") } else { Ok(()) }
    }
}

/// Takes a node out of its cluster: a new cluster id, itself the one voter, its log up to the last entry that is known
/// to be committed. The stores must not be used otherwise meanwhile; after a crash, call it again.
///
/// # Errors
/// See [`ForceError`].
pub fn force_new_cluster(
    directory: &mut NodeDirectory,
    stores: &Stores,
) -> Result<ForcedCluster, ForceError> {
    let old = directory.cluster_id().ok_or(ForceError::NoCluster)?;
    let new = ClusterId(random_bytes()?);
    let node_id = directory.node_id();
    let log = stores.log.snapshot()?;
    let applied = stores.state.applied()?;
    let known = [log.committed, log.purged, applied.as_ref().map(|applied| applied.last_applied)];
    let kept = known.into_iter().flatten().max_by_key(|id| id.index);
    // What is known to be committed may have been lost with the end of the log; it is in the state then.
    let kept = kept.map(|kept| log.last.filter(|last| last.index < kept.index).unwrap_or(kept));
    let lost = lost_tail(stores, kept, log.last)?;

    let terms = [log.last.map(|id| id.term), log.vote.map(|vote| vote.term), kept.map(|id| id.term)];
    let term = terms.into_iter().flatten().max().unwrap_or(0).saturating_add(1);
    let next = kept.map_or(0, |kept| kept.index.saturating_add(1));
    let at = |index| LogId { term, node: node_id, index };
    let alone = sole_voter(&[], node_id).map_err(StoredMembersError::from)?;
    let name = Proposal { time_ms: 0, command: Command::NameCluster { cluster_id: new.0 } };
    let name =
        encode_proposal(&name).map_err(|error| StoredMembersError::Content { reason: error.to_string() })?;
    let record = |index, kind, payload: Bytes| LogChange::Append(LogRecord { id: at(index), kind, payload });
    stores.log.commit(&[
        LogChange::TruncateAfter(kept.map(|kept| kept.index)),
        LogChange::SaveVote(StoredVote { term, node: Some(node_id), committed: true }),
        record(next, LogKind::Membership, alone),
        record(next.saturating_add(1), LogKind::Proposal, name),
        LogChange::SaveCommitted(at(next.saturating_add(1))),
    ])?;
    if let Some(applied) = applied {
        let rows = vec![without_cluster()];
        stores.state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied })?;
    }
    // Last: until here the node still belongs to the old cluster and refuses to open, and may be forced again.
    directory.found_anew(new)?;
    Ok(ForcedCluster { old, new, kept, lost })
}

fn lost_tail(stores: &Stores, kept: Option<LogId>, last: Option<LogId>) -> Result<LostTail, StoreError> {
    let mut lost = LostTail::default();
    let mut next = kept.map_or(0, |kept| kept.index.saturating_add(1));
    while let Some(last) = last.filter(|last| next <= last.index) {
        let records = stores.log.read(next, last.index.saturating_add(1), READ_BYTES)?;
        let Some(end) = records.last().map(|record| record.id.index) else { break };
        for record in records {
            lost.entries += 1;
            lost.bytes = lost.bytes.saturating_add(record.payload.len() as u64);
            if lost.first.len() < NAMED_MAX {
                lost.first.push(record.id);
            }
        }
        next = end.saturating_add(1);
    }
    Ok(lost)
}
