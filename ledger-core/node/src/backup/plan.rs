//! Which chain leads to a point, and how far it has to be replayed.

use std::fmt;
use std::fs::File;
use std::io::BufReader;

use ledger_core::backup::{BackupError, Increment, Record};
use ledger_core::command::Command;
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::snapshot;
use ledger_verify::header::BlockHeader;

use super::failure::BackupFailure;
use super::folder::{BackupFolder, FileFault};
use super::manifest::{BackupFile, Manifest};
use super::verify::header_of;

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestorePoint {
    /// All that there is.
    Newest,
    /// The state after the log entry of this index.
    Index(u64),
    /// The state after everything up to this log time, unix milliseconds.
    TimeMs(u64),
    /// The last state in which a vault had this height.
    Height {
        /// The vault.
        vault: VaultRef,
        /// Its height.
        height: u64,
    },
}

impl fmt::Display for RestorePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => write!(f, "the end"),
            Self::Index(index) => write!(f, "entry {index}"),
            Self::TimeMs(time_ms) => write!(f, "the time {time_ms} ms"),
            Self::Height { vault, height } => write!(f, "height {height} of vault {vault}"),
        }
    }
}

/// Points that can be restored: all between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoveredRange {
    /// The first log entry.
    pub from_index: u64,
    /// The last log entry.
    pub through_index: u64,
    /// The first time, unix milliseconds.
    pub from_ms: u64,
    /// The last time, unix milliseconds.
    pub through_ms: u64,
}

impl CoveredRange {
    /// What the files of a chain cover; `None` when there are none.
    pub fn of(chain: &[BackupFile]) -> Option<Self> {
        let (first, last) = (chain.first()?, chain.last()?);
        Some(Self {
            from_index: first.through,
            through_index: last.through,
            from_ms: first.created_at_ms,
            through_ms: last.created_at_ms.max(last.last_time_ms),
        })
    }
}

impl fmt::Display for CoveredRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_index, through_index, from_ms, through_ms } = self;
        write!(f, "entries {from_index} to {through_index} (times {from_ms} to {through_ms} ms)")
    }
}

/// How a point is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// A base and the increments that are needed.
    pub chain: Vec<BackupFile>,
    /// Index of the last log entry that is replayed; `None` = all of the chain.
    pub until: Option<u64>,
    /// The newest file of the backup's chain, read or not: what it has and the point does not is left out.
    pub newest: Option<BackupFile>,
}

/// A base and its increments.
#[derive(Clone, Copy)]
struct Chain<'f> {
    /// Those up to the first that is not there.
    usable: &'f [BackupFile],
    broken_by: Option<(&'f BackupFile, FileFault)>,
    /// The newest one that is there.
    newest: Option<&'f BackupFile>,
}

impl<'f> Chain<'f> {
    fn of(folder: &BackupFolder, files: &'f [BackupFile]) -> Self {
        let (usable, broken_by) = folder.reachable(files);
        let newest = files.iter().rev().find(|file| folder.fault(file).is_none());
        Self { usable, broken_by, newest }
    }

    /// The files that are needed for an entry that the chain covers.
    fn up_to(&self, index: u64) -> RestorePlan {
        let needed = self.usable.iter().take_while(|file| file.after < index || file.after == 0);
        let files: Vec<BackupFile> = needed.cloned().collect();
        let until = files.last().filter(|last| last.through != index).map(|_| index);
        RestorePlan { chain: files, until, newest: self.newest.cloned() }
    }
}

impl RestorePlan {
    /// Finds how to restore a point. Reads increments where a time or a height is asked for.
    ///
    /// # Errors
    ///
    /// [`BackupFailure::NotCovered`] when no chain does, [`BackupFailure::Broken`] when a file is missing that it takes;
    /// when a file is refused.
    pub fn find(
        folder: &BackupFolder,
        manifest: &Manifest,
        point: &RestorePoint,
    ) -> Result<Self, BackupFailure> {
        let chains: Vec<Chain<'_>> = manifest.chains().iter().map(|files| Chain::of(folder, files)).collect();
        let plan = match point {
            RestorePoint::Newest => {
                let last = chains.last().filter(|chain| chain.broken_by.is_none());
                last.map(|chain| Self { until: None, ..chain.up_to(u64::MAX) })
            }
            RestorePoint::Index(index) => at_index(&chains, *index),
            RestorePoint::TimeMs(time_ms) => at_time(folder, &chains, *time_ms)?,
            RestorePoint::Height { vault, height } => at_height(folder, &chains, vault, *height)?,
        };
        let plan = plan.ok_or_else(|| not_covered(manifest, &chains, point))?;
        plan.refuse_lost(folder)?;
        Ok(plan)
    }

    /// A vault that was deleted before its last blocks came into the backup has no state in between.
    fn refuse_lost(&self, folder: &BackupFolder) -> Result<(), BackupFailure> {
        let (Some(index), Some(file)) = (self.until, self.chain.last()) else { return Ok(()) };
        if self.chain.len() < 2 {
            return Ok(());
        }
        let header = header_of(folder, file)?;
        let lost = header.lost.iter().find(|lost| index > header.after && index < lost.deleted_at);
        match lost {
            Some(lost) => Err(BackupFailure::Backup(BackupError::Lost {
                index,
                vault: lost.label.clone(),
                after: header.after,
                deleted_at: lost.deleted_at,
            })),
            None => Ok(()),
        }
    }
}

fn at_index(chains: &[Chain<'_>], index: u64) -> Option<RestorePlan> {
    let covers = |chain: &&Chain<'_>| {
        CoveredRange::of(chain.usable)
            .is_some_and(|range| (range.from_index..=range.through_index).contains(&index))
    };
    chains.iter().rev().find(covers).map(|chain| chain.up_to(index))
}

