//! Gathering an increment from a view of the state: blocks of all vaults and journaled commands, in log order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;
use ledger_verify::header::BlockHeader;

use super::error::BackupError;
use super::increment::{BlockRecord, IncrementHeader, LostVault, Record};
use crate::codec;
use crate::command::{Command, JournaledCommand};
use crate::ledger_state::inconsistent;
use crate::names::VaultNumber;
use crate::ports::{ScanRange, StateView, Table};
use crate::rows::{self, HorizonRow, VaultRow};
use crate::snapshot;

/// An increment that is about to be written: its header is known, its records are read as they are needed. In memory it
/// has one header per vault and the journaled commands.
pub struct Gathered<'v> {
    view: &'v dyn StateView,
    pub(super) header: IncrementHeader,
    commands: VecDeque<JournaledCommand>,
    /// The next block of each vault that has one, the first in the log on top.
    next: BinaryHeap<Reverse<NextBlock>>,
}

/// Ordered by place in the log, then by vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NextBlock {
    index: u64,
    vault: u64,
    height: u64,
    tip: u64,
}

impl<'v> Gathered<'v> {
    /// Finds what came after the log entry `after`. `outline` is that of the view, with the checkpoints that could be
    /// signed.
    ///
    /// # Errors
    ///
    /// [`BackupError::NeedsBase`] when the ledger does not keep all of it any more, [`BackupError::Behind`] when it is not
    /// as far, [`BackupError::Fenced`] when a vault is.
    pub fn since(
        view: &'v dyn StateView,
        outline: snapshot::Header,
        after: u64,
    ) -> Result<Self, BackupError> {
        if let Some(fenced) = outline.vaults.iter().find(|vault| vault.fenced) {
            return Err(BackupError::Fenced { vault: fenced.label() });
        }
        let applied = outline.applied;
        if applied.index < after {
            return Err(BackupError::Behind { after, applied: applied.index });
        }
        let commands = commands(view, after)?;
        let mut next = BinaryHeap::new();
        let mut lost = Vec::new();
        for (number, row, horizon) in vaults(view)? {
            let tip = BlockHeader::decode(&row.header)
                .map_err(|error| inconsistent(format!("a newest header does not decode: {error}")))?;
            if tip.index <= after {
                continue;
            }
            if row.deleted_at_ms.is_some() {
                lost.extend(lost_vault(&row, &tip, &commands)?);
                continue;
            }
            let first = first_after(view, number, &tip, after)?;
            // The first block of a vault has no body.
            if horizon.is_some_and(|horizon| horizon.first_body > first.height.max(1)) {
                let why = format!("vault {}/{} has dropped transactions since", row.namespace, row.name);
                return Err(BackupError::NeedsBase { after, why });
            }
            next.push(Reverse(first));
        }
        let snapshot::Header { ledger_id, created_at_ms, applied, vaults, .. } = outline;
        let header = IncrementHeader { ledger_id, created_at_ms, after, applied, vaults, lost };
        Ok(Self { view, header, commands, next })
    }

    /// The header of the increment.
    pub fn header(&self) -> &IncrementHeader {
        &self.header
    }

    /// The next record in log order.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, BackupError> {
        let block = self.next.peek().map(|Reverse(block)| *block);
        let command_first = match (self.commands.front(), block) {
            (Some(command), Some(block)) => command.at.index <= block.index,
            (command, _) => command.is_some(),
        };
        if command_first {
            return Ok(self.commands.pop_front().map(Record::Command));
        }
        let Some(block) = block else { return Ok(None) };
        self.next.pop();
        let number = VaultNumber(block.vault);
        let header = header_at(self.view, number, block.height)?;
        let transactions = match header.tx_count {
            0 => Vec::new(),
            _ => transactions(self.view, number, block.height)?,
        };
        if block.height < block.tip {
            let height = block.height + 1;
            let index = header_at(self.view, number, height)?.index;
            self.next.push(Reverse(NextBlock { index, height, ..block }));
        }
        Ok(Some(Record::Block(BlockRecord { header, transactions })))
    }
}

