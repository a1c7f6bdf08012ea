//! Snapshots: everything that a node has applied, in one file that verifies itself.
//!
//! A file is a header, the rows of every table in frames of zstd, a trailer with counts, and the SHA-256 over every
//! byte before it; the layout is frozen in `docs/formats.md`. It is written and read as a stream: memory is bounded by a
//! frame and the largest row, and for [`verify`] by the state trees of its vaults as well, which a node that opens
//! the ledger needs too.
//!
//! [`verify`] believes nothing: it rebuilds every vault's state tree, block chain and log tree from the rows and
//! compares them with the headers, and with keys also the signed checkpoint of every vault. [`restore`] hands over
//! the rows while it does the same.

mod content;
mod error;
pub(crate) mod frame;
mod leaves;
mod outline;
pub(crate) mod read;
mod vault_content;
mod verify;
mod write;

use ledger_verify::Hash;
use serde::{Deserialize, Serialize};

pub use error::{SnapshotError, WriteError};
pub use outline::{ledger_id, outline};
pub use read::{Summary, summarise};
pub(crate) use vault_content::KeptVault;
pub use verify::{Verified, VerifiedVault, restore, verify};
pub(crate) use verify::{signer, verify_keeping};
pub use write::{Written, write};

use crate::names::{LedgerId, NamespaceName, VaultId, VaultName};
use crate::ports::LogId;

/// Version of the file's layout that this program reads and writes.
pub const FORMAT: u32 = 1;
/// Version of the rows in it: the on-disk format of the state store whose rows they are.
pub const ROWS_FORMAT: u32 = 2;
/// The first bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"SRSNAP\x1a\n";

/// Largest header: 10,000 vaults with their checkpoints take less than half.
pub const HEADER_BYTES_MAX: usize = 16 << 20;
/// Largest trailer.
pub const TRAILER_BYTES_MAX: usize = 1 << 20;
/// Longest key of a row.
pub const ROW_KEY_BYTES_MAX: usize = 4 << 10;
/// Largest value of a row: a block of the largest log entry takes less than a tenth.
pub const ROW_VALUE_BYTES_MAX: usize = 128 << 20;
/// Rows' bytes in one frame.
pub const FRAME_BYTES: usize = 1 << 20;
/// A frame is at most this many times smaller than what it holds; the writer pads it when it is.
pub const EXPANSION_MAX: usize = 256;

/// What a snapshot says about itself before its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// When it was begun, unix milliseconds by the node's clock.
    pub created_at_ms: u64,
    /// The last log entry whose effects it holds.
    pub applied: LogId,
    /// The membership at that entry, as the node encoded it.
    pub membership: Vec<u8>,
    /// Every vault that is not deleted, by number.
    pub vaults: Vec<VaultEntry>,
}

/// A vault of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultEntry {
    /// Its number in row keys.
    pub number: u64,
    /// Its identity.
    pub id: VaultId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: VaultName,
    /// The newest block header, canonical bytes.
    pub header: Vec<u8>,
    /// RFC 6962 root over all headers.
    pub log_root: Hash,
    /// The signed checkpoint over exactly these headers, where the node could sign.
    pub checkpoint: Option<String>,
    /// Whether the node had fenced the vault because its rows do not fit its headers. Its rows are in the snapshot as
    /// they are; nobody vouches for them, so that with keys such a snapshot is refused.
    pub fenced: bool,
}

impl VaultEntry {
    /// `NAMESPACE/VAULT`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What a snapshot says about itself after its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Table number and number of rows, for every table that has any.
    pub rows: Vec<(u8, u64)>,
    /// Vault number and number of entities and relationships, for every vault that has any.
    pub keys: Vec<(u64, u64)>,
    /// Bytes of the rows before compression.
    pub plain_bytes: u64,
    /// SHA-256 over the idempotency rows in order: equal on two nodes that remember the same keys.
    pub idempotency_digest: Hash,
}

impl Trailer {
    /// Rows of all tables.
    pub fn row_count(&self) -> u64 {
        self.rows.iter().map(|(_, count)| count).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Entities and relationships of all vaults.
    pub fn key_count(&self) -> u64 {
        self.keys.iter().map(|(_, count)| count).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// How far writing or reading is; handed to the caller after every frame, who may break it off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows so far.
    pub rows: u64,
    /// Bytes of the rows so far, before compression.
    pub plain_bytes: u64,
    /// Bytes of the file so far.
    pub file_bytes: u64,
}
