//! From a snapshot to a data directory that a node opens.

use std::io::Read;
use std::ops::ControlFlow;

use bytes::Bytes;
use ledger_core::ledger_state::{LedgerState, StateError, without_cluster};
use ledger_core::ports::{
    AppliedState, LogChange, RowChange, SignedMark, StateBatch, StateStore, StoreError, StoredVote,
};
use ledger_core::snapshot::{self, Header, Progress, SnapshotError, Verified};
use ledger_verify::note::{SignedCheckpoint, VerifierKey};

use crate::directory::RestoreTarget;
use crate::ledger::Stores;
use crate::raft::sole_voter;

/// Bytes of rows in one commit (16 MiB): a commit costs a few syncs.
const COMMIT_BYTES: usize = 16 << 20;

/// A snapshot was not restored. The directory cannot be opened; begin anew, or remove it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot was refused.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log cannot be written.
    #[error("the restored log cannot be written: {0}")]
    Log(#[source] StoreError),
    /// What was restored does not open.
    #[error("what was restored does not open: {0}")]
    State(#[source] StateError),
    /// The stores have content already.
    #[error("the stores to restore into are not empty: give a new directory")]
    NotEmpty,
    /// The stored membership is none.
    #[error("the membership in the snapshot does not decode: {0}")]
    Membership(String),
}

/// Restores a snapshot into the empty stores of `target`, where this node becomes the only voter: everything is
/// verified as [`snapshot::verify`] does, stored, and opened once. Close the stores, then call
/// [`RestoreTarget::finish`]. The restored log begins after the last entry of the snapshot, in a term of its own.
///
/// # Errors
///
/// The first thing that does not fit: then nothing in the directory may be used.
pub fn restore_snapshot(
    target: &RestoreTarget,
    stores: &Stores,
    input: impl Read,
    keys: &[VerifierKey],
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Verified, RestoreError> {
    let empty = stores.state.applied().map_err(SnapshotError::Sink)?.is_none()
        && stores.log.snapshot().map_err(RestoreError::Log)? == Default::default();
    if !empty {
        return Err(RestoreError::NotEmpty);
    }
    let node_id = target.node_id();
    let mut rows = Rows { store: stores.state.as_ref(), batch: Vec::new(), bytes: 0 };
    let mut applied = None;
    let mut store = |header: &Header, row: RowChange| {
        let applied = applied.get_or_insert_with(|| applied_state(header, node_id)).as_ref();
        rows.put(row, applied.map_err(|error| refused(error.clone()))?)
    };
    let verified = snapshot::restore(input, keys, &mut store, watch)?;
    let applied = match applied {
        Some(applied) => applied,
        None => applied_state(&verified.header, node_id),
    };
    let applied = applied.map_err(RestoreError::Membership)?;
    rows.commit(&applied).map_err(SnapshotError::Sink)?;
    // What is restored is no member of the cluster that the snapshot is of.
    rows.batch.push(without_cluster());
    rows.commit(&applied).map_err(SnapshotError::Sink)?;
    stores.log.commit(&log_changes(&verified.header, node_id)).map_err(RestoreError::Log)?;
    LedgerState::load(std::sync::Arc::clone(&stores.state)).map_err(RestoreError::State)?;
    Ok(verified)
}

/// The end of the log as the snapshot has it, with the restored node as its one member.
fn applied_state(header: &Header, node_id: u64) -> Result<AppliedState, String> {
    let membership: Bytes = sole_voter(&header.membership, node_id).map_err(|error| error.to_string())?;
    Ok(AppliedState { last_applied: header.applied, membership })
}

fn refused(what: String) -> StoreError {
    StoreError::Engine { action: "restore the membership", source: what.into() }
}

/// An empty log that begins after the snapshot. The vote is of the snapshot's term, so that the restored node leads
/// in a later one; the marks keep it from signing less than what the snapshot shows was signed.
fn log_changes(header: &Header, node_id: u64) -> Vec<LogChange> {
    let vote = StoredVote { term: header.applied.term, node: Some(node_id), committed: false };
    let mut changes = vec![LogChange::SaveVote(vote), LogChange::PurgeThrough(header.applied)];
    changes.push(LogChange::SaveCommitted(header.applied));
    for entry in &header.vaults {
        let signed = entry.checkpoint.as_deref().and_then(|note| SignedCheckpoint::parse(note).ok());
        if let Some(signed) = signed {
            let (size, root) = (signed.checkpoint().size, signed.checkpoint().root);
            changes.push(LogChange::SaveSigned(SignedMark { vault: entry.id, size, root }));
        }
    }
    changes
}

/// Rows on their way into the store, a commit at a time.
struct Rows<'s> {
    store: &'s dyn StateStore,
    batch: Vec<RowChange>,
    bytes: usize,
}

impl Rows<'_> {
    fn put(&mut self, row: RowChange, applied: &AppliedState) -> Result<(), StoreError> {
        self.bytes += row.key.len() + row.value.as_ref().map_or(0, Bytes::len);
        self.batch.push(row);
        if self.bytes >= COMMIT_BYTES { self.commit(applied) } else { Ok(()) }
    }

    fn commit(&mut self, applied: &AppliedState) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied: applied.clone() })
    }
}
