use bytes::Bytes;

use super::log_store::LogId;
use super::state_install::StateInstall;
use super::state_view::StateView;
use super::{BatchRefused, StoreError};

/// The tables of the state store. Keys sort bytewise; layouts stand in `docs/formats.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// The ledger's own row.
    Ledger = 0,
    /// Namespaces by name.
    Namespaces = 1,
    /// Vaults by number.
    Vaults = 2,
    /// Entities by vault and key.
    Entities = 3,
    /// Relationships by vault, resource, relation, subject.
    Relationships = 4,
    /// Relationships by vault, subject, relation, resource.
    RelationshipsBySubject = 5,
    /// Expiring entities by vault and time.
    Expiries = 6,
    /// Idempotency records by log index and vault: one row per block.
    Idempotency = 7,
    /// The last transaction by vault and actor.
    Clients = 8,
    /// Block headers and bodies by vault and height. Append-only.
    Blocks = 9,
    /// Full tiles of the log tree by vault, level and number. Append-only.
    Tiles = 10,
    /// What each block changed, as it was before, by vault and height. Append-only.
    Undo = 11,
    /// Deletions by vault, key hash and height, newest first.
    Tombstones = 12,
    /// Vaults that are fenced, and the writes that wait for their recovery, by vault and log index.
    Fenced = 14,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 14] = [
        Self::Ledger,
        Self::Namespaces,
        Self::Vaults,
        Self::Entities,
        Self::Relationships,
        Self::RelationshipsBySubject,
        Self::Expiries,
        Self::Idempotency,
        Self::Clients,
        Self::Blocks,
        Self::Tiles,
        Self::Undo,
        Self::Tombstones,
        Self::Fenced,
    ];

    /// One more than the highest number of a table: the length of an array that is indexed by tables.
    pub const NUMBERS: usize = 15;

    /// Whether a row, once written, never changes until it is deleted for good or dropped with its vault:
    /// such tables may live in a file of their own that is made durable before the others. Deletions in
    /// them take effect no earlier than the rest of their batch.
    pub fn is_append_only(self) -> bool {
        matches!(self, Self::Blocks | Self::Tiles | Self::Undo)
    }

    /// Whether keys begin with the vault's number (8 bytes, big-endian).
    pub fn is_per_vault(self) -> bool {
        !matches!(self, Self::Ledger | Self::Namespaces | Self::Idempotency)
    }

    /// The table of a number; `None` when this program knows no such table.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }

    /// Its name in errors and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Namespaces => "namespaces",
            Self::Vaults => "vaults",
            Self::Entities => "entities",
            Self::Relationships => "relationships",
            Self::RelationshipsBySubject => "relationships_by_subject",
            Self::Expiries => "expiries",
            Self::Idempotency => "idempotency",
            Self::Clients => "clients",
            Self::Blocks => "blocks",
            Self::Tiles => "tiles",
            Self::Undo => "undo",
            Self::Tombstones => "tombstones",
            Self::Fenced => "fenced",
        }
    }
}

/// How far a state store's content goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedState {
    /// The last log entry whose effects the store holds.
    pub last_applied: LogId,
    /// The newest membership at that entry, encoded by the node, with where it stood in the log.
    pub membership: Bytes,
}

/// One row to write, or to delete where the value is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// The new value.
    pub value: Option<Bytes>,
}

/// All that whole log entries changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateBatch {
    /// Vaults whose rows are all removed, before `rows` are written: every key of a per-vault table
    /// that starts with one of these numbers.
    pub dropped_vaults: Vec<u64>,
    /// The rows, ordered by table and key, no key twice.
    pub rows: Vec<RowChange>,
    /// How far the store's content goes once this is written.
    pub applied: AppliedState,
}

impl StateBatch {
    /// Refuses rows that do not ascend strictly by table and key.
    pub fn check_order(&self) -> Result<(), BatchRefused> {
        let neighbours = self.rows.iter().zip(self.rows.iter().skip(1));
        for (position, (before, row)) in neighbours.enumerate() {
            if (before.table, &before.key) >= (row.table, &row.key) {
                return Err(BatchRefused::Unordered { position: position + 1, table: row.table.name() });
            }
        }
        Ok(())
    }
}

/// A range of keys: `start <= key` and `key` begins with `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// Every returned key begins with this.
    pub prefix: Vec<u8>,
    /// Keys before this are skipped; empty = from the first with the prefix.
    pub start: Vec<u8>,
}

/// The materialised state of one node: rows, and how far in the log they go.
///
/// # Contract
///
/// - **G1 atomic**: a batch of [`commit`](StateStore::commit) takes effect whole or not at all, `applied`
///   included. Rows of [append-only tables](Table::is_append_only) may come ahead of it: after a crash
///   they may stand there although `applied` does not cover them. Rows that a batch deletes from these
///   tables may go after it: an open store does not have them any more.
/// - **G2 durable**: when `commit` returns `Ok`, the batch survives a power cut.
/// - **G3 visible**: a returned batch is seen by every later `get`, `scan` and `applied`.
/// - **G4 ordered**: `scan` returns keys in ascending byte order, each once.
/// - **G5 faithful**: a value is returned byte for byte as it was written, or the call fails with
///   [`StoreError::Corrupt`].
/// - **G6 drop first**: `dropped_vaults` removes exactly the rows of those vaults, before `rows` apply.
/// - **G7 fail-stop**: after an error of `commit` every later `commit` fails; a batch that
///   [`StateBatch::check_order`] refuses is such an error.
/// - **G8 consistent view**: [`view`](StateStore::view) shows every table as of one moment between two
///   commits, for as long as it lives, and delays no commit while it is read.
/// - **G9 installed whole**: when [`StateInstall::publish`] returns `Ok`, the content is exactly what was given to
///   it, `applied` included, and survives a power cut; a crash before leaves the content of before or this one,
///   whole, and nothing of a content that was not published. Reads and commits go on beside an install; each read
///   sees one content, and a view the one it was taken of. One install at a time: another is refused.
///
/// One thread commits at a time; any number may read beside it.
pub trait StateStore: Send + Sync + 'static {
    /// How far the content goes; `None` in an empty store (G3).
    fn applied(&self) -> Result<Option<AppliedState>, StoreError>;

    /// One row (G3, G5).
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Rows of a range in order (G3, G4, G5), handed to `visit` until it returns `false`.
    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Makes a batch durable (G1, G2, G6, G7).
    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError>;

    /// The content as it is now, whatever is committed later (G8). May wait for a commit under way.
    fn view(&self) -> Result<Box<dyn StateView>, StoreError>;

    /// Begins to replace the whole content (G9).
    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError>;
}
