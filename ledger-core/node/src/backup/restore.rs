//! From a backup to a data directory that a node opens, at any point that the backup covers.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use ledger_core::backup::{BackupError, Increment, IncrementHeader, Replay};
use ledger_core::ledger_state::{LedgerState, without_cluster};
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{AppliedState, LogChange, LogId, SignedMark, StateBatch, StoredVote};
use ledger_core::snapshot::{self, VaultEntry};
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::note::{SignedCheckpoint, VerifierKey};

use super::failure::BackupFailure;
use super::folder::BackupFolder;
use super::manifest::BackupFile;
use super::plan::RestorePlan;
use super::verify::{header_of, listed};
use crate::directory::RestoreTarget;
use crate::ledger::Stores;
use crate::snapshots::restore_snapshot;

/// Bytes of what was replayed that are stored at a time (32 MiB).
const FLUSH_BYTES: usize = 32 << 20;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredBackup {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// The last log entry whose effects are there.
    pub applied: LogId,
    /// Log time, unix milliseconds.
    pub log_time_ms: u64,
    /// Blocks that were replayed on the base.
    pub blocks: u64,
    /// The vaults that there are.
    pub vaults: Vec<RestoredVault>,
    /// A signed checkpoint of the newest file that was read, when there is one: which key signed then.
    pub newest_note: Option<String>,
}

/// A vault that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredVault {
    /// `NAMESPACE/VAULT`.
    pub label: String,
    /// Its identity.
    pub id: VaultId,
    /// Height of its newest block.
    pub height: u64,
    /// Hash of its newest block.
    pub block_hash: Hash,
    /// State root of its newest block.
    pub state_root: Hash,
    /// Height that it has at the end of the backup; `None` = it is deleted there.
    pub height_in_backup: Option<u64>,
}

/// Restores a point into the empty stores of `target`, where this node becomes the only voter: the base as
/// [`restore_snapshot`] does, then every record up to the point, each block compared with its header. Close the stores, then
/// call [`RestoreTarget::finish`].
///
/// # Errors
///
/// The first thing that does not fit: then nothing in the directory may be used.
pub fn restore_backup(
    target: &RestoreTarget,
    stores: &Stores,
    folder: &BackupFolder,
    plan: &RestorePlan,
    keys: &[VerifierKey],
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<RestoredBackup, BackupFailure> {
    let Some((base, increments)) = plan.chain.split_first() else {
        return Err(BackupFailure::NoBackup { path: folder.path().to_owned() });
    };
    let mut follow = |progress: &snapshot::Progress| watch(progress.file_bytes);
    let verified = listed(folder, base, |input| {
        let restored = restore_snapshot(target, stores, input, keys, &mut follow);
        restored.map_err(|source| BackupFailure::Restore { file: base.file.clone(), source })
    })?;
    let mut end = heights(&verified.header.vaults);
    let mut state = LedgerState::load(Arc::clone(&stores.state)).map_err(BackupError::from)?;
    let mut replayed = Replayed { state: &mut state, stores, until: plan.until, blocks: 0 };
    let mut read = base.bytes;
    let (mut newest, mut later) = (None, None);
    for file in increments {
        let header =
            listed(folder, file, |input| replayed.file(file, input, &mut |bytes| watch(read + bytes)))?;
        read += file.bytes;
        end = heights(&header.vaults);
        newest = Some(header);
    }
    // The files after the point were not read, but what they have is left out, and said to be.
    if let Some(last) = plan.newest.as_ref().filter(|last| increments.last().unwrap_or(base) != *last) {
        let header = header_of(folder, last)?;
        end = heights(&header.vaults);
        later = Some(header);
    }
    let blocks = replayed.blocks;
    if let Some(newest) = &newest {
        finish(target, stores, &mut state, newest, plan.until)?;
    }
    let applied = state.last_applied().unwrap_or(verified.header.applied);
    // Clients know the key that signs now, not the one that signed at the point.
    let entries = later.as_ref().or(newest.as_ref()).map_or(&verified.header.vaults, |newest| &newest.vaults);
    let newest_note = entries.iter().find_map(|entry| entry.checkpoint.clone());
    Ok(RestoredBackup {
        ledger_id: verified.header.ledger_id,
        applied,
        log_time_ms: state.log_time_ms(),
        blocks,
        vaults: vaults(&state, &end),
        newest_note,
    })
}

fn heights(entries: &[VaultEntry]) -> BTreeMap<VaultId, u64> {
    let height = |entry: &VaultEntry| {
        let header = BlockHeader::decode(&entry.header).ok()?;
        Some((entry.id, header.height))
    };
    entries.iter().filter_map(height).collect()
}

fn vaults(state: &LedgerState, end: &BTreeMap<VaultId, u64>) -> Vec<RestoredVault> {
    let restored = |info: ledger_core::command::VaultInfo| RestoredVault {
        label: format!("{}/{}", info.namespace, info.name),
        id: info.id,
        height: info.height,
        block_hash: info.block_hash,
        state_root: info.state_root,
        height_in_backup: end.get(&info.id).copied(),
    };
    state.vaults(None, None, usize::MAX).into_iter().map(restored).collect()
}

struct Replayed<'r> {
    state: &'r mut LedgerState,
    stores: &'r Stores,
    until: Option<u64>,
    blocks: u64,
}

