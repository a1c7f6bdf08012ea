//! What a client remembers of each vault: the key that signs its checkpoints, and the last one seen.

mod directory;
mod memory;

use ledger_core::names::{LedgerId, VaultId, VaultRef};

pub use directory::DirectoryPins;
pub use memory::MemoryPins;

/// Most proofs of forks of one vault that the stores here keep.
pub const FORKS_MAX: usize = 16;

/// Which pin: a vault of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinId {
    /// The ledger.
    pub ledger: LedgerId,
    /// The vault.
    pub vault: VaultId,
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// C2SP verifier key.
    pub verifier_key: String,
    /// The newest checkpoint that was verified: a C2SP signed note.
    pub checkpoint: String,
}

/// What a [`PinStore::replace`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinOutcome {
    /// The new pin is stored.
    Stored,
    /// Somebody else changed the pin since it was read; nothing was stored.
    Moved,
}

/// Two signed notes that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkEvidence {
    /// The pinned checkpoint.
    pub pinned: String,
    /// The checkpoint that contradicts it.
    pub received: String,
    /// What does not fit.
    pub reason: String,
}

/// Where pins live.
///
/// # Contract
/// - **G1 atomic**: after `replace` the pin is the old or the new one, whatever happens.
/// - **G2 compare and set**: `replace` stores only when the pin still is `expected`.
/// - **G3 separate**: pins of different [`PinId`]s do not touch each other.
/// - **G4 evidence**: `record_fork` never overwrites a pin nor other evidence.
pub trait PinStore: Send + Sync + 'static {
    /// The pin, or `None` when there is none yet.
    fn load(&self, id: PinId) -> Result<Option<Pin>, PinError>;

    /// Stores `new` when the pin still is `expected` (G1, G2, G3).
    fn replace(&self, id: PinId, expected: Option<&Pin>, new: &Pin) -> Result<PinOutcome, PinError>;

    /// Remembers that a vault has this name now. Returns the vault that had the name before, when it was another.
    fn name_vault(&self, name: &VaultRef, id: PinId) -> Result<Option<PinId>, PinError>;

    /// Keeps the proof of a fork, and says where (G4). A store may stop at [`FORKS_MAX`] of one vault: the oldest
    /// ones prove as much as later ones.
    fn record_fork(&self, id: PinId, evidence: &ForkEvidence) -> Result<String, PinError>;
}

/// Pins could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    #[error("there is no place for pins: set XDG_STATE_HOME or HOME")]
    NoHome,
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A pin does not parse.
    #[error(
        "the pin {path} is damaged ({reason}): look at it; remove it only if you accept to trust the ledger anew"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}
