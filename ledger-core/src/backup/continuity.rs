//! Whether new files go on with the history of those that are there: blocks only, no state. Fast enough for every backup;
//! [`ChainCheck`](super::ChainCheck) is the thorough one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;

use ledger_verify::Hash;
use ledger_verify::hash::log_leaf;
use ledger_verify::header::BlockHeader;

use super::chain_check::Witness;
use super::error::BackupError;
use super::increment::{BlockRecord, IncrementProgress, Record};
use super::read::{Increment, IncrementSummary};
use crate::command::Command;
use crate::names::{LedgerId, VaultId};
use crate::ports::Table;
use crate::snapshot::read::Reader;
use crate::snapshot::{self, VaultEntry};

/// The newest block of a vault at the end of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// `NAMESPACE/VAULT`.
    pub label: String,
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub block_hash: Hash,
    /// Root over all headers up to it.
    pub log_root: Hash,
}

/// The end of the files that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuity {
    ledger_id: LedgerId,
    through: u64,
    tips: BTreeMap<VaultId, Tip>,
}

impl Continuity {
    /// The end of a file with these vaults.
    ///
    /// # Errors
    ///
    /// When a header does not decode.
    pub fn of(ledger_id: LedgerId, through: u64, vaults: &[VaultEntry]) -> Result<Self, BackupError> {
        let tips =
            vaults.iter().map(|entry| Ok((entry.id, tip(entry)?))).collect::<Result<_, BackupError>>()?;
        Ok(Self { ledger_id, through, tips })
    }

    /// The ledger.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// Index of the last log entry of the files.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The newest block of every vault, as what a later chain must lead to.
    pub fn witnesses(&self) -> Vec<Witness> {
        let witness = |(id, tip): (&VaultId, &Tip)| Witness {
            name: format!("the chain up to entry {}", self.through),
            vault: *id,
            size: tip.height.saturating_add(1),
            root: tip.log_root,
        };
        self.tips.iter().map(witness).collect()
    }

    /// Reads an increment and compares it with the end of the files.
    ///
    /// # Errors
    ///
    /// [`BackupError::Fork`] when it is of another history; otherwise the first thing that does not fit.
    pub fn increment<R: Read>(
        &self,
        input: R,
        watch: &mut dyn FnMut(&IncrementProgress) -> ControlFlow<()>,
    ) -> Result<IncrementSummary, BackupError> {
        let mut increment = Increment::open(input)?;
        if increment.header().ledger_id != self.ledger_id {
            return Err(BackupError::inconsistent("an increment is of another ledger"));
        }
        if increment.header().after != self.through {
            return Err(BackupError::inconsistent("an increment does not go on from the files before it"));
        }
        let mut tips: BTreeMap<VaultId, (u64, Hash)> =
            self.tips.iter().map(|(id, tip)| (*id, (tip.height, tip.block_hash))).collect();
        let mut deleted = BTreeSet::new();
        while let Some(record) = increment.next_record()? {
            match record {
                Record::Block(block) => self.follows(&block, &mut tips)?,
                Record::Command(command) => {
                    if let (Command::DeleteVault { .. }, Some(id)) = (&command.command, command.vault) {
                        deleted.insert(id);
                    }
                }
            }
            if watch(&increment.progress()).is_break() {
                return Err(BackupError::Cancelled);
            }
        }
        let summary = increment.finish()?;
        self.ends(&summary.header.vaults, &tips, &deleted)?;
        Ok(summary)
    }

    fn follows(
        &self,
        block: &BlockRecord,
        tips: &mut BTreeMap<VaultId, (u64, Hash)>,
    ) -> Result<(), BackupError> {
        let header = &block.header;
        let id = VaultId(header.vault_id);
        let follows = match tips.get(&id) {
            Some((height, hash)) => Some(header.height) == height.checked_add(1) && header.previous == *hash,
            None => header.height == 0,
        };
        if !follows {
            let what = format!("block {} does not continue what the backup holds", header.height);
            return Err(BackupError::Fork { vault: self.label(id), what });
        }
        tips.insert(id, (header.height, header.leaf_hash()));
        Ok(())
    }