impl Replayed<'_> {
    /// Replays what is wanted of an increment, and reads the rest of it: its hash covers all.
    fn file(
        &mut self,
        file: &BackupFile,
        input: &mut dyn Read,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<IncrementHeader, BackupFailure> {
        let named = |source: BackupError| BackupFailure::File { file: file.file.clone(), source };
        let mut increment = Increment::open(input).map_err(named)?;
        let header = increment.header().clone();
        let mut replay = Replay::new(self.state, &header).map_err(named)?;
        while let Some(record) = increment.next_record().map_err(named)? {
            if self.until.is_none_or(|until| record.index() <= until) {
                replay.record(record).map_err(named)?;
                if replay.state().overlay_bytes() >= FLUSH_BYTES {
                    flush(replay.state(), self.stores)?;
                }
            }
            if watch(increment.progress().file_bytes).is_break() {
                return Err(named(BackupError::Cancelled));
            }
        }
        increment.finish().map_err(named)?;
        let whole = self.until.is_none_or(|until| until >= header.applied.index);
        self.blocks += replay.finish(whole.then_some(header.applied)).map_err(named)?;
        Ok(header)
    }
}

fn flush(state: &mut LedgerState, stores: &Stores) -> Result<(), BackupFailure> {
    if let Some(job) = state.start_flush() {
        stores.state.commit(&job.batch())?;
        state.finish_flush();
    }
    Ok(())
}

/// Stores the rest, and lets the log begin after the point.
fn finish(
    target: &RestoreTarget,
    stores: &Stores,
    state: &mut LedgerState,
    newest: &IncrementHeader,
    until: Option<u64>,
) -> Result<(), BackupFailure> {
    flush(state, stores)?;
    let Some(applied) = state.last_applied() else { return Ok(()) };
    let position = AppliedState { last_applied: applied, membership: state.membership().clone() };
    // What is restored is no member of the cluster that the backup is of.
    let rows = vec![without_cluster()];
    stores.state.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied: position })?;
    // As a snapshot's: the restored node leads in a later term.
    let vote = StoredVote { term: applied.term, node: Some(target.node_id()), committed: false };
    let mut changes = vec![LogChange::SaveVote(vote), LogChange::PurgeThrough(applied)];
    changes.push(LogChange::SaveCommitted(applied));
    if until.is_none() {
        changes.extend(newest.vaults.iter().filter_map(mark));
    }
    Ok(stores.log.commit(&changes)?)
}

fn mark(entry: &VaultEntry) -> Option<LogChange> {
    let signed = SignedCheckpoint::parse(entry.checkpoint.as_deref()?).ok()?;
    let checkpoint = signed.checkpoint();
    Some(LogChange::SaveSigned(SignedMark { vault: entry.id, size: checkpoint.size, root: checkpoint.root }))
}
