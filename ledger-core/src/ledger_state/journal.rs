//! The journal: commands that changed something without a block that tells it, in log order.
//!
//! Blocks say who wrote what, and when; a namespace or a retention has no block. With blocks and journal the state
//! after any entry can be made again from the state after an earlier one: that is what a backup restores.

use std::collections::VecDeque;

use super::load::each;
use super::{StateError, inconsistent};
use crate::codec;
use crate::command::{Command, JournaledCommand, Outcome};
use crate::names::VaultId;
use crate::overlay::Overlay;
use crate::ports::{LogId, Table};
use crate::rows;

/// Commands that are kept; the oldest go first, and a backup from before them needs a new base.
pub(super) const COMMANDS_MAX: usize = 100_000;

/// What is kept of the journal, by log index.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The first log index from which on it is complete; `None` = nothing was applied since there are journals.
    since: Option<u64>,
    indexes: VecDeque<u64>,
}

impl Journal {
    pub(super) fn load(overlay: &Overlay) -> Result<Self, StateError> {
        let since = overlay.get(Table::Ledger, rows::JOURNAL_SINCE_KEY)?;
        let since = since.map(|row| {
            let row = <[u8; 8]>::try_from(row.as_ref());
            row.map(u64::from_be_bytes)
                .map_err(|_| inconsistent("the row of the journal's begin has another length than 8"))
        });
        let mut journal = Self { since: since.transpose()?, indexes: VecDeque::new() };
        each(overlay, Table::Ledger, rows::JOURNAL_PREFIX.to_vec(), |key, _| {
            let index = rows::journal_index(key);
            journal
                .indexes
                .push_back(index.ok_or_else(|| inconsistent("a row of the journal has no valid key"))?);
            Ok(())
        })?;
        Ok(journal)
    }

    /// Says that the journal is complete from an entry on; later calls change nothing.
    pub(super) fn begin(&mut self, overlay: &mut Overlay, log_index: u64) {
        if self.since.is_none() {
            self.set_since(overlay, log_index);
        }
    }

    /// Keeps a command that changed something, unless blocks tell it.
    pub(super) fn record(
        &mut self,
        overlay: &mut Overlay,
        at: LogId,
        time_ms: u64,
        command: &Command,
        outcome: &Outcome,
    ) -> Result<(), StateError> {
        // In a ledger of an older program it begins with the first entry that this one applies.
        self.begin(overlay, at.index);
        let Some(vault) = subject(outcome) else { return Ok(()) };
        let row = JournaledCommand { at, time_ms, command: command.clone(), vault };
        overlay.put(Table::Ledger, rows::journal_key(at.index), codec::encode("a journal row", &row)?);
        self.indexes.push_back(at.index);
        while self.indexes.len() > COMMANDS_MAX {
            let Some(oldest) = self.indexes.pop_front() else { break };
            overlay.delete(Table::Ledger, rows::journal_key(oldest));
            self.set_since(overlay, oldest.saturating_add(1));
        }
        Ok(())
    }

    fn set_since(&mut self, overlay: &mut Overlay, log_index: u64) {
        self.since = Some(log_index);
        let row = log_index.to_be_bytes().to_vec();
        overlay.put(Table::Ledger, rows::JOURNAL_SINCE_KEY.to_vec(), row);
    }
}

/// What a command changed that no block tells: of which vault, if of one. `None` = nothing.
fn subject(outcome: &Outcome) -> Option<Option<VaultId>> {
    match outcome {
        Outcome::Namespace(Ok(_))
        | Outcome::HeaderVersion(_)
        | Outcome::Token(Ok(_))
        | Outcome::FirstTokens(true) => Some(None),
        Outcome::Vault(Ok(info)) => Some(Some(info.id)),
        Outcome::Namespace(Err(_))
        | Outcome::Vault(Err(_))
        | Outcome::Token(Err(_))
        | Outcome::FirstTokens(false) => None,
        // Blocks tell writes; a restored ledger begins with an identity, in a cluster of its own, and drops by itself
        // what it need not keep.
        Outcome::Initialised(_) | Outcome::Cluster(_) | Outcome::Writes(_) | Outcome::Compacted(_) => None,
    }
}
