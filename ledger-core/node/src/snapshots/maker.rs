//! Writing snapshots beside the node's work: a flush, a consistent view, signatures over its tips, then the rows, on a
//! thread of its own that rests more than it works.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger_core::ledger_state::{ReadError, StateError};
use ledger_core::names::VaultId;
use ledger_core::ports::{StateStore, StateView};
use ledger_core::snapshot::{self, Header, Progress, WriteError};
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::folder::{SnapshotFolder, StoredSnapshot};
use crate::applied_state::AppliedLedger;
use crate::checkpoint_signer::{CheckpointSigner, SignError};
use crate::clock::Clock;
use crate::counters::{CounterCells, add};
use crate::flusher::Flusher;
use crate::worker::Threads;

/// After each frame the writer rests so many times as long as the frame took: about a third of one processor.
const REST_FACTOR: u32 = 2;
/// While a follower waits for the snapshot the writer rests a fourth of the time that a frame took.
const REST_DIVISOR_IN_A_HURRY: u32 = 4;
/// Longest rest after a frame, whatever it took.
const REST_MAX: Duration = Duration::from_millis(100);
/// Vaults that are deleted while their tips are signed make the snapshot begin anew; so often at most.
const ATTEMPTS_MAX: u32 = 5;
/// Tips that are signed at once: whoever waits for another checkpoint waits so long.
const SIGNED_AT_ONCE: usize = 256;
/// A node that starts with an old snapshot waits so long before it writes one.
const FIRST_DELAY: Duration = Duration::from_secs(30);

/// A snapshot was not written. The older ones are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFailure {
    /// One is being written.
    #[error("a snapshot is being written: wait for it")]
    InProgress,
    /// It could not be written.
    #[error(transparent)]
    Write(WriteError),
    /// The folder cannot be used.
    #[error("the folder of snapshots cannot be used: {0}")]
    Folder(io::Error),
    /// The stored blocks are not those that were applied: the store was changed outside the ledger.
    #[error(
        "the stored log of vault {vault} is not the one that was applied: nothing was signed or written. Stop the node \
         and run `strongroom ledger doctor` on its data directory"
    )]
    Diverged {
        /// `NAMESPACE/VAULT`.
        vault: String,
    },
    /// The rows of a fenced vault cannot be read, or its fence is not stored yet: it cannot be written as it is.
    #[error(
        "vault {vault} is fenced: recover it (`strongroom ledger recover {vault}`), then there are snapshots again"
    )]
    Fenced {
        /// `NAMESPACE/VAULT`.
        vault: String,
    },
    /// Snapshots are held back, as on a disk that is nearly full.
    #[error("the disk is nearly full, so no snapshot is written: add room to the disk of the data directory")]
    HeldBack,
    /// Vaults came and went faster than their tips could be signed.
    #[error("vaults were deleted while the snapshot began: try again")]
    Unsettled,
    /// Only the leader signs the tips of a snapshot, and it gave none.
    #[error("the leader has not signed the tips of the snapshot ({reason}): try again")]
    NoCheckpoints {
        /// Why.
        reason: String,
    },
    /// The node stops, or has failed.
    #[error("the node stops: there is no snapshot of this call")]
    Stopped,
}

/// What a node is doing about snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotWork {
    /// How far the snapshot is that is being written; `None` = none is.
    pub writing: Option<Progress>,
    /// Why the last one was not written; `None` = it was, or there was none.
    pub last_failure: Option<String>,
}

impl From<StateError> for SnapshotFailure {
    fn from(error: StateError) -> Self {
        Self::Write(error.into())
    }
}

impl From<io::Error> for SnapshotFailure {
    fn from(error: io::Error) -> Self {
        Self::Folder(error)
    }
}

/// What a maker works with.
pub(crate) struct SnapshotMakerParts {
    pub store: Arc<dyn StateStore>,
    pub ledger: Arc<AppliedLedger>,
    pub flusher: Flusher,
    pub signer: CheckpointSigner,
    pub clock: Arc<dyn Clock>,
    pub counters: Arc<CounterCells>,
    pub every: Duration,
    pub keep: usize,
    pub threads: Threads,
}

