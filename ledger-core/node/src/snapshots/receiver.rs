//! Taking a snapshot from a leader: its chunks into a file, the file through the verifier into the store, the store's
//! new content through the consensus engine into service.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ledger_state::LedgerState;
use ledger_core::ports::LogId;
use ledger_verify::Hash;
use ledger_verify::hash::sha256;
use tokio::sync::{Mutex, watch};

use super::exchange::{ExchangeError, RepairOrder};
use super::folder::SnapshotFolder;
use super::incoming::{Incoming, Offered};
use super::install::{InstallError, Installer, PreparedSnapshot};
use super::maker::SnapshotMaker;
use crate::blocking_work::BlockingWork;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{
    self, SnapshotChunk, SnapshotChunkAnswer, SnapshotInstall, SnapshotInstallAnswer, SnapshotOffer,
    SnapshotOfferAnswer, WireVote,
};
use crate::peers::{PeerFuture, PeerMethod, PeerRefusal};

/// Bytes of one chunk (1 MiB).
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Room on the disk that a snapshot leaves for the log (256 MiB).
const RESERVE_BYTES: u64 = 256 << 20;
/// How long one request waits for an install that is under way; it is asked for again then.
const INSTALL_WAIT: Duration = Duration::from_secs(1);

/// What the consensus engine has to say about a snapshot.
pub(crate) trait SnapshotTaker: Send + Sync + 'static {
    /// The vote that this node has given or follows.
    fn vote(&self) -> WireVote;

    /// Lets the engine put a snapshot in place; answers this node's vote. A vote above `vote` means that it was not.
    fn take(&self, vote: WireVote, snapshot: PreparedSnapshot) -> PeerFuture<'_, Result<WireVote, String>>;

    /// The last entry of the log.
    fn last_log_index(&self) -> Option<u64>;

    /// Whether the log has an entry of this index and term.
    fn has_entry(&self, id: LogId) -> bool;

    /// Applies the entries of the log to a state, from the one that it needs next.
    fn replay(&self, state: &mut LedgerState, through: u64) -> Result<(), String>;
}

/// Receives snapshots, one at a time. Clones share it.
#[derive(Clone)]
pub(crate) struct SnapshotReceiver(Arc<Inner>);

struct Inner {
    folder: SnapshotFolder,
    installer: Arc<Installer>,
    maker: SnapshotMaker,
    taker: Arc<dyn SnapshotTaker>,
    counters: Arc<CounterCells>,
    blocking: BlockingWork,
    stage: Mutex<Stage>,
    /// Changes with the stage, for those who wait for an install.
    changed: watch::Sender<u64>,
    stopping: AtomicBool,
    /// A snapshot that this node has asked for, to put it in the place of what it has applied.
    ordered: std::sync::Mutex<Option<Arc<RepairOrder>>>,
}

enum Stage {
    Idle,
    Receiving(Incoming),
    /// All of it is there, and a task verifies and installs it.
    Working(Offered),
    /// The last one that was installed.
    Installed(Offered, WireVote),
    /// It was no sound snapshot.
    Refused(Offered, String),
    /// Another vote was higher when it was to be installed.
    Outvoted(Offered, WireVote),
}

impl SnapshotReceiver {
    /// A receiver for the folder of a node that holds the lock of its directory; goes on with what a restart left.
    pub fn open(
        maker: SnapshotMaker,
        installer: Arc<Installer>,
        taker: Arc<dyn SnapshotTaker>,
        counters: Arc<CounterCells>,
        blocking: BlockingWork,
    ) -> std::io::Result<Self> {
        let folder = maker.folder().clone();
        let stage = Incoming::resume(folder.path())?.map_or(Stage::Idle, Stage::Receiving);
        Ok(Self(Arc::new(Inner {
            folder,
            installer,
            maker,
            taker,
            counters,
            blocking,
            stage: Mutex::new(stage),
            changed: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            ordered: std::sync::Mutex::default(),
        })))
    }

    /// Takes a snapshot that holds no more than is applied here, in place of that, until the answer is dropped.
    pub fn order(&self, order: Arc<RepairOrder>) -> StandingOrder {
        *self.ordered() = Some(order);
        StandingOrder(self.clone())
    }

    fn ordered(&self) -> std::sync::MutexGuard<'_, Option<Arc<RepairOrder>>> {
        self.0.ordered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The order that an offer may fill. What the engine needs because its log lacks entries is no matter of an order.
    fn order_for(&self, offered: &Offered) -> Option<Arc<RepairOrder>> {
        let order = self.ordered().clone()?;
        let in_log = self.0.taker.last_log_index() >= Some(offered.last.index);
        (in_log && order.at_least <= offered.last.index).then_some(order)
    }

