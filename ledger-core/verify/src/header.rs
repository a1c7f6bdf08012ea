//! The block header: 188 bytes, built identically by every replica; its log leaf hash is the block hash.

use crate::Hash;
use crate::error::DecodeError;
use crate::hash::{SUITE_SHA256, log_leaf};
use crate::layout::{Reader, put};

/// Bytes of an encoded header.
pub const HEADER_BYTES: usize = 188;
/// Newest version: the state root covers the lists of relationships too.
pub const HEADER_VERSION: u16 = 2;
/// The version before: its state root covers entities and relationships, but no lists. The layout is the same.
pub const HEADER_VERSION_WITHOUT_LISTS: u16 = 1;
const MAGIC: [u8; 4] = *b"SRBH";
const WHAT: &str = "a block header";

/// One block of a vault. All integers are big-endian in the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// [`HEADER_VERSION`] or [`HEADER_VERSION_WITHOUT_LISTS`]: what the state root covers.
    pub version: u16,
    /// The ledger.
    pub ledger_id: [u8; 16],
    /// The vault, a UUID that is never reused.
    pub vault_id: [u8; 16],
    /// Height of the block and its index in the vault's log; genesis is 0.
    pub height: u64,
    /// Log leaf hash of the previous header; zero at genesis.
    pub previous: Hash,
    /// Root of the log tree over the block's canonical transactions.
    pub tx_root: Hash,
    /// Transactions in the block.
    pub tx_count: u32,
    /// Root of the vault's state tree after the block.
    pub state_root: Hash,
    /// Unix time of the proposal in milliseconds; never decreases from block to block.
    pub time_ms: u64,
    /// Consensus term of the entry that made the block.
    pub term: u64,
    /// Consensus index of that entry.
    pub index: u64,
    /// Sequence number of the first transaction; sequences of a vault start at 1.
    pub first_sequence: u64,
    /// Sequence number of the last transaction; `first_sequence - 1` when the block is empty.
    pub last_sequence: u64,
}

impl BlockHeader {
    /// The canonical bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut rest: &mut [u8] = &mut out;
        rest = put(rest, MAGIC);
        rest = put(rest, self.version.to_be_bytes());
        rest = put(rest, SUITE_SHA256.to_be_bytes());
        rest = put(rest, self.ledger_id);
        rest = put(rest, self.vault_id);
        rest = put(rest, self.height.to_be_bytes());
        rest = put(rest, self.previous);
        rest = put(rest, self.tx_root);
        rest = put(rest, self.tx_count.to_be_bytes());
        rest = put(rest, self.state_root);
        rest = put(rest, self.time_ms.to_be_bytes());
        rest = put(rest, self.term.to_be_bytes());
        rest = put(rest, self.index.to_be_bytes());
        rest = put(rest, self.first_sequence.to_be_bytes());
        put(rest, self.last_sequence.to_be_bytes());
        out
    }

    /// Reads the canonical bytes; refuses another size, magic, version or hash suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != HEADER_BYTES {
            return Err(DecodeError::Length { what: WHAT, expected: HEADER_BYTES, given: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        reader.expect_magic(WHAT, MAGIC)?;
        let version = reader.u16("the header version")?;
        if !(HEADER_VERSION_WITHOUT_LISTS..=HEADER_VERSION).contains(&version) {
            return Err(DecodeError::Unknown { field: "the header version", given: version.into() });
        }
        reader.expect_u16("the header's hash suite", SUITE_SHA256)?;
        let header = Self {
            version,
            ledger_id: reader.array("the ledger id")?,
            vault_id: reader.array("the vault id")?,
            height: reader.u64("the height")?,
            previous: reader.array("the previous header's hash")?,
            tx_root: reader.array("the transaction root")?,
            tx_count: reader.u32("the transaction count")?,
            state_root: reader.array("the state root")?,
            time_ms: reader.u64("the time")?,
            term: reader.u64("the term")?,
            index: reader.u64("the index")?,
            first_sequence: reader.u64("the first sequence")?,
            last_sequence: reader.u64("the last sequence")?,
        };
        reader.finish(WHAT)?;
        Ok(header)
    }

    /// Whether the state root covers lists: only then a list, or that there is none, can be proved.
    pub fn covers_lists(&self) -> bool {
        self.version > HEADER_VERSION_WITHOUT_LISTS
    }

    /// The block hash: the RFC 6962 leaf hash of the canonical bytes.
    pub fn leaf_hash(&self) -> Hash {
        log_leaf(&self.encode())
    }
}
