//! Taking a received file into a backup: only when it goes on with the history that is there.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;

use ledger_core::backup::{BackupError, Continuity, IncrementSummary};
use ledger_core::names::LedgerId;
use ledger_core::snapshot;

use super::failure::BackupFailure;
use super::folder::{BackupFolder, BackupWriter, Staged};
use super::manifest::{BackupFile, FileKind, Manifest};
use super::verify::header_of;

/// The file is read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

impl BackupFolder {
    /// Where the newest file of a backup ends that is there; `None` when there is no file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn end_of(&self, manifest: &Manifest) -> Result<Option<Continuity>, BackupFailure> {
        let there = manifest.files.iter().rev().find(|file| self.fault(file).is_none());
        let Some(newest) = there else { return Ok(None) };
        let named = |source| BackupFailure::File { file: newest.file.clone(), source };
        let end = match newest.kind {
            FileKind::Base => {
                let path = self.file(newest);
                let file = File::open(&path).map_err(BackupFailure::io("open", path))?;
                let header = snapshot::summarise(file).map_err(|error| named(error.into()))?.header;
                Continuity::of(header.ledger_id, header.applied.index, &header.vaults)
            }
            FileKind::Increment => {
                let header = header_of(self, newest)?;
                Continuity::of(header.ledger_id, header.applied.index, &header.vaults)
            }
        };
        end.map(Some).map_err(named)
    }
}

impl BackupWriter {
    /// Takes a base, which begins a chain. It must go on with the history of the files that are there.
    ///
    /// # Errors
    ///
    /// [`BackupError::Fork`] in a [`BackupFailure::Backup`] when it is of another history; when it is no base, or a vault
    /// in it is fenced.
    pub fn accept_base(
        &mut self,
        staged: &Staged,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<BackupFile, BackupFailure> {
        let summary = snapshot::summarise(open(staged)?).map_err(BackupError::from)?;
        let header = summary.header;
        if let Some(fenced) = header.vaults.iter().find(|vault| vault.fenced) {
            return Err(BackupError::Fenced { vault: fenced.label() }.into());
        }
        if let Some(end) = self.end(header.ledger_id)? {
            end.base(BufReader::with_capacity(READ_BYTES, open(staged)?), watch)?;
        }
        let (kind, through) = (FileKind::Base, header.applied.index);
        self.add(staged, header.ledger_id, |before, bytes, sha256| BackupFile {
            file: BackupFile::name_of(before, kind, 0, through),
            kind,
            after: 0,
            through,
            term: header.applied.term,
            created_at_ms: header.created_at_ms,
            last_time_ms: 0,
            bytes,
            sha256,
            vaults: header.vaults.len() as u64,
            blocks: 0,
            transactions: 0,
            commands: 0,
        })
    }

    /// Takes an increment, which must go on with the newest file. `None`: it has no records, and the ledger is where the
    /// backup ends.
    ///
    /// # Errors
    ///
    /// [`BackupError::Fork`] in a [`BackupFailure::Backup`] when it is of another history; when it is no increment.
    pub fn accept_increment(
        &mut self,
        staged: &Staged,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<BackupFile>, BackupFailure> {
        let Some(manifest) = self.manifest() else {
            return Err(BackupFailure::NoBackup { path: self.folder().path().to_owned() });
        };
        let ledger_id = manifest.ledger_id;
        let end = self.folder().end_of(manifest)?;
        let end = end.ok_or_else(|| BackupFailure::NoBackup { path: self.folder().path().to_owned() })?;
        let input = BufReader::with_capacity(READ_BYTES, open(staged)?);
        let IncrementSummary { header, trailer, .. } =
            end.increment(input, &mut |progress| watch(progress.file_bytes))?;
        if trailer.blocks == 0 && trailer.commands == 0 {
            discard(staged);
            return Ok(None);
        }
        let (kind, after, through) = (FileKind::Increment, header.after, header.applied.index);
        let added = self.add(staged, ledger_id, |before, bytes, sha256| BackupFile {
            file: BackupFile::name_of(before, kind, after, through),
            kind,
            after,
            through,
            term: header.applied.term,
            created_at_ms: header.created_at_ms,
            last_time_ms: trailer.last_time_ms,
            bytes,
            sha256,
            vaults: header.vaults.len() as u64,
            blocks: trailer.blocks,
            transactions: trailer.transactions,
            commands: trailer.commands,
        })?;
        Ok(Some(added))
    }

    /// The end of what is there, which must be of this ledger.
    fn end(&self, ledger: LedgerId) -> Result<Option<Continuity>, BackupFailure> {
        let Some(manifest) = self.manifest() else { return Ok(None) };
        if manifest.ledger_id != ledger {
            return Err(BackupFailure::OtherLedger { folder: manifest.ledger_id, ledger });
        }
        self.folder().end_of(manifest)
    }
}

/// What cannot be removed now is removed by the next writer.
fn discard(staged: &Staged) {
    let _ = std::fs::remove_file(&staged.path);
}

fn open(staged: &Staged) -> Result<File, BackupFailure> {
    File::open(&staged.path).map_err(BackupFailure::io("open", &staged.path))
}
