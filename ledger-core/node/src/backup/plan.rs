//! Which chain leads to a point, and how far it has to be replayed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;

use ledger_core::backup::{BackupError, Increment, Record};
use ledger_core::command::Command;
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::snapshot;
use ledger_verify::header::BlockHeader;

use super::failure::BackupFailure;
use super::folder::BackupFolder;
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

impl RestorePlan {
    /// Finds how to restore a point. Reads increments where a time or a height is asked for.
    ///
    /// # Errors
    ///
    /// [`BackupFailure::NotCovered`] when no chain does; when a file is refused.
    pub fn find(
        folder: &BackupFolder,
        manifest: &Manifest,
        point: &RestorePoint,
    ) -> Result<Self, BackupFailure> {
        let chains = manifest.chains();
        let plan = match point {
            RestorePoint::Newest => chains.last().map(|chain| Self {
                chain: chain.to_vec(),
                until: None,
                newest: chain.last().cloned(),
            }),
            RestorePoint::Index(index) => at_index(&chains, *index),
            RestorePoint::TimeMs(time_ms) => at_time(folder, &chains, *time_ms)?,
            RestorePoint::Height { vault, height } => at_height(folder, &chains, vault, *height)?,
        };
        let plan = plan.ok_or_else(|| not_covered(&chains, point))?;
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

/// The files of a chain that are needed for an entry that it covers.
fn up_to(chain: &[BackupFile], index: u64) -> RestorePlan {
    let needed = chain.iter().take_while(|file| file.after < index || file.after == 0);
    let files: Vec<BackupFile> = needed.cloned().collect();
    let until = files.last().filter(|last| last.through != index).map(|_| index);
    RestorePlan { chain: files, until, newest: chain.last().cloned() }
}

fn ends(chain: &[BackupFile]) -> Option<(&BackupFile, &BackupFile)> {
    Some((chain.first()?, chain.last()?))
}

fn at_index(chains: &[&[BackupFile]], index: u64) -> Option<RestorePlan> {
    let covers = |chain: &&&[BackupFile]| {
        ends(chain).is_some_and(|(first, last)| first.through <= index && index <= last.through)
    };
    chains.iter().rev().find(covers).map(|chain| up_to(chain, index))
}

fn at_time(
    folder: &BackupFolder,
    chains: &[&[BackupFile]],
    time_ms: u64,
) -> Result<Option<RestorePlan>, BackupFailure> {
    let begun = |chain: &&&[BackupFile]| ends(chain).is_some_and(|(first, _)| first.created_at_ms <= time_ms);
    let Some(chain) = chains.iter().rev().find(begun) else { return Ok(None) };
    let Some((first, last)) = ends(chain) else { return Ok(None) };
    if time_ms > last.created_at_ms.max(last.last_time_ms) {
        return Ok(None);
    }
    let mut until = first.through;
    for file in chain.iter().skip(1) {
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
    Ok(Some(up_to(chain, until)))
}

fn at_height(
    folder: &BackupFolder,
    chains: &[&[BackupFile]],
    vault: &VaultRef,
    height: u64,
) -> Result<Option<RestorePlan>, BackupFailure> {
    let mut is_known = false;
    for chain in chains.iter().rev() {
        let mut track = Track::begin(folder, chain, vault)?;
        is_known |= track.current.is_some();
        for file in chain.iter().skip(1) {
            each_record(folder, file, &mut |record| track.record(record, vault, height))?;
            is_known |= track.current.is_some();
        }
        let through = ends(chain).map_or(0, |(_, last)| last.through);
        if track.current.is_some_and(|(_, now)| now == height) {
            track.until = Some(through);
        }
        if let Some(until) = track.until {
            return Ok(Some(up_to(chain, until)));
        }
    }
    if is_known { Ok(None) } else { Err(BackupFailure::UnknownVault { vault: vault.clone() }) }
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

fn not_covered(chains: &[&[BackupFile]], point: &RestorePoint) -> BackupFailure {
    let asked = match point {
        RestorePoint::Newest => "anything".to_owned(),
        RestorePoint::Index(index) => format!("entry {index}"),
        RestorePoint::TimeMs(time_ms) => format!("the time {time_ms} ms"),
        RestorePoint::Height { vault, height } => format!("height {height} of vault {vault}"),
    };
    let ranges: BTreeMap<u64, String> = chains
        .iter()
        .filter_map(|chain| ends(chain))
        .map(|(first, last)| {
            let text = format!(
                "entries {} to {} (times {} to {} ms)",
                first.through,
                last.through,
                first.created_at_ms,
                last.created_at_ms.max(last.last_time_ms)
            );
            (first.through, text)
        })
        .collect();
    let covered = match ranges.is_empty() {
        true => "it has no file".to_owned(),
        false => format!("it covers {}", ranges.into_values().collect::<Vec<_>>().join(", ")),
    };
    BackupFailure::NotCovered { asked, covered }
}
