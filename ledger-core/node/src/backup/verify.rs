//! Verifying a backup without its ledger: every file, every chain, every checkpoint that somebody kept.

use std::io::{BufReader, Read};
use std::ops::ControlFlow;

use ledger_core::backup::{BackupError, ChainCheck, ChainVault, Continuity, Increment, Reach, Witness};
use ledger_core::names::LedgerId;
use ledger_core::snapshot;
use ledger_verify::note::VerifierKey;

use super::failure::BackupFailure;
use super::folder::{BackupFolder, ListedFile};
use super::manifest::{BackupFile, FileKind, Manifest};

/// The file is read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// A backup that holds what it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// Index of the last log entry.
    pub through: u64,
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blocks of the increments, replayed.
    pub blocks: u64,
    /// What the last chain leads to.
    pub vaults: Vec<ChainVault>,
}

/// Verifies every file and chain of a backup, with `keys` every signed checkpoint in it, and that it leads to every one of
/// the `witnesses`. `watch` gets the bytes that were read.
///
/// # Errors
///
/// The first thing that does not fit.
pub fn verify_backup(
    folder: &BackupFolder,
    manifest: &Manifest,
    keys: &[VerifierKey],
    witnesses: &[Witness],
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<BackupReport, BackupFailure> {
    let chains = manifest.chains();
    let mut report = None;
    let mut before: Option<Continuity> = None;
    let mut open: Vec<Witness> = witnesses.to_vec();
    let mut read_bytes = 0;
    let mut totals = (0, 0);
    for (number, chain) in (1..).zip(&chains) {
        let mut expected = open.clone();
        let earlier = before.take().map(|before| before.witnesses()).unwrap_or_default();
        expected.extend(earlier.iter().cloned());
        let mut follow = |bytes| watch(read_bytes + bytes);
        let checked = check_chain(folder, chain, keys, &expected, &mut follow)?;
        read_bytes += chain.iter().map(|file| file.bytes).sum::<u64>();
        totals = (totals.0 + chain.len() as u64, totals.1 + checked.blocks);
        let file = chain.last().map(|file| file.file.clone()).unwrap_or_default();
        let named = |source| BackupFailure::File { file: file.clone(), source };
        // Vaults that a later chain does not know were deleted between the chains.
        let kept: Vec<Witness> =
            earlier.into_iter().filter(|witness| checked.check.knows(witness.vault)).collect();
        checked.check.compare(&kept, Reach::All).map_err(named)?;
        let reach = if number == chains.len() { Reach::All } else { Reach::Held };
        let held = checked.check.compare(&open, reach).map_err(named)?;
        let mut held = held.into_iter();
        open.retain(|_| !held.next().unwrap_or(false));
        before = Some(checked.end);
        let through = checked.check.through();
        report = Some(BackupReport {
            ledger_id: checked.check.ledger_id(),
            through,
            files: totals.0,
            bytes: read_bytes,
            blocks: totals.1,
            vaults: checked.check.finish(),
        });
    }
    report.ok_or_else(|| BackupFailure::NoBackup { path: folder.path().to_owned() })
}

/// Verifies one chain alone, as [`verify_backup`] does.
///
/// # Errors
///
/// The first thing that does not fit.
pub fn verify_chain(
    folder: &BackupFolder,
    chain: &[BackupFile],
    keys: &[VerifierKey],
    witnesses: &[Witness],
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Vec<ChainVault>, BackupFailure> {
    let checked = check_chain(folder, chain, keys, witnesses, watch)?;
    let file = chain.last().map(|file| file.file.clone()).unwrap_or_default();
    let compared = checked.check.compare(witnesses, Reach::All);
    compared.map_err(|source| BackupFailure::File { file, source })?;
    Ok(checked.check.finish())
}

struct CheckedChain {
    check: ChainCheck,
    end: Continuity,
    blocks: u64,
}

fn check_chain(
    folder: &BackupFolder,
    chain: &[BackupFile],
    keys: &[VerifierKey],
    witnesses: &[Witness],
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<CheckedChain, BackupFailure> {
    let Some((base, increments)) = chain.split_first() else {
        return Err(BackupFailure::NoBackup { path: folder.path().to_owned() });
    };
    let named = |source| BackupFailure::File { file: base.file.clone(), source };
    let mut follow = |progress: &snapshot::Progress| watch(progress.file_bytes);
    let (mut check, verified) =
        listed(folder, base, |input| ChainCheck::base(input, keys, witnesses, &mut follow).map_err(named))?;
    let header = verified.header;
    let mut end = Continuity::of(header.ledger_id, header.applied.index, &header.vaults).map_err(named)?;
    described(base, FileKind::Base, header.applied.index)?;
    let mut read = base.bytes;
    let mut blocks = 0;
    for file in increments {
        let named = |source| BackupFailure::File { file: file.file.clone(), source };
        let checked = listed(folder, file, |input| {
            check.increment(input, keys, &mut |progress| watch(read + progress.file_bytes)).map_err(named)
        })?;
        described(file, FileKind::Increment, check.through())?;
        blocks += checked.trailer.blocks;
        read += file.bytes;
        let header = header_of(folder, file)?;
        end = Continuity::of(header.ledger_id, header.applied.index, &header.vaults).map_err(named)?;
    }
    Ok(CheckedChain { check, end, blocks })
}

/// The manifest says of a file what the file says of itself.
fn described(file: &BackupFile, kind: FileKind, through: u64) -> Result<(), BackupFailure> {
    if file.kind == kind && file.through == through {
        return Ok(());
    }
    Err(BackupFailure::OtherFile { file: file.file.clone(), what: "what it covers" })
}

/// Reads a file whole and compares it with the manifest.
pub(super) fn listed<T>(
    folder: &BackupFolder,
    file: &BackupFile,
    read: impl FnOnce(&mut dyn Read) -> Result<T, BackupFailure>,
) -> Result<T, BackupFailure> {
    let mut input: BufReader<ListedFile> = BufReader::with_capacity(READ_BYTES, folder.open(file)?);
    let outcome = read(&mut input)?;
    input.into_inner().finish()?;
    Ok(outcome)
}

/// What an increment says about itself, its records not read.
pub(super) fn header_of(
    folder: &BackupFolder,
    file: &BackupFile,
) -> Result<ledger_core::backup::IncrementHeader, BackupFailure> {
    let named = |source: BackupError| BackupFailure::File { file: file.file.clone(), source };
    let increment = Increment::open(BufReader::new(folder.open(file)?)).map_err(named)?;
    Ok(increment.header().clone())
}
