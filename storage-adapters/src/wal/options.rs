/// Bytes of a segment: 16 MiB. Preparing one costs a second write of everything, so larger would only
/// free disk space later, and smaller would rotate more often.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest segment: one page.
pub const SEGMENT_BYTES_MIN: u64 = 4096;

/// Who prepares and removes segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upkeep {
    /// A thread of the log's own, so that no commit waits for it as long as it keeps up.
    #[default]
    Background,
    /// The thread that commits, after its batch is durable: in one order, for fault injection.
    Inline,
}

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes of a new segment; at least [`SEGMENT_BYTES_MIN`]. A batch that needs more gets a segment of
    /// its own size. Existing segments keep theirs. [`SEGMENT_BYTES`] when not told.
    pub segment_bytes: u64,
    /// Who prepares and removes segments.
    pub upkeep: Upkeep,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, upkeep: Upkeep::default() }
    }
}
