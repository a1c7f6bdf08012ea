//! Pins that live as long as the client.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ledger_core::names::VaultRef;

use super::{FORKS_MAX, ForkEvidence, Pin, PinError, PinId, PinOutcome, PinStore};

#[derive(Debug, Default)]
struct Kept {
    pins: BTreeMap<PinId, Pin>,
    names: HashMap<VaultRef, PinId>,
    forks: Vec<(PinId, ForkEvidence)>,
}

/// Pins in memory: for tests, and for programs that keep them elsewhere.
#[derive(Debug, Default)]
pub struct MemoryPins {
    kept: Mutex<Kept>,
}

impl MemoryPins {
    /// All evidence of forks so far.
    pub fn forks(&self) -> Vec<(PinId, ForkEvidence)> {
        self.lock().forks.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PinStore for MemoryPins {
    fn load(&self, id: PinId) -> Result<Option<Pin>, PinError> {
        Ok(self.lock().pins.get(&id).cloned())
    }

    fn replace(&self, id: PinId, expected: Option<&Pin>, new: &Pin) -> Result<PinOutcome, PinError> {
        let mut kept = self.lock();
        if kept.pins.get(&id) != expected {
            return Ok(PinOutcome::Moved);
        }
        kept.pins.insert(id, new.clone());
        Ok(PinOutcome::Stored)
    }

    fn name_vault(&self, name: &VaultRef, id: PinId) -> Result<Option<PinId>, PinError> {
        let before = self.lock().names.insert(name.clone(), id);
        Ok(before.filter(|before| *before != id))
    }

    fn record_fork(&self, id: PinId, evidence: &ForkEvidence) -> Result<String, PinError> {
        let mut kept = self.lock();
        if kept.forks.iter().filter(|(of, _)| *of == id).count() >= FORKS_MAX {
            return Ok(format!("memory (the first {FORKS_MAX} forks of this vault)"));
        }
        kept.forks.push((id, evidence.clone()));
        Ok(format!("memory (fork {})", kept.forks.len()))
    }
}
