//! Replaying an increment on a state, header by header as it was.

use super::error::BackupError;
use super::increment::{BlockRecord, IncrementHeader, Record};
use super::submissions::submission;
use crate::command::{Command, JournaledCommand, Outcome, Proposal};
use crate::ledger_state::LedgerState;
use crate::names::VaultId;
use crate::ports::LogId;

/// Applies the records of an increment to a state that is as far as the increment begins. One log entry at a time is
/// held back until all of its records are there.
pub struct Replay<'s> {
    state: &'s mut LedgerState,
    /// The node that log ids name: blocks do not know theirs.
    node: u64,
    entry: Option<Entry>,
    blocks: u64,
}

/// The records of one log entry.
struct Entry {
    at: LogId,
    time_ms: u64,
    command: Option<JournaledCommand>,
    blocks: Vec<BlockRecord>,
}

impl<'s> Replay<'s> {
    /// A replay of the increment with this header.
    ///
    /// # Errors
    ///
    /// When the increment does not go on from the state.
    pub fn new(state: &'s mut LedgerState, header: &IncrementHeader) -> Result<Self, BackupError> {
        if state.ledger_id() != Some(header.ledger_id) {
            return Err(BackupError::inconsistent("an increment is of another ledger than the base"));
        }
        let applied = state.last_applied().map_or(0, |applied| applied.index);
        if applied != header.after {
            return Err(BackupError::inconsistent(format!(
                "an increment goes on from entry {}, the files before it end with entry {applied}",
                header.after
            )));
        }
        Ok(Self { state, node: header.applied.node, entry: None, blocks: 0 })
    }

    /// The state, as far as it is: without the entry that is held back.
    pub fn state(&mut self) -> &mut LedgerState {
        self.state
    }

    /// Blocks that were made and compared.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Takes the next record.
    ///
    /// # Errors
    ///
    /// When what it makes is not what the record says: the state must not be used then.
    pub fn record(&mut self, record: Record) -> Result<(), BackupError> {
        let at = LogId { term: record.term(), node: self.node, index: record.index() };
        if self.entry.as_ref().is_none_or(|entry| entry.at.index != at.index) {
            self.end_entry()?;
            self.entry = Some(Entry { at, time_ms: record.time_ms(), command: None, blocks: Vec::new() });
        }
        if let Some(entry) = &mut self.entry {
            match record {
                Record::Command(command) => {
                    entry.at = command.at;
                    entry.command = Some(command);
                }
                Record::Block(block) => entry.blocks.push(block),
            }
        }
        Ok(())
    }

    /// All records are there. The state is as far as `applied`, where the whole increment was replayed; without it as far as
    /// the last record.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub fn finish(mut self, applied: Option<LogId>) -> Result<u64, BackupError> {
        self.end_entry()?;
        if let Some(applied) = applied {
            self.state.apply_blank(applied);
        }
        Ok(self.blocks)
    }

    fn end_entry(&mut self) -> Result<(), BackupError> {
        let Some(entry) = self.entry.take() else { return Ok(()) };
        match &entry.command {
            Some(command) => self.command(command)?,
            None => self.write(&entry)?,
        }
        for block in &entry.blocks {
            let vault = VaultId(block.header.vault_id);
            let tip = self.state.tip(vault);
            if !tip.is_ok_and(|tip| tip.header == block.header) {
                let what = format!("replaying does not make its block {}", block.header.height);
                return Err(BackupError::Vault { vault: self.label(vault), what });
            }
            self.blocks += 1;
        }
        Ok(())
    }

    fn command(&mut self, journaled: &JournaledCommand) -> Result<(), BackupError> {
        let proposal = Proposal { time_ms: journaled.time_ms, command: journaled.command.clone() };
        let done = match self.state.apply(journaled.at, &proposal)? {
            Outcome::Namespace(done) => done.is_ok(),
            Outcome::Vault(done) => done.is_ok_and(|info| journaled.vault == Some(info.id)),
            Outcome::Token(done) => done.is_ok(),
            Outcome::Initialised(_)
            | Outcome::Cluster(_)
            | Outcome::FirstTokens(_)
            | Outcome::Writes(_)
            | Outcome::HeaderVersion(_)
            | Outcome::Compacted(_) => true,
        };
        if done {
            return Ok(());
        }
        Err(BackupError::inconsistent(format!(
            "the command of entry {} is refused when it is replayed",
            journaled.at.index
        )))
    }

    fn write(&mut self, entry: &Entry) -> Result<(), BackupError> {
        let transactions = entry.blocks.iter().flat_map(|block| &block.transactions);
        let submissions = transactions.map(submission).collect::<Result<Vec<_>, _>>()?;
        let proposal = Proposal { time_ms: entry.time_ms, command: Command::Write { submissions } };
        let answers = match self.state.apply(entry.at, &proposal)? {
            Outcome::Writes(answers) => answers,
            _ => Vec::new(),
        };
        let made = answers.iter().all(|answer| answer.as_ref().is_ok_and(|receipt| !receipt.replayed));
        if made {
            return Ok(());
        }
        Err(BackupError::inconsistent(format!(
            "a transaction of entry {} is refused when it is replayed",
            entry.at.index
        )))
    }

    fn label(&self, id: VaultId) -> String {
        let named = self.state.vaults(None, None, usize::MAX).into_iter().find(|info| info.id == id);
        named.map_or_else(|| id.to_string(), |info| format!("{}/{}", info.namespace, info.name))
    }
}