    /// Answers one of the three methods of a transfer. Who sent it was checked before.
    pub async fn handle(&self, method: PeerMethod, body: Bytes) -> Result<Bytes, PeerRefusal> {
        // A task of its own: what was begun with the file is finished, also when the caller goes away.
        let receiver = self.clone();
        let answer = tokio::spawn(async move { receiver.answer(method, &body).await });
        answer.await.unwrap_or_else(|error| Err(not_ready(&error)))
    }

    async fn answer(&self, method: PeerMethod, body: &[u8]) -> Result<Bytes, PeerRefusal> {
        if self.0.stopping.load(Ordering::SeqCst) {
            return Err(PeerRefusal::NotReady { reason: "it stops".to_owned() });
        }
        match method {
            PeerMethod::SnapshotOffer => encode(&self.offer(decode(body)?).await?),
            PeerMethod::SnapshotChunk => encode(&self.chunk(decode(body)?).await?),
            PeerMethod::SnapshotInstall => encode(&self.install(decode(body)?).await?),
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} is no part of a snapshot") }),
        }
    }

    /// Lets nothing begin and breaks off what is being verified; returns when nothing runs.
    pub async fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        let mut changed = self.0.changed.subscribe();
        while matches!(*self.0.stage.lock().await, Stage::Working(_)) {
            if changed.changed().await.is_err() {
                break;
            }
        }
    }

    async fn offer(&self, offer: SnapshotOffer) -> Result<SnapshotOfferAnswer, PeerRefusal> {
        let offered = checked(&offer)?;
        let ours = self.0.taker.vote();
        if is_above(&ours, &offer.vote) {
            return Ok(SnapshotOfferAnswer::HigherVote(ours));
        }
        let applied = self.0.installer.applied().map_err(|error| not_ready(&error))?;
        let has_all = applied.filter(|applied| applied.index >= offered.last.index);
        if let Some(applied) = has_all.filter(|_| self.order_for(&offered).is_none()) {
            return Ok(not_needed(&applied, &offered, offer.vote));
        }
        let mut stage = self.0.stage.lock().await;
        match &*stage {
            Stage::Receiving(incoming) if incoming.offered == offered => {
                return Ok(SnapshotOfferAnswer::SendFrom(incoming.have));
            }
            Stage::Working(under_way) if *under_way == offered => {
                return Ok(SnapshotOfferAnswer::SendFrom(offered.bytes));
            }
            Stage::Working(_) => return Err(PeerRefusal::Busy),
            Stage::Refused(refused, reason) if *refused == offered => {
                return Ok(SnapshotOfferAnswer::Refused(reason.clone()));
            }
            _ => {}
        }
        let folder = self.0.folder.clone();
        let begun = self.0.blocking.short(move || begin(&folder, offered)).await;
        match begun.map_err(|error| not_ready(&error))? {
            Ok(incoming) => {
                tracing::info!(bytes = offered.bytes, last = offered.last.index, "receiving a snapshot");
                *stage = Stage::Receiving(incoming);
                Ok(SnapshotOfferAnswer::SendFrom(0))
            }
            Err(NotBegun::NoRoom { needed_bytes, room_bytes }) => {
                *stage = Stage::Idle;
                let reason = format!(
                    "the snapshot needs {needed_bytes} bytes of disk and {room_bytes} are free: make room on that node"
                );
                Err(PeerRefusal::NotReady { reason })
            }
            Err(NotBegun::Io(error)) => {
                *stage = Stage::Idle;
                Err(not_ready(&error))
            }
        }
    }

    async fn chunk(&self, chunk: SnapshotChunk) -> Result<SnapshotChunkAnswer, PeerRefusal> {
        let mut stage = self.0.stage.lock().await;
        let incoming = match std::mem::replace(&mut *stage, Stage::Idle) {
            Stage::Receiving(incoming) if incoming.offered.id == chunk.id => incoming,
            other => {
                *stage = other;
                return Ok(SnapshotChunkAnswer::Unknown);
            }
        };
        let have = incoming.have;
        let fits = chunk.offset == have
            && !chunk.data.is_empty()
            && chunk.data.len() <= CHUNK_BYTES_MAX
            && chunk.data.len() as u64 <= incoming.offered.bytes - have;
        if !fits {
            *stage = Stage::Receiving(incoming);
            return Ok(SnapshotChunkAnswer::SendFrom(have));
        }
        // The lock is held meanwhile, so that a second sender waits.
        let written = self.0.blocking.short(move || write(incoming, &chunk)).await;
        let (incoming, written) = written.map_err(|error| not_ready(&error))?;
        let have = incoming.have;
        *stage = Stage::Receiving(incoming);
        match written {
            Ok(Written::Intact) => {
                add(&self.0.counters.snapshot_chunks_received, 1);
                Ok(SnapshotChunkAnswer::SendFrom(have))
            }
            Ok(Written::Damaged) => {
                add(&self.0.counters.snapshot_chunks_damaged, 1);
                Ok(SnapshotChunkAnswer::SendFrom(have))
            }
            Err(error) => Err(not_ready(&error)),
        }
    }

    async fn install(&self, request: SnapshotInstall) -> Result<SnapshotInstallAnswer, PeerRefusal> {
        let mut changed = self.0.changed.subscribe();
        {
            let mut stage = self.0.stage.lock().await;
            match &*stage {
                Stage::Receiving(incoming) if incoming.offered.id == request.id => {
                    if !incoming.is_complete() {
                        return Ok(SnapshotInstallAnswer::SendFrom(incoming.have));
                    }
                    let (offered, path) = (incoming.offered, incoming.path());
                    *stage = Stage::Working(offered);
                    let receiver = self.clone();
                    tokio::spawn(async move { receiver.work(offered, request.vote, &path).await });
                }
                other => {
                    if let Some(answer) = other.outcome(&request.id) {
                        return Ok(answer);
                    }
                }
            }
        }
        let _ = tokio::time::timeout(INSTALL_WAIT, changed.changed()).await;
        let stage = self.0.stage.lock().await;
        Ok(stage.outcome(&request.id).unwrap_or(SnapshotInstallAnswer::Working))
    }

    /// Verifies and installs, whether somebody waits for it or not.
    async fn work(&self, offered: Offered, vote: WireVote, path: &Path) {
        let outcome = self.prepare_and_take(offered, vote, path).await;
        let next = match outcome {
            Ok(ours) if is_above(&ours, &vote) => {
                self.drop_file();
                Stage::Outvoted(offered, ours)
            }
            Ok(ours) => {
                add(&self.0.counters.snapshots_installed, 1);
                self.keep_file(&offered);
                tracing::info!(last = offered.last.index, "installed a snapshot");
                Stage::Installed(offered, ours)
            }
            Err(error) if error.is_of_the_file() => {
                add(&self.0.counters.snapshots_refused, 1);
                tracing::error!(%error, "refused a snapshot");
                self.drop_file();
                Stage::Refused(offered, error.to_string())
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot could not be installed now");
                // What has arrived is sound as far as is known: it is tried again.
                Incoming::resume(self.0.folder.path()).ok().flatten().map_or(Stage::Idle, Stage::Receiving)
            }
        };
        *self.0.stage.lock().await = next;
        self.0.changed.send_modify(|number| *number += 1);
    }

    async fn prepare_and_take(
        &self,
        offered: Offered,
        vote: WireVote,
        path: &Path,
    ) -> Result<WireVote, WorkError> {
        let file = File::open(path).map_err(InstallError::from)?;
        let receiver = self.clone();
        let prepare = move || {
            let stops = || receiver.0.stopping.load(Ordering::SeqCst);
            let mut watch = |_: &_| if stops() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            receiver.0.installer.prepare(file, &offered, &mut watch)
        };
        let prepared =
            self.0.blocking.long("ledger-install", prepare).await.map_err(InstallError::from)??;
        let Some(order) = self.order_for(&offered) else {
            return self.0.taker.take(vote, prepared).await.map_err(|_| InstallError::Stopped.into());
        };
        let exchanged = self.0.installer.exchange(prepared, &order, &self.0.taker).await;
        let failed = exchanged.as_ref().err().map(ToString::to_string);
        match exchanged {
            Ok(index) => order.finish(Ok(index)),
            Err(error) => {
                let of_the_content = matches!(error, ExchangeError::Refused(_));
                order.finish(Err(error));
                let what = failed.unwrap_or_default();
                return Err(if of_the_content { WorkError::Refused(what) } else { WorkError::Passing(what) });
            }
        }
        // Not under an order: the leader's vote is the one that it was sent with.
        Ok(vote)
    }

    /// The file that was installed is a snapshot of this node now.
    fn keep_file(&self, offered: &Offered) {
        if let Err(error) =
            self.0.maker.adopt(&self.0.folder.path().join(super::incoming::PART), offered.last.index)
        {
            tracing::warn!(%error, "the received snapshot cannot be kept");
        }
        // With the file goes what was noted about it.
        self.drop_file();
    }

    fn drop_file(&self) {
        if let Err(error) = super::incoming::discard(self.0.folder.path()) {
            tracing::warn!(%error, "a received snapshot cannot be removed");
        }
    }
}