fn at_time(
    folder: &BackupFolder,
    chains: &[Chain<'_>],
    time_ms: u64,
) -> Result<Option<RestorePlan>, BackupFailure> {
    let begun =
        |chain: &&Chain<'_>| CoveredRange::of(chain.usable).is_some_and(|range| range.from_ms <= time_ms);
    let Some(chain) = chains.iter().rev().find(begun) else { return Ok(None) };
    let Some(range) = CoveredRange::of(chain.usable).filter(|range| time_ms <= range.through_ms) else {
        return Ok(None);
    };
    let mut until = range.from_index;
    for file in chain.usable.iter().skip(1) {
        if file.last_time_ms <= time_ms && file.created_at_ms <= time_ms {
            until = file.through;
            continue;
        }
        each_record(folder, file, &mut |record| {
            if record.time_ms() <= time_ms {
                until = record.index();
            }
        })?;
        break;
    }
    Ok(Some(chain.up_to(until)))
}

fn at_height(
    folder: &BackupFolder,
    chains: &[Chain<'_>],
    vault: &VaultRef,
    height: u64,
) -> Result<Option<RestorePlan>, BackupFailure> {
    let mut is_known = false;
    for chain in chains.iter().rev() {
        let mut track = Track::begin(folder, chain.usable, vault)?;
        is_known |= track.current.is_some();
        for file in chain.usable.iter().skip(1) {
            each_record(folder, file, &mut |record| track.record(record, vault, height))?;
            is_known |= track.current.is_some();
        }
        let through = chain.usable.last().map_or(0, |last| last.through);
        if track.current.is_some_and(|(_, now)| now == height) {
            track.until = Some(through);
        }
        if let Some(until) = track.until {
            return Ok(Some(chain.up_to(until)));
        }
    }
    let is_whole = chains.iter().all(|chain| chain.broken_by.is_none());
    if is_known || !is_whole { Ok(None) } else { Err(BackupFailure::UnknownVault { vault: vault.clone() }) }
}

/// A vault by name, while records pass.
struct Track {
    /// The vault that has the name now, and its height.
    current: Option<(VaultId, u64)>,
    /// The last entry at which the vault had the height.
    until: Option<u64>,
}

impl Track {
    fn begin(folder: &BackupFolder, chain: &[BackupFile], vault: &VaultRef) -> Result<Self, BackupFailure> {
        let Some(base) = chain.first() else { return Ok(Self { current: None, until: None }) };
        let path = folder.file(base);
        let file = File::open(&path).map_err(BackupFailure::io("open", path))?;
        let summary = snapshot::summarise(file)
            .map_err(|error| BackupFailure::File { file: base.file.clone(), source: error.into() })?;
        let named =
            |entry: &&snapshot::VaultEntry| entry.namespace == vault.namespace && entry.name == vault.vault;
        let entry = summary.header.vaults.iter().find(named);
        let current = entry.and_then(|entry| {
            let header = BlockHeader::decode(&entry.header).ok()?;
            Some((entry.id, header.height))
        });
        Ok(Self { current, until: None })
    }

    fn record(&mut self, record: &Record, vault: &VaultRef, height: u64) {
        let before = record.index().saturating_sub(1);
        match record {
            Record::Command(journaled) => match &journaled.command {
                Command::CreateVault { vault: created, .. }
                | Command::CreateVaultRetaining { vault: created, .. }
                    if created == vault =>
                {
                    self.current = journaled.vault.map(|id| (id, 0));
                }
                Command::DeleteVault { vault: deleted } if deleted == vault => {
                    if self.current.is_some_and(|(_, now)| now == height) {
                        self.until = Some(before);
                    }
                    self.current = None;
                }
                _ => {}
            },
            Record::Block(block) => {
                let id = VaultId(block.header.vault_id);
                if let Some((_, now)) = self.current.as_mut().filter(|(current, _)| *current == id) {
                    if *now == height && block.header.height > height {
                        self.until = Some(before);
                    }
                    *now = block.header.height;
                }
            }
        }
    }
}

fn each_record(
    folder: &BackupFolder,
    file: &BackupFile,
    visit: &mut dyn FnMut(&Record),
) -> Result<(), BackupFailure> {
    let named = |source: BackupError| BackupFailure::File { file: file.file.clone(), source };
    let mut increment = Increment::open(BufReader::new(folder.open(file)?)).map_err(named)?;
    while let Some(record) = increment.next_record().map_err(named)? {
        visit(&record);
    }
    Ok(())
}

fn not_covered(manifest: &Manifest, chains: &[Chain<'_>], point: &RestorePoint) -> BackupFailure {
    let asked = point.clone();
    let covered = chains.iter().filter_map(|chain| CoveredRange::of(chain.usable)).collect();
    let listed = manifest.chains();
    let is_listed = |covers: &dyn Fn(CoveredRange) -> bool| {
        listed.iter().filter_map(|chain| CoveredRange::of(chain)).any(covers)
    };
    let may_be_there = match point {
        RestorePoint::Index(index) => {
            is_listed(&|range| (range.from_index..=range.through_index).contains(index))
        }
        RestorePoint::TimeMs(time) => is_listed(&|range| (range.from_ms..=range.through_ms).contains(time)),
        // Nobody knows what a missing file holds.
        RestorePoint::Newest | RestorePoint::Height { .. } => true,
    };
    match chains.iter().rev().find_map(|chain| chain.broken_by).filter(|_| may_be_there) {
        Some((file, fault)) => BackupFailure::Broken { file: file.file.clone(), fault, asked, covered },
        None => BackupFailure::NotCovered { asked, covered },
    }
}
