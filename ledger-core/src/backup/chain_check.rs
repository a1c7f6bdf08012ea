//! Believing a chain: every tree is rebuilt from the base, every block of the increments replayed, every root compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;

use ledger_verify::Hash;
use ledger_verify::hash::log_empty;
use ledger_verify::note::VerifierKey;

use super::error::BackupError;
use super::increment::{IncrementProgress, IncrementTrailer, LostVault, Record};
use super::read::Increment;
use super::replayed_vault::ReplayedVault;
use crate::command::{Command, JournaledCommand};
use crate::names::{LedgerId, VaultId};
use crate::snapshot::{self, SnapshotError, VaultEntry, Verified};

/// Something that the first blocks of a vault must have led to: a checkpoint that somebody kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// What it is called in messages.
    pub name: String,
    /// The vault.
    pub vault: VaultId,
    /// How many blocks.
    pub size: u64,
    /// RFC 6962 root over their headers.
    pub root: Hash,
}

/// A vault at the end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVault {
    /// Its identity.
    pub id: VaultId,
    /// `NAMESPACE/VAULT`.
    pub label: String,
    /// Height of its newest block.
    pub height: u64,
    /// Hash of its newest block.
    pub block_hash: Hash,
    /// Root over its entities and relationships, rebuilt.
    pub state_root: Hash,
    /// Root over its headers, rebuilt.
    pub log_root: Hash,
    /// Entities and relationships.
    pub keys: u64,
    /// The trusted key that signed its checkpoint; `None` when no keys were given.
    pub signed_by: Option<VerifierKey>,
}

/// An increment that holds what it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedIncrement {
    /// Its trailer.
    pub trailer: IncrementTrailer,
    /// Its bytes.
    pub file_bytes: u64,
}

/// A chain as far as it was checked.
pub struct ChainCheck {
    ledger_id: LedgerId,
    through: u64,
    vaults: BTreeMap<VaultId, ReplayedVault>,
    signers: BTreeMap<VaultId, VerifierKey>,
    sizes: BTreeMap<VaultId, BTreeSet<u64>>,
    /// Roots of vaults that the chain deletes.
    gone: BTreeMap<VaultId, ReplayedVault>,
    lost: BTreeSet<VaultId>,
}

impl ChainCheck {
    /// Checks the base, as [`snapshot::verify`] does, and that it leads to those of the `witnesses` that it reaches.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: the first thing that does not fit.
    pub fn base<R: Read>(
        input: R,
        keys: &[VerifierKey],
        witnesses: &[Witness],
        watch: &mut dyn FnMut(&snapshot::Progress) -> ControlFlow<()>,
    ) -> Result<(Self, Verified), BackupError> {
        let mut sizes: BTreeMap<VaultId, BTreeSet<u64>> = BTreeMap::new();
        for witness in witnesses {
            sizes.entry(witness.vault).or_default().insert(witness.size);
        }
        let (verified, kept) = snapshot::verify_keeping(input, keys, &sizes, watch)?;
        if let Some(fenced) = verified.vaults.iter().find(|vault| vault.fenced) {
            return Err(BackupError::Fenced { vault: fenced.vault.clone() });
        }
        let asked = |id: &VaultId| sizes.get(id).cloned().unwrap_or_default();
        let vaults = kept
            .into_iter()
            .map(|(entry, kept)| (entry.id, ReplayedVault::of_base(entry.label(), kept, asked(&entry.id))))
            .collect();
        let signers = verified.vaults.iter().filter_map(|vault| Some((vault.id, vault.signed_by.clone()?)));
        let check = Self {
            ledger_id: verified.header.ledger_id,
            through: verified.header.applied.index,
            vaults,
            signers: signers.collect(),
            sizes,
            gone: BTreeMap::new(),
            lost: BTreeSet::new(),
        };
        Ok((check, verified))
    }

    /// The ledger.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// Index of the last log entry that was checked.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Checks an increment that goes on from here.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: the first thing that does not fit.
    pub fn increment<R: Read>(
        &mut self,
        input: R,
        keys: &[VerifierKey],
        watch: &mut dyn FnMut(&IncrementProgress) -> ControlFlow<()>,
    ) -> Result<CheckedIncrement, BackupError> {
        let mut increment = Increment::open(input)?;
        let header = increment.header().clone();
        if header.ledger_id != self.ledger_id || header.after != self.through {
            return Err(BackupError::inconsistent("an increment does not go on from the files before it"));
        }
        self.signers = signers(self.ledger_id, &header.vaults, keys)?;
        let lost: BTreeMap<VaultId, &LostVault> = header.lost.iter().map(|lost| (lost.id, lost)).collect();
        let mut labels: BTreeMap<VaultId, String> =
            header.vaults.iter().map(|entry| (entry.id, entry.label())).collect();
        while let Some(record) = increment.next_record()? {
            match record {
                Record::Command(command) => self.command(&command, &mut labels),
                Record::Block(block) => {
                    let id = VaultId(block.header.vault_id);
                    if lost.contains_key(&id) {
                        return Err(BackupError::inconsistent("a vault has blocks that it says are lost"));
                    }
                    if block.header.ledger_id != self.ledger_id.0 {
                        return Err(BackupError::inconsistent("a block is of another ledger"));
                    }
                    self.block(id, &block.header, &block.transactions, &labels)?;
                }
            }
            if watch(&increment.progress()).is_break() {
                return Err(BackupError::Cancelled);
            }
        }
        let summary = increment.finish()?;
        self.lost.extend(lost.keys());
        self.ends_with(&header.vaults)?;
        self.through = header.applied.index;
        Ok(CheckedIncrement { trailer: summary.trailer, file_bytes: summary.file_bytes })
    }