impl Stage {
    /// What an install of this snapshot came to; `None` while it is under way.
    fn outcome(&self, id: &Hash) -> Option<SnapshotInstallAnswer> {
        match self {
            Self::Working(offered) if offered.id == *id => None,
            Self::Installed(offered, vote) if offered.id == *id => {
                Some(SnapshotInstallAnswer::Installed(*vote))
            }
            Self::Refused(offered, why) if offered.id == *id => {
                Some(SnapshotInstallAnswer::Refused(why.clone()))
            }
            Self::Outvoted(offered, vote) if offered.id == *id => {
                Some(SnapshotInstallAnswer::HigherVote(*vote))
            }
            Self::Receiving(incoming) if incoming.offered.id == *id => {
                Some(SnapshotInstallAnswer::SendFrom(incoming.have))
            }
            _ => Some(SnapshotInstallAnswer::Unknown),
        }
    }
}

/// While it lives the order stands.
pub(crate) struct StandingOrder(SnapshotReceiver);

impl Drop for StandingOrder {
    fn drop(&mut self) {
        *self.0.ordered() = None;
    }
}

/// What arrived was not put in place.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Install(#[from] InstallError),
    /// It was ordered, and is not what was ordered.
    #[error("{0}")]
    Refused(String),
    /// It was ordered, and may be taken another time.
    #[error("{0}")]
    Passing(String),
}

