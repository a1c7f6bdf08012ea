//! A snapshot in the place of a state that is wrong: a node that differs from its peers takes a peer's content over,
//! behind what it has applied already, and applies the entries since then again, beside the running node. Then both
//! change places at once, at the same entry: the consensus engine does not notice, and no reader sees an earlier state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ledger_state::LedgerState;
use ledger_core::names::VaultId;
use ledger_core::ports::{AppliedState, SignedMark};
use ledger_verify::Hash;
use tokio::sync::oneshot;

use super::install::{InstallError, Installer, PreparedSnapshot};
use super::receiver::SnapshotTaker;
use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::cluster::check_mark;

/// How long this node may take to apply as much as the snapshot holds.
const APPLY_WAIT: Duration = Duration::from_secs(30);
/// Entries that are applied again while everybody waits; what is more is applied before.
const LAST_ENTRIES_MAX: u64 = 64;

/// A block that a peer's content must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpectedBlock {
    pub vault: VaultId,
    pub height: u64,
    pub block_hash: Hash,
}

/// A snapshot that this node waits for because its own content is wrong.
pub(crate) struct RepairOrder {
    /// The snapshot must hold this entry: nothing behind it was purged from the log.
    pub at_least: u64,
    /// What the peers agree on, where this node differs.
    pub expected: Vec<ExpectedBlock>,
    /// How often the state had been replaced when it was ordered.
    pub replacements: u64,
    /// What this node has signed: the content must contain it.
    pub marks: Vec<SignedMark>,
    done: Mutex<Option<oneshot::Sender<Result<u64, ExchangeError>>>>,
}

/// The content was not exchanged; the state is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The same would happen again.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the entries since the snapshot cannot be applied again: {0}")]
    Replay(String),
    #[error("this node did not apply as much as the snapshot holds in time")]
    Behind,
    #[error("another snapshot took the place of the state meanwhile")]
    Replaced,
}

impl From<HalfApplied> for ExchangeError {
    fn from(error: HalfApplied) -> Self {
        Self::Install(error.into())
    }
}

impl RepairOrder {
    /// An order, and what tells how it ended: the last entry of the snapshot.
    pub fn new(
        at_least: u64,
        expected: Vec<ExpectedBlock>,
        (replacements, marks): (u64, Vec<SignedMark>),
    ) -> (Arc<Self>, oneshot::Receiver<Result<u64, ExchangeError>>) {
        let (sender, done) = oneshot::channel();
        let order = Self { at_least, expected, replacements, marks, done: Mutex::new(Some(sender)) };
        (Arc::new(order), done)
    }

    pub(super) fn finish(&self, outcome: Result<u64, ExchangeError>) {
        let sender = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever ordered may have given up.
        sender.map(|sender| sender.send(outcome));
    }

    /// What this node has and was not found to differ must be in the new content too: a leader that is wrong about one vault
    /// does not get it here because it is right about another.
    fn check(&self, current: &LedgerState, new: &LedgerState) -> Result<(), ExchangeError> {
        let block = |vault, height| new.header(vault, height).ok().flatten().map(|header| header.leaf_hash());
        let missing = self.expected.iter().find(|expected| {
            current.has_vault(expected.vault)
                && block(expected.vault, expected.height) != Some(expected.block_hash)
        });
        if let Some(ExpectedBlock { vault, height, .. }) = missing {
            let what = format!(
                "the leader's snapshot does not have block {height} of vault {vault} that a majority has"
            );
            return Err(ExchangeError::Refused(what));
        }
        let wrong = |vault| self.expected.iter().any(|expected| expected.vault == vault);
        for (vault, height, block_hash, _) in current.tips() {
            if !wrong(vault) && block(vault, height) != Some(block_hash) {
                let what = format!(
                    "the leader's snapshot has another block {height} of vault {vault}, which was not found to differ here"
                );
                return Err(ExchangeError::Refused(what));
            }
        }
        let signed = self.marks.iter().find(|mark| check_mark(new, mark).is_err());
        match signed {
            Some(SignedMark { vault, size, .. }) => Err(ExchangeError::Refused(format!(
                "this node has signed a checkpoint over {size} blocks of vault {vault} that the leader's history does not \
                 contain: keep the directory as evidence and replace the node"
            ))),
            None => Ok(()),
        }
    }
}

impl Installer {
    /// Puts a peer's content in the place of this node's, which has applied as much already. Answers its last entry.
    pub async fn exchange(
        &self,
        prepared: PreparedSnapshot,
        order: &Arc<RepairOrder>,
        log: &Arc<dyn SnapshotTaker>,
    ) -> Result<u64, ExchangeError> {
        let PreparedSnapshot { header, install, mut state } = prepared;
        if let Some(entry) = header.vaults.iter().find(|entry| entry.fenced) {
            let what = format!("vault {} is fenced on the leader too: recover it there first", entry.label());
            return Err(ExchangeError::Refused(what));
        }
        let last = header.applied;
        let applied = self.ledger.wait_applied(last.index);
        tokio::time::timeout(APPLY_WAIT, applied).await.map_err(|_| ExchangeError::Behind)?;
        if !log.has_entry(last) {
            let what =
                format!("entry {} of this node's log is of another term than the leader's", last.index);
            return Err(ExchangeError::Refused(what));
        }
        let (ledger, replayed) = (Arc::clone(&self.ledger), Arc::clone(log));
        let catch_up = move || catch_up(&ledger, replayed.as_ref(), &mut state).map(|()| state);
        let state = self.long(catch_up).await??;
        self.log_writer.write_applied(last).await.map_err(InstallError::Log)?;
        let pause = self.flusher.pause().await;
        let (ledger, store) = (Arc::clone(&self.ledger), Arc::clone(&self.store));
        let (order, log) = (Arc::clone(order), Arc::clone(log));
        let exchange = move || {
            let settle = |current: &LedgerState, new: &mut LedgerState| {
                // Under the state's lock.
                if ledger.replacements() != order.replacements {
                    return Err(ExchangeError::Replaced);
                }
                let through = current.last_applied().map_or(0, |id| id.index);
                log.replay(new, through).map_err(ExchangeError::Replay)?;
                order.check(current, new)?;
                install.publish().map_err(InstallError::Store)?;
                new.stand_on(store);
                Ok(())
            };
            // Outside all locks: it has as many nodes as the ledger had keys.
            ledger.exchange(state, settle).map(drop)
        };
        self.long(exchange).await??;
        pause.end(AppliedState { last_applied: last, membership: Bytes::from(header.membership) });
        Ok(last.index)
    }

    async fn long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, InstallError> {
        Ok(self.blocking.long("ledger-install", work).await?)
    }
}

/// Applies the entries since the snapshot until few are left.
fn catch_up(
    ledger: &AppliedLedger,
    log: &dyn SnapshotTaker,
    state: &mut LedgerState,
) -> Result<(), ExchangeError> {
    loop {
        let here = ledger.applied_index().unwrap_or(0);
        let there = state.last_applied().map_or(0, |id| id.index);
        if here.saturating_sub(there) <= LAST_ENTRIES_MAX {
            return Ok(());
        }
        log.replay(state, here).map_err(ExchangeError::Replay)?;
    }
}