/// Index and time of the newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewestSnapshot {
    pub index: u64,
    pub created_at_ms: u64,
}

/// Writes snapshots, one at a time. Clones share it.
#[derive(Clone)]
pub(crate) struct SnapshotMaker(Arc<Inner>);

struct Inner {
    folder: SnapshotFolder,
    parts: SnapshotMakerParts,
    /// One permit: whoever has it writes.
    turn: Arc<Semaphore>,
    newest: Mutex<Option<NewestSnapshot>>,
    work: Mutex<SnapshotWork>,
    held_back: AtomicBool,
    /// Followers that wait.
    hurry: AtomicUsize,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

/// Somebody cannot go on without a snapshot; ends when it is dropped.
struct Hurry<'m>(&'m AtomicUsize);

impl<'m> Hurry<'m> {
    fn new(count: &'m AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SnapshotMaker {
    /// A maker for a data directory that this process holds the lock of; removes what a crash left unfinished.
    pub fn open(data_directory: &Path, parts: SnapshotMakerParts) -> io::Result<Self> {
        let folder = SnapshotFolder::of(data_directory);
        let removed = folder.clean()?;
        if removed > 0 {
            tracing::info!(removed, "removed snapshots that were not finished");
        }
        let newest = folder.list()?.into_iter().rev().find_map(|stored| {
            let created_at_ms = stored.summary.ok()?.header.created_at_ms;
            Some(NewestSnapshot { index: stored.index, created_at_ms })
        });
        Ok(Self(Arc::new(Inner {
            folder,
            parts,
            turn: Arc::new(Semaphore::new(1)),
            newest: Mutex::new(newest),
            work: Mutex::default(),
            held_back: AtomicBool::new(false),
            hurry: AtomicUsize::new(0),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
        })))
    }

    /// The folder that the snapshots are in.
    pub fn folder(&self) -> &SnapshotFolder {
        &self.0.folder
    }

    /// The newest snapshot that is known to be there.
    pub fn newest(&self) -> Option<NewestSnapshot> {
        *lock(&self.0.newest)
    }

    /// What is being written, and how the last attempt ended.
    pub fn work(&self) -> SnapshotWork {
        lock(&self.0.work).clone()
    }

    /// Whether the node stops.
    pub fn is_stopping(&self) -> bool {
        *lock(&self.0.stopping)
    }

    /// Breaks off what is being written and begins nothing until [`release`](Self::release).
    pub fn hold_back(&self) {
        self.0.held_back.store(true, Ordering::SeqCst);
    }

    /// Lets snapshots be written again.
    pub fn release(&self) {
        self.0.held_back.store(false, Ordering::SeqCst);
    }

    /// Writes a snapshot of all that is applied now, or finds the one that has it. It goes on when nobody waits for
    /// it any more.
    pub async fn create(&self) -> Result<StoredSnapshot, SnapshotFailure> {
        let turn = Arc::clone(&self.0.turn);
        let turn = turn.try_acquire_owned().map_err(|_| SnapshotFailure::InProgress)?;
        let (sender, answer) = oneshot::channel();
        let maker = self.clone();
        lock(&self.0.work).writing = Some(Progress::default());
        let body = async move {
            let end = EndOfWork(maker, turn);
            let made = end.0.make().await;
            end.0.count(&made);
            drop(end);
            // Nobody may be waiting any more.
            let _ = sender.send(made);
        };
        match self.0.parts.threads {
            Threads::Own => {
                // Signatures may come from a peer: what waits for them needs the caller's runtime.
                let runtime = tokio::runtime::Handle::current();
                let thread = std::thread::Builder::new().name("ledger-snapshot".to_owned());
                thread.spawn(move || runtime.block_on(body))?;
            }
            Threads::Inline { .. } => drop(tokio::spawn(body)),
        }
        answer.await.unwrap_or(Err(SnapshotFailure::Stopped))
    }

    /// As [`create`](Self::create), for a follower that cannot go on without it; one that is under way is hurried too.
    pub async fn create_for_follower(&self) -> Result<StoredSnapshot, SnapshotFailure> {
        let _hurry = Hurry::new(&self.0.hurry);
        self.create().await
    }

    /// Takes a file of the folder in as a snapshot: one that a peer sent and that is installed.
    pub fn adopt(&self, file: &Path, index: u64) -> io::Result<()> {
        self.0.folder.adopt(file, index)?;
        if let Some(Ok(summary)) = self.0.folder.find(index).map(|stored| stored.summary) {
            let created_at_ms = summary.header.created_at_ms;
            *lock(&self.0.newest) = Some(NewestSnapshot { index, created_at_ms });
        }
        let removed = self.0.folder.prune(self.0.parts.keep, index)?;
        add(&self.0.parts.counters.snapshots_pruned, removed as u64);
        Ok(())
    }

    /// Whether a snapshot is of the history that is applied here: a directory may have been put back to an earlier
    /// time while its snapshots were not.
    pub fn is_of_this_history(&self, header: &Header) -> bool {
        let Ok(state) = self.0.parts.ledger.read() else { return false };
        let fits = |entry: &snapshot::VaultEntry| {
            let Ok(tip) = BlockHeader::decode(&entry.header) else { return false };
            match state.log_root_at(entry.id, tip.height + 1) {
                Ok(root) => root == entry.log_root,
                // It was deleted since.
                Err(error) => matches!(error, ReadError::VaultNotFound),
            }
        };
        state.ledger_id() == Some(header.ledger_id)
            && state.last_applied().is_some_and(|applied| applied.index >= header.applied.index)
            && header.vaults.iter().filter(|entry| !entry.fenced).all(fits)
    }

    /// Writes snapshots at the interval, for ever.
    pub async fn run(self) {
        let every = self.0.parts.every;
        if every.is_zero() {
            return std::future::pending().await;
        }
        let age_ms = self
            .newest()
            .map_or(0, |newest| self.0.parts.clock.now_ms().saturating_sub(newest.created_at_ms));
        let mut delay = every.saturating_sub(Duration::from_millis(age_ms)).max(FIRST_DELAY.min(every));
        loop {
            tokio::time::sleep(delay).await;
            delay = every;
            match self.create().await {
                Ok(_) | Err(SnapshotFailure::InProgress | SnapshotFailure::Stopped) => {}
                Err(error @ SnapshotFailure::HeldBack) => tracing::warn!(%error, "no automatic snapshot"),
                Err(error) => tracing::error!(%error, "the automatic snapshot failed"),
            }
        }
    }

    /// Breaks off what is being written, and lets nothing begin; returns when nothing runs.
    pub async fn stop(&self) {
        *lock(&self.0.stopping) = true;
        self.0.stopped.notify_all();
        let turn: Result<OwnedSemaphorePermit, _> = Arc::clone(&self.0.turn).acquire_owned().await;
        self.0.turn.close();
        drop(turn);
    }

    fn count(&self, made: &Result<StoredSnapshot, SnapshotFailure>) {
        lock(&self.0.work).last_failure = made.as_ref().err().map(ToString::to_string);
        match made {
            Ok(_) | Err(SnapshotFailure::Stopped | SnapshotFailure::HeldBack) => {}
            Err(_) => add(&self.0.parts.counters.snapshots_failed, 1),
        }
    }

    async fn make(&self) -> Result<StoredSnapshot, SnapshotFailure> {
        if self.0.held_back.load(Ordering::SeqCst) {
            return Err(SnapshotFailure::HeldBack);
        }
        let started = Instant::now();
        let (view, header) = self.begin().await?;
        let index = header.applied.index;
        let folder = &self.0.folder;
        let stored = match folder.find(index).filter(|stored| holds_the_same(stored, &header)) {
            Some(stored) => stored,
            None => {
                let mut pace = Pace { maker: self, frame_began: Instant::now() };
                let written = folder.write(index, |sink| -> Result<_, SnapshotFailure> {
                    let mut watch = |progress: &Progress| pace.rest(progress);
                    let written = snapshot::write(view.as_ref(), &header, sink, &mut watch);
                    written.map_err(|error| self.broken_off(error, &header))
                })?;
                // The store keeps for the view what is overwritten.
                drop(view);
                let counters = &self.0.parts.counters;
                add(&counters.snapshots_written, 1);
                add(&counters.snapshot_bytes, written.file_bytes);
                add(&counters.snapshot_ms, u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
                match folder.prune(self.0.parts.keep, index) {
                    Ok(removed) => add(&counters.snapshots_pruned, removed as u64),
                    Err(error) => tracing::warn!(%error, "older snapshots cannot be removed"),
                }
                tracing::info!(index, bytes = written.file_bytes, "wrote a snapshot");
                folder.find(index).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
            }
        };
        let created_at_ms = stored.summary.as_ref().map_or(0, |summary| summary.header.created_at_ms);
        *lock(&self.0.newest) = Some(NewestSnapshot { index, created_at_ms });
        Ok(stored)
    }

    fn broken_off(&self, error: WriteError, header: &Header) -> SnapshotFailure {
        let fenced = header.vaults.iter().find(|entry| entry.fenced);
        match (error, fenced) {
            (WriteError::State(error), Some(entry)) => {
                tracing::error!(vault = entry.label(), %error, "no snapshot: a vault is fenced");
                SnapshotFailure::Fenced { vault: entry.label() }
            }
            (error, _) => self.ended(error),
        }
    }

    fn ended(&self, error: WriteError) -> SnapshotFailure {
        match error {
            WriteError::Cancelled if *lock(&self.0.stopping) => SnapshotFailure::Stopped,
            WriteError::Cancelled => SnapshotFailure::HeldBack,
            other => SnapshotFailure::Write(other),
        }
    }

    /// A view of everything that is applied now, with the signed tips of its vaults.
    pub(crate) async fn begin(&self) -> Result<(Box<dyn StateView>, Header), SnapshotFailure> {
        for _ in 0..ATTEMPTS_MAX {
            self.flush().await?;
            let view = self.0.parts.store.view().map_err(StateError::from)?;
            let mut header = snapshot::outline(view.as_ref(), self.0.parts.clock.now_ms())?;
            if let Some(tips) = self.tips(&header)? {
                let mut notes = Vec::with_capacity(tips.len());
                for tips in tips.chunks(SIGNED_AT_ONCE) {
                    let signed = self.0.parts.signer.signed_tips(tips).await;
                    notes.extend(signed.map_err(|error| match error {
                        SignError::Stopped => SnapshotFailure::Stopped,
                        SignError::Leader(reason) => SnapshotFailure::NoCheckpoints { reason },
                        _ => SnapshotFailure::Unsettled,
                    })?);
                }
                let signed = header.vaults.iter_mut().filter(|entry| !entry.fenced);
                for (entry, note) in signed.zip(notes) {
                    entry.checkpoint = Some(note);
                }
                return Ok((view, header));
            }
        }
        Err(SnapshotFailure::Unsettled)
    }

    /// Writes what is applied to the store.
    async fn flush(&self) -> Result<(), SnapshotFailure> {
        let flusher = &self.0.parts.flusher;
        let target = self.0.parts.ledger.applied_index();
        let mut rounds = flusher.rounds();
        // The round under way may have begun before; the one after it writes all that is applied now. Entries that
        // change no row leave the durable index where it is, and rows that no entry changed (the fences of a start, and of
        // a check) do too.
        for _ in 0..2 {
            if self.is_all_stored()? && flusher.durable_index() >= target {
                return Ok(());
            }
            if flusher.has_ended() || *lock(&self.0.stopping) {
                return Err(SnapshotFailure::Stopped);
            }
            rounds.mark_unchanged();
            flusher.request();
            rounds.changed().await.map_err(|_| SnapshotFailure::Stopped)?;
        }
        if flusher.has_ended() { Err(SnapshotFailure::Stopped) } else { Ok(()) }
    }

    fn is_all_stored(&self) -> Result<bool, SnapshotFailure> {
        let state = self.0.parts.ledger.read().map_err(|_| SnapshotFailure::Stopped)?;
        Ok(state.overlay_bytes() == 0)
    }

    /// What is to be signed: only what is stored and applied alike. `None` when a vault is gone since the view.
    fn tips(&self, header: &Header) -> Result<Option<Tips>, SnapshotFailure> {
        let mut tips = Vec::with_capacity(header.vaults.len());
        for entry in header.vaults.iter().filter(|entry| !entry.fenced) {
            let diverged = || SnapshotFailure::Diverged { vault: entry.label() };
            let size = BlockHeader::decode(&entry.header).map_err(|_| diverged())?.height + 1;
            // Vault by vault: applying goes on in between.
            let state = self.0.parts.ledger.read().map_err(|_| SnapshotFailure::Stopped)?;
            match state.log_root_at(entry.id, size) {
                Ok(root) if root == entry.log_root => tips.push((entry.id, size, root)),
                Err(ReadError::VaultNotFound) => return Ok(None),
                // The fence is not stored yet: it came into being since the view.
                Err(ReadError::VaultDiverged(_)) => {
                    return Err(SnapshotFailure::Fenced { vault: entry.label() });
                }
                Err(ReadError::State(error)) => return Err(error.into()),
                Ok(_) | Err(_) => return Err(diverged()),
            }
        }
        Ok(Some(tips))
    }
}

/// Whether a snapshot of the same index is of the same history: the files of a directory may have been put back to an
/// earlier time, its snapshots not.
fn holds_the_same(stored: &StoredSnapshot, header: &Header) -> bool {
    let same = |other: &Header| {
        other.ledger_id == header.ledger_id
            && other.applied == header.applied
            && other.vaults == header.vaults
    };
    stored.summary.as_ref().is_ok_and(|summary| same(&summary.header))
}

/// Says that nothing is being written any more, after a panic too, before it lets the next one begin.
struct EndOfWork(
    SnapshotMaker,
    #[expect(dead_code, reason = "it counts when it is dropped")] OwnedSemaphorePermit,
);

impl Drop for EndOfWork {
    fn drop(&mut self) {
        lock(&self.0.0.work).writing = None;
    }
}

/// Vault, size of its log, root of its log.
type Tips = Vec<(VaultId, u64, Hash)>;

/// Lets the node have the processor between two frames.
struct Pace<'m> {
    maker: &'m SnapshotMaker,
    frame_began: Instant,
}

impl Pace<'_> {
    /// Breaks off when the node stops or the disk fills.
    fn rest(&mut self, progress: &Progress) -> ControlFlow<()> {
        let inner = &self.maker.0;
        lock(&inner.work).writing = Some(*progress);
        if inner.held_back.load(Ordering::SeqCst) {
            return ControlFlow::Break(());
        }
        if inner.parts.threads != Threads::Own {
            // Nothing else could use the processor meanwhile.
            return ControlFlow::Continue(());
        }
        let took = self.frame_began.elapsed();
        let rest = match inner.hurry.load(Ordering::SeqCst) {
            0 => took.saturating_mul(REST_FACTOR),
            _ => took / REST_DIVISOR_IN_A_HURRY,
        };
        let until = Instant::now() + rest.min(REST_MAX);
        let mut stopping = lock(&inner.stopping);
        loop {
            if *stopping {
                return ControlFlow::Break(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stopping = inner.stopped.wait_timeout(stopping, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.frame_began = Instant::now();
        ControlFlow::Continue(())
    }
}

/// Nothing panics while it holds these locks, so a poisoned one guards no broken invariant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
