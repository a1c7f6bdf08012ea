//! Proofs at earlier heights: one at a time, because each may hold a copy of a state tree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_core::ledger_state::{REWIND_IN_PLACE_MAX, ReadError, Rewind};
use ledger_core::names::VaultId;
use ledger_core::state_tree::StateTree;
use ledger_verify::Hash;
use ledger_verify::state::StateProof;
use tokio::sync::Semaphore;

use crate::applied_state::{AppliedLedger, HalfApplied};

/// Callers that wait for their turn; more are refused with a retry time.
const WAITERS_MAX: usize = 256;
/// Blocks that are undone under one lock of the state.
const BLOCKS_PER_LOCK: u64 = 64;

/// The desk at which historical proofs are made.
pub(crate) struct HistoricalProofs {
    /// One permit: who has it makes a proof. It goes with the work, also when nobody waits for that any more.
    pub turn: Arc<Semaphore>,
    /// Who waits for it.
    pub waiting: Semaphore,
    /// The tree that was copied last.
    copy: Mutex<Option<Copy>>,
    /// How often the state had been replaced when it was copied.
    replacements: AtomicU64,
}

/// The state tree of a vault at an earlier height.
struct Copy {
    vault: VaultId,
    height: u64,
    tree: StateTree,
}

/// Why there is no proof.
pub(crate) enum ProofRefused {
    HalfApplied(HalfApplied),
    Read(ReadError),
}

impl From<HalfApplied> for ProofRefused {
    fn from(error: HalfApplied) -> Self {
        Self::HalfApplied(error)
    }
}

impl From<ReadError> for ProofRefused {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl HistoricalProofs {
    pub fn new() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITERS_MAX),
            copy: Mutex::new(None),
            replacements: AtomicU64::new(0),
        }
    }

    /// The proof for a key in the state at `height`, checked against the root in that block's header.
    /// Takes as long as there are changes since: call it on a thread that may block, in turn.
    pub fn prove(
        &self,
        ledger: &AppliedLedger,
        vault: VaultId,
        height: u64,
        key_hash: &Hash,
    ) -> Result<StateProof, ProofRefused> {
        let mut copy = self.copy();
        let replacements = ledger.replacements();
        if self.replacements.swap(replacements, Ordering::SeqCst) != replacements {
            *copy = None;
        }
        if let Some(known) = copy.as_mut().filter(|known| known.vault == vault && known.height >= height) {
            known.go_back(ledger, height)?;
        } else {
            match undo(ledger, ledger.read()?.rewind(vault, height)?, key_hash)? {
                Undone::Proof(proof) => return Ok(proof),
                Undone::Copy(tree) => *copy = Some(Copy { vault, height, tree }),
            }
        }
        let Some(known) = copy.as_ref() else { return Err(ReadError::VaultNotFound.into()) };
        if let Err(error) = ledger.read()?.check_root(vault, height, &known.tree.root()) {
            *copy = None;
            return Err(error.into());
        }
        Ok(known.tree.prove(key_hash))
    }

    /// Gives back the memory of a vault that was deleted.
    pub fn forget(&self, vault: VaultId) {
        self.copy().take_if(|copy| copy.vault == vault);
    }

    /// A tree is changed after everything that can fail, so a poisoned lock guards a whole one.
    fn copy(&self) -> MutexGuard<'_, Option<Copy>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copy {
    fn go_back(&mut self, ledger: &AppliedLedger, height: u64) -> Result<(), ProofRefused> {
        if self.height > height {
            let mut way = ledger.read()?.rewind(self.vault, height)?;
            while !ledger.read()?.rewind_on(&mut way, self.height, BLOCKS_PER_LOCK)? {}
            way.apply_to(&mut self.tree);
            self.height = height;
        }
        Ok(())
    }
}

enum Undone {
    Proof(StateProof),
    Copy(StateTree),
}

/// Goes back from the newest block: in place when few keys have changed, else with a copy of the tree.
fn undo(ledger: &AppliedLedger, mut way: Rewind, key_hash: &Hash) -> Result<Undone, ProofRefused> {
    let mut tree = loop {
        let state = ledger.read()?;
        if !state.rewind_on(&mut way, u64::MAX, BLOCKS_PER_LOCK)? {
            continue;
        }
        if way.changed_keys() <= REWIND_IN_PLACE_MAX {
            return Ok(Undone::Proof(state.rewound_proof(&way, key_hash)?));
        }
        break state.tree_copy(way.vault())?;
    };
    way.apply_to(&mut tree);
    Ok(Undone::Copy(tree))
}