    fn ends(
        &self,
        entries: &[VaultEntry],
        tips: &BTreeMap<VaultId, (u64, Hash)>,
        deleted: &BTreeSet<VaultId>,
    ) -> Result<(), BackupError> {
        for entry in entries {
            let end = tip(entry)?;
            if tips.get(&entry.id) != Some(&(end.height, end.block_hash)) {
                let what =
                    format!("the ledger's block {} is not the one that the backup leads to", end.height);
                return Err(BackupError::Fork { vault: entry.label(), what });
            }
        }
        let named: BTreeSet<VaultId> = entries.iter().map(|entry| entry.id).collect();
        match tips.keys().find(|id| !named.contains(*id) && !deleted.contains(*id)) {
            Some(id) => {
                let what = "the ledger does not hold it, and no command deleted it".to_owned();
                Err(BackupError::Fork { vault: self.label(*id), what })
            }
            None => Ok(()),
        }
    }

    /// Reads a later base and compares its blocks with the end of the files. Vaults that it does not hold were deleted
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`BackupError::Fork`] when it is of another history; otherwise the first thing that does not fit.
    pub fn base<R: Read>(
        &self,
        input: R,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<snapshot::Header, BackupError> {
        let mut reader = Reader::open(input)?;
        let header = reader.header.clone();
        if header.ledger_id != self.ledger_id {
            return Err(BackupError::inconsistent("the base is of another ledger"));
        }
        if header.applied.index < self.through {
            return Err(BackupError::Behind { after: self.through, applied: header.applied.index });
        }
        let ids: BTreeMap<u64, VaultId> =
            header.vaults.iter().map(|entry| (entry.number, entry.id)).collect();
        let mut wanted: BTreeMap<VaultId, &Tip> =
            ids.values().filter_map(|id| Some((*id, self.tips.get(id)?))).collect();
        while let Some(row) = reader.next_row()? {
            if watch(reader.frames.input.bytes).is_break() {
                return Err(BackupError::Cancelled);
            }
            let Some((id, height)) = header_row(row.table, &row.key, &ids) else { continue };
            if wanted.get(&id).is_some_and(|tip| tip.height == height) {
                let Some(tip) = wanted.remove(&id) else { continue };
                if log_leaf(&row.value) != tip.block_hash {
                    let what = format!("block {height} is another one than in the backup");
                    return Err(BackupError::Fork { vault: tip.label.clone(), what });
                }
            }
        }
        reader.finish()?;
        match wanted.into_values().next() {
            Some(tip) => {
                let what = format!("the ledger does not have block {}, which the backup holds", tip.height);
                Err(BackupError::Fork { vault: tip.label.clone(), what })
            }
            None => Ok(header),
        }
    }

    fn label(&self, id: VaultId) -> String {
        self.tips.get(&id).map_or_else(|| id.to_string(), |tip| tip.label.clone())
    }
}

fn tip(entry: &VaultEntry) -> Result<Tip, BackupError> {
    let header = BlockHeader::decode(&entry.header).map_err(|error| {
        BackupError::inconsistent(format!("the newest header of {}: {error}", entry.label()))
    })?;
    Ok(Tip {
        label: entry.label(),
        height: header.height,
        block_hash: header.leaf_hash(),
        log_root: entry.log_root,
    })
}

/// Vault and height of a row that is a block's header.
fn header_row(table: Table, key: &[u8], ids: &BTreeMap<u64, VaultId>) -> Option<(VaultId, u64)> {
    if table != Table::Blocks {
        return None;
    }
    let (number, rest) = key.split_first_chunk::<8>()?;
    let (height, part) = rest.split_first_chunk::<8>()?;
    let id = ids.get(&u64::from_be_bytes(*number)).filter(|_| part == [0])?;
    Some((*id, u64::from_be_bytes(*height)))
}
