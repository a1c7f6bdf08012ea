//! What an increment holds.

use bytes::Bytes;
use ledger_verify::header::BlockHeader;
use serde::{Deserialize, Serialize};

use crate::command::JournaledCommand;
use crate::names::{LedgerId, VaultId};
use crate::ports::LogId;
use crate::snapshot::VaultEntry;

/// Version of the layout that this program reads and writes.
pub const FORMAT: u32 = 1;
/// The first bytes of every increment.
pub const MAGIC: [u8; 8] = *b"SRBLKS\x1a\n";

/// Kind of a record that is a journaled command.
pub(super) const KIND_COMMAND: u8 = 1;
/// Kind of a record that is a block.
pub(super) const KIND_BLOCK: u8 = 2;

/// What an increment says about itself before its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementHeader {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// When it was begun, unix milliseconds by the node's clock.
    pub created_at_ms: u64,
    /// It holds what came after the log entry of this index.
    pub after: u64,
    /// The last log entry that it covers.
    pub applied: LogId,
    /// Every vault that is not deleted at that entry, by number, with its signed checkpoint.
    pub vaults: Vec<VaultEntry>,
    /// Vaults that are deleted at that entry and had blocks since `after`: these are gone.
    pub lost: Vec<LostVault>,
}

/// A vault whose last blocks were deleted with it before they came into a backup. Between the entries `after` and
/// `deleted_at`, both excluded, its state is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostVault {
    /// Its identity.
    pub id: VaultId,
    /// `NAMESPACE/VAULT`.
    pub label: String,
    /// Index of the log entry that deleted it.
    pub deleted_at: u64,
}

/// What an increment says about itself after its records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementTrailer {
    /// Its blocks.
    pub blocks: u64,
    /// Their transactions.
    pub transactions: u64,
    /// Its journaled commands.
    pub commands: u64,
    /// Bytes of its records before compression.
    pub plain_bytes: u64,
    /// Time of the first record, unix milliseconds; 0 = it has none.
    pub first_time_ms: u64,
    /// Time of the last record, unix milliseconds; 0 = it has none.
    pub last_time_ms: u64,
}

/// One thing that happened. Records ascend by log index; at one index a command comes before the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A command that no block tells.
    Command(JournaledCommand),
    /// A block.
    Block(BlockRecord),
}

/// A block with its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRecord {
    /// Its header.
    pub header: BlockHeader,
    /// Canonical transactions in order; none in the first block of a vault.
    pub transactions: Vec<Bytes>,
}

impl Record {
    /// Where in the log it stood.
    pub fn index(&self) -> u64 {
        match self {
            Self::Command(command) => command.at.index,
            Self::Block(block) => block.header.index,
        }
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        match self {
            Self::Command(command) => command.at.term,
            Self::Block(block) => block.header.term,
        }
    }

    /// Its log time, unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        match self {
            Self::Command(command) => command.time_ms,
            Self::Block(block) => block.header.time_ms,
        }
    }
}

impl IncrementTrailer {
    pub(super) fn count(&mut self, record: &Record, plain_bytes: u64) {
        match record {
            Record::Command(_) => self.commands += 1,
            Record::Block(block) => {
                self.blocks += 1;
                self.transactions += block.transactions.len() as u64;
            }
        }
        if self.first_time_ms == 0 {
            self.first_time_ms = record.time_ms();
        }
        self.last_time_ms = self.last_time_ms.max(record.time_ms());
        self.plain_bytes += plain_bytes;
    }
}

/// How far writing or reading is; handed to the caller after every frame, who may break it off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IncrementProgress {
    /// Blocks so far.
    pub blocks: u64,
    /// Bytes of the file so far.
    pub file_bytes: u64,
}
