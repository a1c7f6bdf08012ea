use super::format::FileKind;

/// Page cache of `raft.db`: 64 MiB. Appends dirty the right edge of a tree and reads of entries older
/// than the node's own buffer are rare, so it has to hold one batch and little more.
pub const LOG_CACHE_BYTES: usize = 64 << 20;

/// Page cache of `state.db`: 256 MiB, about a million rows of 256 bytes. It is the one cache in front
/// of random reads.
pub const STATE_CACHE_BYTES: usize = 256 << 20;

/// Page cache of `blocks.db`: 64 MiB. It is written at the right edges of its trees and read in runs.
pub const BLOCKS_CACHE_BYTES: usize = 64 << 20;

/// How the three files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedbOptions {
    /// Page cache of `raft.db`, in bytes; see [`LOG_CACHE_BYTES`].
    pub log_cache_bytes: usize,
    /// Page cache of `state.db`, in bytes; see [`STATE_CACHE_BYTES`].
    pub state_cache_bytes: usize,
    /// Page cache of `blocks.db`, in bytes; see [`BLOCKS_CACHE_BYTES`].
    pub blocks_cache_bytes: usize,
    /// What is verified before anything is served.
    pub check: OpenCheck,
    /// What happens to files of an older format.
    pub older_format: OlderFormat,
}

/// What happens to a file whose format is older than that of this program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OlderFormat {
    /// It is not opened.
    #[default]
    Refuse,
    /// It is brought to the present format, in one transaction a file. Ask for it only where a copy of the
    /// directory was made before: older programs cannot open the file any more.
    Migrate,
}

/// Which files are read whole when they are opened, every page against its checksum. A damaged page
/// then fails the opening; otherwise it fails, at the latest, the first read of a row that it altered,
/// but a row that it hides may pass for one that was never written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OpenCheck {
    /// `raft.db`: it is small, and a vote or a record that is hidden breaks the protocol.
    #[default]
    Log,
    /// All three files; the time grows with their size.
    AllFiles,
}

impl RedbOptions {
    pub(super) fn cache_bytes(&self, kind: FileKind) -> usize {
        match kind {
            FileKind::Raft => self.log_cache_bytes,
            FileKind::Blocks => self.blocks_cache_bytes,
            FileKind::State => self.state_cache_bytes,
        }
    }

    pub(super) fn checks(&self, kind: FileKind) -> bool {
        match self.check {
            OpenCheck::Log => kind == FileKind::Raft,
            OpenCheck::AllFiles => true,
        }
    }
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            log_cache_bytes: LOG_CACHE_BYTES,
            state_cache_bytes: STATE_CACHE_BYTES,
            blocks_cache_bytes: BLOCKS_CACHE_BYTES,
            check: OpenCheck::default(),
            older_format: OlderFormat::default(),
        }
    }
}
