//! How a snapshot travels: offered, sent in chunks that are acknowledged one by one, installed.

use bytes::Bytes;
use ledger_verify::Hash;
use serde::{Deserialize, Serialize};

use super::consensus::{WireLogId, WireVote};

/// A leader offers a snapshot: how much of it is there?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotOffer {
    pub vote: WireVote,
    /// The SHA-256 at the end of the file, which is over all bytes before it.
    pub id: Hash,
    /// Bytes of the file.
    pub bytes: u64,
    /// The last log entry in it; the file says what membership it leads to.
    pub last: WireLogId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotOfferAnswer {
    /// So many bytes are there: send those after them.
    SendFrom(u64),
    /// All that is in it is applied here.
    NotNeeded(WireVote),
    /// The answering node follows someone else.
    HigherVote(WireVote),
    /// It cannot be taken, or what was sent of it before is damaged: offering it again is of no use.
    Refused(String),
}

/// Some bytes of the snapshot that was offered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub id: Hash,
    pub offset: u64,
    /// Of these bytes.
    pub sha256: Hash,
    pub data: Bytes,
}

impl std::fmt::Debug for SnapshotChunk {
    /// Without the data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotChunk")
            .field("offset", &self.offset)
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotChunkAnswer {
    /// So many bytes are there now.
    SendFrom(u64),
    /// No such snapshot is being received: offer it anew.
    Unknown,
}

/// All of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotInstall {
    pub vote: WireVote,
    pub id: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotInstallAnswer {
    /// It is being verified and installed: ask again.
    Working,
    /// It is installed, or was not needed any more.
    Installed(WireVote),
    /// The answering node follows someone else.
    HigherVote(WireVote),
    /// So many bytes are there: send those after them first.
    SendFrom(u64),
    /// No such snapshot is being received: offer it anew.
    Unknown,
    /// It is no sound snapshot of this ledger: sending it again is of no use.
    Refused(String),
}
