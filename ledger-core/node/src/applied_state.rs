//! The state that a node has applied, shared between the one task that applies and many readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ledger_core::access_token::AccessTokens;
use ledger_core::ledger_state::LedgerState;
use tokio::sync::watch;

use crate::ordered_watch;

/// A task panicked while it changed the state, which may be half changed: nobody reads it any more.
#[derive(Debug, thiserror::Error)]
#[error("the state was left half applied by a panic: restart the node")]
pub(crate) struct HalfApplied;

/// The state behind a lock that nobody holds across an await, and how far in the log it is.
pub(crate) struct AppliedLedger {
    state: RwLock<LedgerState>,
    /// Index after the newest applied entry; 0 = nothing applied.
    next_index: ordered_watch::Sender<u64>,
    /// How often the whole state was replaced.
    replacements: AtomicU64,
    /// The access tokens of the state.
    tokens: watch::Sender<Arc<AccessTokens>>,
}

impl AppliedLedger {
    pub fn new(state: LedgerState) -> Self {
        let next_index = ordered_watch::Sender::new(next_index(&state));
        let tokens = watch::Sender::new(Arc::clone(state.tokens()));
        Self { state: RwLock::new(state), next_index, tokens, replacements: AtomicU64::new(0) }
    }

    /// How often the whole state was replaced. What somebody took from the state at one number is not to be carried
    /// on at another; compare under the state's lock.
    pub fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::SeqCst)
    }

    /// Puts another state in the place of this one, once `publish` has put its rows in the place of this one's. No
    /// reader sees one without the other. Answers the state before; dropping it takes a while.
    pub fn replace<E: From<HalfApplied>>(
        &self,
        state: LedgerState,
        publish: impl FnOnce() -> Result<(), E>,
    ) -> Result<LedgerState, E> {
        let mut current = self.write()?;
        publish()?;
        let (next_index, tokens) = (next_index(&state), Arc::clone(state.tokens()));
        let before = std::mem::replace(&mut *current, state);
        self.replacements.fetch_add(1, Ordering::SeqCst);
        drop(current);
        self.tokens.send_replace(tokens);
        self.next_index.replace(next_index);
        Ok(before)
    }

    /// Puts another state of the same entry in the place of this one, once `settle` has made it so and has put its rows in
    /// the place of this one's. No reader sees one without the other. Answers the state before; dropping it takes a
    /// while.
    pub fn exchange<E: From<HalfApplied>>(
        &self,
        mut state: LedgerState,
        settle: impl FnOnce(&LedgerState, &mut LedgerState) -> Result<(), E>,
    ) -> Result<LedgerState, E> {
        let mut current = self.write()?;
        settle(&current, &mut state)?;
        let tokens = Arc::clone(state.tokens());
        let before = std::mem::replace(&mut *current, state);
        self.replacements.fetch_add(1, Ordering::SeqCst);
        drop(current);
        self.tokens.send_replace(tokens);
        Ok(before)
    }

    pub fn read(&self) -> Result<RwLockReadGuard<'_, LedgerState>, HalfApplied> {
        self.state.read().map_err(|_| HalfApplied)
    }

    pub fn write(&self) -> Result<RwLockWriteGuard<'_, LedgerState>, HalfApplied> {
        self.state.write().map_err(|_| HalfApplied)
    }

    /// For names, times and sizes, which are whole at every moment.
    pub fn read_directory(&self) -> RwLockReadGuard<'_, LedgerState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait that this entry is applied.
    pub fn set_applied(&self, index: u64) {
        // Before the index: whoever waits for an entry finds the tokens as of that entry.
        let tokens = Arc::clone(self.read_directory().tokens());
        self.tokens.send_if_modified(|known| {
            let is_other = !Arc::ptr_eq(known, &tokens);
            if is_other {
                *known = tokens;
            }
            is_other
        });
        self.next_index.replace(index + 1);
    }

    /// Index of the newest applied entry.
    pub fn applied_index(&self) -> Option<u64> {
        self.next_index.borrow().checked_sub(1)
    }

    /// The access tokens; changes when they do.
    pub fn tokens(&self) -> watch::Receiver<Arc<AccessTokens>> {
        self.tokens.subscribe()
    }

    /// Changes after every applied entry.
    pub fn subscribe(&self) -> ordered_watch::Receiver<u64> {
        self.next_index.subscribe()
    }

    /// Waits until an entry is applied.
    pub async fn wait_applied(&self, index: u64) {
        if *self.next_index.borrow() > index {
            return;
        }
        // The sender lives as long as `self`, so this ends only when the condition holds.
        let _ = self.next_index.subscribe().wait_for(|next| *next > index).await;
    }
}

fn next_index(state: &LedgerState) -> u64 {
    state.last_applied().map_or(0, |id| id.index + 1)
}
