//! Whether a node takes what would grow its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger_core::command::Command;

/// Whether a node takes writes and administrative commands: its own callers', and what other members send it because it
/// leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WriteState {
    /// It takes them.
    #[default]
    Open,
    /// Its disk is nearly full: it only reads.
    DiskFull,
}

/// What was handed in did not happen and will not: the disk is nearly full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskFull;

/// The state, in front of the log. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteSwitch(Arc<AtomicBool>);

impl WriteSwitch {
    pub fn set(&self, state: WriteState) {
        self.0.store(state == WriteState::DiskFull, Ordering::Relaxed);
    }

    pub fn admit(&self) -> Result<(), DiskFull> {
        if self.0.load(Ordering::Relaxed) { Err(DiskFull) } else { Ok(()) }
    }

    /// Some commands are taken in every state.
    pub fn admit_command(&self, command: &Command) -> Result<(), DiskFull> {
        match command {
            // A credential that leaked must end at once, room or not.
            Command::RevokeToken { .. }
            // It frees room.
            | Command::Compact
            // Every member asks this when it starts; in a ledger that has tokens it does nothing.
            | Command::FirstTokens { .. } => Ok(()),
            _ => self.admit(),
        }
    }
}
