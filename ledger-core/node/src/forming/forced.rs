//! `--force-new-cluster`: one node goes on alone after the others are lost for good.

use std::fmt;

use bytes::Bytes;
use ledger_core::codec::{decode_proposal, encode_proposal};
use ledger_core::command::{Command, Proposal};
use ledger_core::ledger_state::without_cluster;
use ledger_core::ports::{LogChange, LogId, LogKind, LogRecord, StateBatch, StoreError, StoredVote};

use super::stored_members::{StoredMembersError, stored_members};
use crate::directory::{DirectoryError, NodeDirectory, Provenance, random_bytes};
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
    /// The node has a cluster to itself already.
    #[error(
        "this node is the only member of its cluster, {cluster}: there is none to leave. Remove the flag --force-new-cluster, \
         which is for one start, and start again"
    )]
    OnlyMember {
        /// The cluster.
        cluster: ClusterId,
    },
    /// An earlier attempt did not come to its end, and the node must not start before it has.
    #[error(
        "a start with --force-new-cluster was interrupted before the node had left cluster {cluster}: start it with \
         --force-new-cluster once more. Nothing is lost"
    )]
    Interrupted {
        /// The cluster that it was leaving.
        cluster: ClusterId,
    },
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
    /// Those of them of which nothing on this node says that they were committed. They are kept: clients may have been told
    /// so by the nodes that are lost.
    pub undecided: UndecidedTail,
}

/// Entries in the log behind the last one that was known to be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndecidedTail {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them.
    pub first: Vec<LogId>,
}

impl fmt::Display for ForcedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, kept, undecided } = self;
        write!(f, "left cluster {old} for the new cluster {new}; kept the log ")?;
        match kept {
            Some(kept) => write!(f, "through entry {} of term {}", kept.index, kept.term)?,
            None => write!(f, "of nothing")?,
        }
        if undecided.entries == 0 {
            return write!(f, "; all of it was committed");
        }
        write!(
            f,
            "; {} entries ({} bytes) at its end were not known to be committed, and are from here on:",
            undecided.entries, undecided.bytes
        )?;
        undecided.first.iter().try_for_each(|id| write!(f, " {} (term {})", id.index, id.term))?;
        if undecided.entries > undecided.first.len() as u64 { write!(f, " …") } else { Ok(()) }
    }
}

/// Refuses what [`force_new_cluster`] would refuse, and changes nothing.
///
/// # Errors
/// See [`ForceError`].
pub fn check_force(directory: &NodeDirectory, stores: &Stores) -> Result<(), ForceError> {
    let cluster = directory.cluster_id().ok_or(ForceError::NoCluster)?;
    let members = stored_members(stores)?;
    let is_alone = members.keys().all(|node_id| *node_id == directory.node_id());
    // A copy may not go on under the id of the original, alone or not.
    let is_original = directory.provenance() == Provenance::Original;
    if is_alone && is_original && !was_interrupted(stores, cluster)? {
        return Err(ForceError::OnlyMember { cluster });
    }
    Ok(())
}

/// Refuses stores that an interrupted [`force_new_cluster`] left between two clusters: a node that opened them would write
/// to its log as the one voter of the new cluster, find the directory in the old one, and stop.
///
/// # Errors
/// See [`ForceError`].
pub fn check_not_interrupted(directory: &NodeDirectory, stores: &Stores) -> Result<(), ForceError> {
    match directory.cluster_id() {
        Some(cluster) if was_interrupted(stores, cluster)? => Err(ForceError::Interrupted { cluster }),
        _ => Ok(()),
    }
}

/// Whether the log ends with the name of another cluster than the directory's: a crash came before the directory was
/// written, and the ledger does not open like that.
fn was_interrupted(stores: &Stores, cluster: ClusterId) -> Result<bool, ForceError> {
    let Some(last) = stores.log.snapshot()?.last else { return Ok(false) };
    let records = stores.log.read(last.index, last.index.saturating_add(1), READ_BYTES)?;
    let proposals = records.iter().filter(|record| record.kind == LogKind::Proposal);
    let named = proposals.filter_map(|record| decode_proposal(&record.payload).ok());
    Ok(named.last().is_some_and(|proposal| match proposal.command {
        Command::NameCluster { cluster_id } => cluster_id != cluster.0,
        _ => false,
    }))
}

/// Takes a node out of its cluster: a new cluster id, itself the one voter, its whole log. Entries of which it does not
/// know whether they were committed are kept: an acknowledged one may be among them, and one that was not acknowledged
/// may happen all the same. The stores must not be used otherwise meanwhile; after a crash, call it again.
///
/// # Errors
/// See [`ForceError`].
pub fn force_new_cluster(
    directory: &mut NodeDirectory,
    stores: &Stores,
) -> Result<ForcedCluster, ForceError> {
    check_force(directory, stores)?;
    let old = directory.cluster_id().ok_or(ForceError::NoCluster)?;
    let new = ClusterId(random_bytes()?);
    let node_id = directory.node_id();
    let log = stores.log.snapshot()?;
    let applied = stores.state.applied()?;
    let known = [log.committed, log.purged, applied.as_ref().map(|applied| applied.last_applied)];
    let known = known.into_iter().flatten().max_by_key(|id| id.index);
    let undecided = undecided_tail(stores, known, log.last)?;
    // What is known to be committed may have been lost with the end of the log; it is in the state then.
    let kept = log.last.or(known);

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
    Ok(ForcedCluster { old, new, kept, undecided })
}

fn undecided_tail(
    stores: &Stores,
    known: Option<LogId>,
    last: Option<LogId>,
) -> Result<UndecidedTail, StoreError> {
    let mut tail = UndecidedTail::default();
    let mut next = known.map_or(0, |known| known.index.saturating_add(1));
    while let Some(last) = last.filter(|last| next <= last.index) {
        let records = stores.log.read(next, last.index.saturating_add(1), READ_BYTES)?;
        let Some(end) = records.last().map(|record| record.id.index) else { break };
        for record in records {
            tail.entries += 1;
            tail.bytes = tail.bytes.saturating_add(record.payload.len() as u64);
            if tail.first.len() < NAMED_MAX {
                tail.first.push(record.id);
            }
        }
        next = end.saturating_add(1);
    }
    Ok(tail)
}