/// The commands after an entry, when the journal has all of them.
fn commands(view: &dyn StateView, after: u64) -> Result<VecDeque<JournaledCommand>, BackupError> {
    let since = view.get(Table::Ledger, rows::JOURNAL_SINCE_KEY)?;
    let since = since.and_then(|row| <[u8; 8]>::try_from(row.as_ref()).ok()).map(u64::from_be_bytes);
    match since {
        Some(since) if since <= after.saturating_add(1) => {}
        Some(since) => {
            let why = format!("the journal of commands begins at entry {since}");
            return Err(BackupError::NeedsBase { after, why });
        }
        None => {
            let why = "the ledger has no journal of commands yet".to_owned();
            return Err(BackupError::NeedsBase { after, why });
        }
    }
    let mut commands = VecDeque::new();
    let mut outcome = Ok(());
    let start = rows::journal_key(after.saturating_add(1));
    let range = ScanRange { prefix: rows::JOURNAL_PREFIX.to_vec(), start };
    view.scan(Table::Ledger, &range, &mut |_, row| {
        outcome = codec::decode("a journal row", row).map(|command| commands.push_back(command));
        outcome.is_ok()
    })?;
    outcome?;
    Ok(commands)
}

type StoredVault = (VaultNumber, VaultRow, Option<HorizonRow>);

fn vaults(view: &dyn StateView) -> Result<Vec<StoredVault>, BackupError> {
    let mut vaults = Vec::new();
    let mut outcome = Ok(());
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    view.scan(Table::Vaults, &everything, &mut |key, row| {
        let number = <[u8; 8]>::try_from(key).map_err(|_| inconsistent("a vault row has no valid number"));
        let decoded = number.and_then(|number| {
            let (row, horizon) = rows::decode_vault(row)?;
            Ok((VaultNumber(u64::from_be_bytes(number)), row, horizon))
        });
        outcome = decoded.map(|vault| vaults.push(vault));
        outcome.is_ok()
    })?;
    outcome?;
    Ok(vaults)
}

/// The first block of a vault after a log entry, when its newest one is.
fn first_after(
    view: &dyn StateView,
    number: VaultNumber,
    tip: &BlockHeader,
    after: u64,
) -> Result<NextBlock, BackupError> {
    // Log indexes ascend with heights.
    let (mut low, mut high, mut index) = (0, tip.height, tip.index);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = header_at(view, number, middle)?.index;
        if found > after {
            (high, index) = (middle, found);
        } else {
            low = middle + 1;
        }
    }
    Ok(NextBlock { index, vault: number.0, height: high, tip: tip.height })
}

/// What is lost of a vault that is deleted: nothing when its only block was the first, which its creation makes.
fn lost_vault(
    row: &VaultRow,
    tip: &BlockHeader,
    commands: &VecDeque<JournaledCommand>,
) -> Result<Option<LostVault>, BackupError> {
    if tip.height == 0 {
        return Ok(None);
    }
    let deletes = |command: &&JournaledCommand| {
        command.vault == Some(row.id) && matches!(command.command, Command::DeleteVault { .. })
    };
    let label = format!("{}/{}", row.namespace, row.name);
    let deleted = commands.iter().find(deletes);
    let deleted = deleted
        .ok_or_else(|| inconsistent(format!("the journal does not know when vault {label} was deleted")))?;
    Ok(Some(LostVault { id: row.id, label, deleted_at: deleted.at.index }))
}

fn header_at(view: &dyn StateView, number: VaultNumber, height: u64) -> Result<BlockHeader, BackupError> {
    let row = view.get(Table::Blocks, &rows::header_key(number, height))?;
    let header = row.and_then(|row| BlockHeader::decode(&row).ok());
    Ok(header
        .ok_or_else(|| inconsistent(format!("block {height} of vault number {} is missing", number.0)))?)
}

fn transactions(view: &dyn StateView, number: VaultNumber, height: u64) -> Result<Vec<Bytes>, BackupError> {
    let row = view.get(Table::Blocks, &rows::body_key(number, height))?;
    let transactions = row.as_ref().and_then(rows::decode_body);
    Ok(transactions.ok_or_else(|| {
        inconsistent(format!("the transactions of block {height} of vault number {} are missing", number.0))
    })?)
}
