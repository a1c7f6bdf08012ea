//! Backups: a base, which is a snapshot, and increments with every block and journaled command since.
//!
//! A base and the increments that follow it without a gap are a *chain*. The state after any log entry that a chain
//! covers can be made again by [`Replay`], header by header as it was; [`ChainCheck`] proves without the ledger that a
//! chain holds what its checkpoints were signed for. [`Continuity`] tells whether new files go on with the history of
//! those before them. Layouts are frozen in `docs/formats.md`. Files are streams here: whoever has a disk opens them.

mod chain_check;
mod continuity;
mod error;
mod gather;
mod increment;
mod read;
mod replay;
mod replayed_vault;
mod submissions;
mod write;

pub use chain_check::{ChainCheck, ChainVault, CheckedIncrement, Reach, Witness};
pub use continuity::{Continuity, Tip};
pub use error::BackupError;
pub use gather::Gathered;
pub use increment::{
    BlockRecord, FORMAT, IncrementHeader, IncrementProgress, IncrementTrailer, LostVault, MAGIC, Record,
};
pub use read::{Increment, IncrementSummary};
pub use replay::Replay;
pub use write::WrittenIncrement;
