//! A backup of a data directory that nobody serves.

use std::io::Write;
use std::ops::ControlFlow;

use ledger_core::backup::{BackupError, Gathered, IncrementHeader, IncrementTrailer};
use ledger_core::names::LedgerId;
use ledger_core::ports::{LogChange, LogSnapshot, SignedMark, StateView};
use ledger_core::snapshot::{self, Header};
use ledger_verify::header::BlockHeader;
use ledger_verify::note::{Checkpoint, SignedCheckpoint};

use super::failure::BackupFailure;
use crate::directory::DataDirectory;
use crate::ledger::Stores;

/// What a data directory holds durably in its state, with its newest blocks signed.
pub struct OfflineSource {
    view: Box<dyn StateView>,
    outline: Header,
    log_last: u64,
}

impl OfflineSource {
    /// Reads a directory whose stores are open. The newest block of every vault is signed; its mark is durable before.
    ///
    /// # Errors
    ///
    /// When a store fails, or what is stored contradicts what was signed.
    pub fn open(
        directory: &DataDirectory,
        stores: &Stores,
        created_at_ms: u64,
    ) -> Result<Self, BackupFailure> {
        let view = stores.state.view()?;
        let mut outline = snapshot::outline(view.as_ref(), created_at_ms).map_err(snapshot_of)?;
        if outline.ledger_id != directory.ledger_id() {
            let (folder, ledger) = (outline.ledger_id, directory.ledger_id());
            return Err(BackupFailure::OtherLedger { folder, ledger });
        }
        let log = stores.log.snapshot()?;
        sign(directory, stores, &log, &mut outline)?;
        let log_last = log.last.map_or(0, |last| last.index);
        Ok(Self { view, outline, log_last })
    }

    /// The ledger.
    pub fn ledger_id(&self) -> LedgerId {
        self.outline.ledger_id
    }

    /// Index of the last entry that is in the state; entries of the log after it are not in the backup.
    pub fn applied_index(&self) -> u64 {
        self.outline.applied.index
    }

    /// Index of the last entry of the log.
    pub fn log_last_index(&self) -> u64 {
        self.log_last
    }

    /// Writes a base.
    ///
    /// # Errors
    ///
    /// When a vault is fenced, a store or the sink fails, or `watch` breaks it off.
    pub fn write_base(
        &self,
        sink: &mut dyn Write,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Header, BackupFailure> {
        if let Some(fenced) = self.outline.vaults.iter().find(|entry| entry.fenced) {
            return Err(BackupError::Fenced { vault: fenced.label() }.into());
        }
        let mut follow = |progress: &snapshot::Progress| watch(progress.file_bytes);
        let written = snapshot::write(self.view.as_ref(), &self.outline, sink, &mut follow);
        written.map_err(|error| BackupFailure::Snapshot(crate::snapshots::SnapshotFailure::Write(error)))?;
        Ok(self.outline.clone())
    }

    /// Writes an increment; one without records when nothing has happened since.
    ///
    /// # Errors
    ///
    /// As [`Gathered::since`] and [`write_base`](Self::write_base).
    pub fn write_increment(
        &self,
        after: u64,
        sink: &mut dyn Write,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(IncrementHeader, IncrementTrailer), BackupFailure> {
        let gathered = Gathered::since(self.view.as_ref(), self.outline.clone(), after)?;
        let header = gathered.header().clone();
        let written = gathered.write(sink, &mut |progress| watch(progress.file_bytes))?;
        Ok((header, written.trailer))
    }
}

fn snapshot_of(error: ledger_core::ledger_state::StateError) -> BackupFailure {
    BackupFailure::Backup(error.into())
}

/// Signs the newest block of every vault, as the checkpoint signer does: the mark first. A mark that is further on than
/// the state is left alone: what the state holds was signed before.
fn sign(
    directory: &DataDirectory,
    stores: &Stores,
    log: &LogSnapshot,
    outline: &mut Header,
) -> Result<(), BackupFailure> {
    let key = directory.signing_key();
    let mut marks = Vec::new();
    for entry in outline.vaults.iter_mut().filter(|entry| !entry.fenced) {
        let Ok(tip) = BlockHeader::decode(&entry.header) else { continue };
        let (size, root) = (tip.height.saturating_add(1), entry.log_root);
        let marked = log.signed.iter().find(|mark| mark.vault == entry.id);
        if marked.is_none_or(|mark| mark.size < size) {
            marks.push(LogChange::SaveSigned(SignedMark { vault: entry.id, size, root }));
        }
        let origin = format!("{}/{}", key.name(), entry.id);
        entry.checkpoint = Some(SignedCheckpoint::sign(&Checkpoint { origin, size, root }, key));
    }
    if marks.is_empty() {
        return Ok(());
    }
    Ok(stores.log.commit(&marks)?)
}