    fn command(&mut self, journaled: &JournaledCommand, labels: &mut BTreeMap<VaultId, String>) {
        let Some(id) = journaled.vault else { return };
        match &journaled.command {
            Command::CreateVault { vault, .. } | Command::CreateVaultRetaining { vault, .. } => {
                labels.insert(id, vault.to_string());
            }
            Command::DeleteVault { .. } => {
                if let Some(deleted) = self.vaults.remove(&id) {
                    self.gone.insert(id, deleted);
                }
            }
            _ => {}
        }
    }

    fn block(
        &mut self,
        id: VaultId,
        header: &ledger_verify::header::BlockHeader,
        transactions: &[bytes::Bytes],
        labels: &BTreeMap<VaultId, String>,
    ) -> Result<(), BackupError> {
        let refused = |what| {
            let vault = labels.get(&id).cloned().unwrap_or_else(|| id.to_string());
            BackupError::Vault { vault, what }
        };
        match self.vaults.get_mut(&id) {
            Some(vault) => vault.block(header, transactions).map_err(refused),
            None => {
                let asked = self.sizes.get(&id).cloned().unwrap_or_default();
                let label = labels.get(&id).cloned().unwrap_or_else(|| id.to_string());
                let vault = ReplayedVault::begin(label, header, asked).map_err(refused)?;
                self.vaults.insert(id, vault);
                Ok(())
            }
        }
    }

    /// The vaults that there are, are those that the header of the increment names.
    fn ends_with(&self, entries: &[VaultEntry]) -> Result<(), BackupError> {
        for entry in entries {
            let found = self.vaults.get(&entry.id);
            let fits = found.is_some_and(|found| {
                found.tip.encode().as_slice() == entry.header.as_slice() && found.log.root() == entry.log_root
            });
            if !fits {
                let what = "its blocks do not lead to the header that the increment gives".to_owned();
                return Err(BackupError::Vault { vault: entry.label(), what });
            }
        }
        if self.vaults.len() == entries.len() {
            return Ok(());
        }
        Err(BackupError::inconsistent("a vault is missing at the end of an increment, but was not deleted"))
    }

    /// Compares the witnesses that the chain reaches; says of each whether it did. With [`Reach::All`] it must reach every
    /// one.
    ///
    /// # Errors
    ///
    /// [`BackupError::Fork`] when the history is another one; [`BackupError::Short`] and [`BackupError::UnknownVault`]
    /// when a witness is not reached.
    pub fn compare(&self, witnesses: &[Witness], reach: Reach) -> Result<Vec<bool>, BackupError> {
        witnesses.iter().map(|witness| self.holds(witness, reach)).collect()
    }

    /// Whether the vault is there, or was until the chain deleted it.
    pub fn knows(&self, vault: VaultId) -> bool {
        self.vaults.contains_key(&vault) || self.gone.contains_key(&vault)
    }

    /// What the chain leads to.
    pub fn finish(self) -> Vec<ChainVault> {
        let vault = |(id, vault): (&VaultId, &ReplayedVault)| ChainVault {
            id: *id,
            label: vault.label.clone(),
            height: vault.tip.height,
            block_hash: vault.tip.leaf_hash(),
            state_root: vault.tip.state_root,
            log_root: vault.log.root(),
            keys: vault.keys(),
            signed_by: self.signers.get(id).cloned(),
        };
        self.vaults.iter().map(vault).collect()
    }

    fn holds(&self, witness: &Witness, reach: Reach) -> Result<bool, BackupError> {
        let Witness { name, vault: id, size, root } = witness;
        let found = self.vaults.get(id).or_else(|| self.gone.get(id));
        let Some(vault) = found else {
            return match reach {
                Reach::All if !self.lost.contains(id) => {
                    Err(BackupError::UnknownVault { name: name.clone(), vault: *id })
                }
                _ => Ok(false),
            };
        };
        let held = vault.log.size();
        let computed = if *size == 0 { Some(log_empty()) } else { vault.roots.get(size).copied() };
        match computed {
            Some(computed) if computed == *root => Ok(true),
            Some(computed) => {
                let what = format!(
                    "{name} says that its first {size} blocks have the root {}, in the backup they have {}",
                    shown(root),
                    shown(&computed)
                );
                Err(BackupError::Fork { vault: vault.label.clone(), what })
            }
            None if self.lost.contains(id) || matches!(reach, Reach::Held) => Ok(false),
            None => {
                Err(BackupError::Short { name: name.clone(), vault: vault.label.clone(), held, size: *size })
            }
        }
    }
}

/// Which witnesses a chain must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every one.
    All,
    /// Those that it happens to hold: later chains hold the others.
    Held,
}

fn signers(
    ledger: LedgerId,
    entries: &[VaultEntry],
    keys: &[VerifierKey],
) -> Result<BTreeMap<VaultId, VerifierKey>, BackupError> {
    let mut signers = BTreeMap::new();
    for entry in entries {
        let signed = snapshot::signer(ledger, entry, keys).map_err(|error| match error {
            SnapshotError::Checkpoint { vault, source } => BackupError::Checkpoint { vault, source },
            SnapshotError::Unsigned { vault } => BackupError::Unsigned { vault },
            SnapshotError::Vault { vault, what } => BackupError::Vault { vault, what },
            other => BackupError::Base(other),
        })?;
        signers.extend(signed.map(|key| (entry.id, key)));
    }
    Ok(signers)
}

fn shown(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