impl WorkError {
    /// Whether the file itself is at fault: the same one would fail again.
    fn is_of_the_file(&self) -> bool {
        match self {
            Self::Install(error) => error.is_of_the_file(),
            Self::Refused(_) => true,
            Self::Passing(_) => false,
        }
    }
}

enum Written {
    Intact,
    /// The bytes are not those that were sent.
    Damaged,
}

fn write(mut incoming: Incoming, chunk: &SnapshotChunk) -> (Incoming, std::io::Result<Written>) {
    if sha256(&[&chunk.data]) != chunk.sha256 {
        return (incoming, Ok(Written::Damaged));
    }
    let written = incoming.append(&chunk.data);
    (incoming, written.map(|()| Written::Intact))
}

enum NotBegun {
    NoRoom { needed_bytes: u64, room_bytes: u64 },
    Io(std::io::Error),
}

impl From<std::io::Error> for NotBegun {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn begin(folder: &SnapshotFolder, offered: Offered) -> Result<Incoming, NotBegun> {
    folder.create()?;
    super::incoming::discard(folder.path())?;
    let room = rustix::fs::statvfs(folder.path()).map_err(std::io::Error::from)?;
    let room_bytes = room.f_bavail.saturating_mul(room.f_frsize);
    // Its rows are stored again beside it, hardly ever in less room than the file takes.
    let needed_bytes = offered.bytes.saturating_mul(2).saturating_add(RESERVE_BYTES);
    if room_bytes < needed_bytes {
        return Err(NotBegun::NoRoom { needed_bytes, room_bytes });
    }
    Ok(Incoming::begin(folder.path(), offered)?)
}

fn checked(offer: &SnapshotOffer) -> Result<Offered, PeerRefusal> {
    let malformed = |reason: &str| Err(PeerRefusal::Malformed { reason: reason.to_owned() });
    if !offer.vote.committed {
        return malformed("a snapshot is offered by a node that does not lead");
    }
    if offer.last.term > offer.vote.term {
        return malformed("the snapshot ends in a later term than its sender leads in");
    }
    if offer.bytes == 0 {
        return malformed("the snapshot is empty");
    }
    let last = LogId { term: offer.last.term, node: 0, index: offer.last.index };
    Ok(Offered { id: offer.id, bytes: offer.bytes, last })
}

/// What is applied is committed: a snapshot that ends there otherwise is of another history.
fn not_needed(applied: &LogId, offered: &Offered, vote: WireVote) -> SnapshotOfferAnswer {
    if applied.index == offered.last.index && applied.term != offered.last.term {
        let reason = format!(
            "it ends with entry {} of term {}, and that of term {} is committed here",
            applied.index, offered.last.term, applied.term
        );
        tracing::error!(%reason, "refused a snapshot");
        return SnapshotOfferAnswer::Refused(reason);
    }
    SnapshotOfferAnswer::NotNeeded(vote)
}

fn is_above(ours: &WireVote, theirs: &WireVote) -> bool {
    (ours.term, ours.committed) > (theirs.term, theirs.committed)
        || (ours.term == theirs.term && ours.committed && ours.node != theirs.node)
}

fn not_ready(error: &dyn std::error::Error) -> PeerRefusal {
    PeerRefusal::NotReady { reason: error.to_string() }
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, PeerRefusal> {
    messages::decode(body).map_err(|error| PeerRefusal::Malformed { reason: error.to_string() })
}

fn encode<T: serde::Serialize>(answer: &T) -> Result<Bytes, PeerRefusal> {
    messages::encode(answer).map_err(|error| PeerRefusal::Refused { reason: error.to_string() })
}
