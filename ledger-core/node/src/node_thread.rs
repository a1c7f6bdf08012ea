//! The thread of a node: engine, batches and applying run on a runtime of their own, so that it does not
//! matter which runtime the callers use.

mod member_tasks;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::ledger_state::LedgerState;
use ledger_core::ports::{AppliedState, LogSnapshot, LogStore, SignedMark};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::applied_state::AppliedLedger;
use crate::batcher::{Batcher, WriteQueue};
use crate::blocking_work::BlockingWork;
use crate::checkpoint_signer::{CheckpointSigner, SignerParts};
use crate::cluster::{
    ClusterOptions, ClusterParts, DivergenceRegister, FoundError, KeyCheck, LeaderCalls, LeaderCheckpoints,
    PeerClocks, PeerRecovery, PeerRecoveryParts, Removal, RepairSender, Steward, StewardParts, Timing,
    check_identity, check_mark, found,
};
use crate::counters::CounterCells;
use crate::directory::{DataDirectory, random_bytes};
use crate::errors::OpenError;
use crate::failure::{FailedPart, FailureCell, Fault, PanicReport};
use crate::flusher::{Flusher, FlusherParts};
use crate::garbage_collection::GarbageCollector;
use crate::ledger::Stores;
use crate::log_writer::{LogWriter, LogWriterParts};
use crate::options::{Bootstrap, Options};
use crate::ordered_watch;
use crate::peers::PeerCalls;
use crate::raft::{self, Consensus, ConsensusError, ConsensusParts, LogRetention, RetentionBounds};
use crate::randomness::Randomness;
use crate::read_barrier::{Electorate, ReadBarrier};
use crate::snapshots::{Installer, SnapshotDesk, SnapshotMaker, SnapshotMakerParts, SnapshotReceiver};
use crate::worker::Worker;
use member_tasks::MemberTasks;

/// What callers hold of a running node.
pub(crate) struct NodeHandles {
    pub ledger: Arc<AppliedLedger>,
    pub consensus: Consensus,
    pub queue: WriteQueue,
    pub barrier: ReadBarrier,
    pub signer: CheckpointSigner,
    pub flusher: Flusher,
    pub snapshots: SnapshotMaker,
    pub receiver: SnapshotReceiver,
    pub collector: Arc<GarbageCollector>,
    pub log_store: Arc<dyn LogStore>,
    pub checkpoints: LeaderCheckpoints,
    log_writer: LogWriter,
    pub cluster: Arc<ClusterParts>,
    pub recovery: PeerRecovery,
    pub repairs: Arc<RepairSender>,
    /// Tasks that only a member has.
    member: Option<MemberTasks>,
}

/// What a node is opened with.
pub(crate) struct NodeParts {
    pub directory: DataDirectory,
    pub stores: Stores,
    pub options: Options,
    pub counters: Arc<CounterCells>,
    pub failure: FailureCell,
    pub randomness: Randomness,
}

/// The way back to the thread.
pub(crate) struct NodeThread {
    /// A message, or the end of all senders, stops the node in order.
    pub stop: mpsc::Sender<()>,
    /// Closed when the thread has ended.
    pub ended: watch::Receiver<()>,
}

/// Starts the node and waits until it is open.
pub(crate) async fn start(parts: NodeParts) -> Result<(NodeHandles, NodeThread), OpenError> {
    let (stop, stopped) = mpsc::channel(1);
    let (alive, ended) = watch::channel(());
    let (opened, outcome) = oneshot::channel();
    match parts.options.threads.seed_of(parts.directory.node_id()) {
        None => {
            let seed = u64::from_le_bytes(random_bytes()?);
            let body = move || {
                let _alive = alive;
                let _report = PanicReport(parts.failure.clone());
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(opened.send(Err(OpenError::Thread(error)))),
                };
                runtime.block_on(raft::with_randomness(seed, run(parts, opened, stopped)));
            };
            Worker::thread("ledger-raft", body).map(drop).map_err(OpenError::Thread)?;
        }
        Some(seed) => {
            drop(Worker::task(async move {
                let _alive = alive;
                let _report = PanicReport(parts.failure.clone());
                raft::with_randomness(seed, run(parts, opened, stopped)).await;
            }));
        }
    }
    let ended_early = || OpenError::Thread(io::Error::other("it ended while the ledger opened"));
    let handles = outcome.await.map_err(|_| ended_early())??;
    Ok((handles, NodeThread { stop, ended }))
}

/// The storage workers, to be stopped last.
struct StorageThreads {
    log_writer: LogWriter,
    flusher: Flusher,
    log_worker: Option<Worker>,
    flush_worker: Option<Worker>,
}

impl StorageThreads {
    /// Flushes what is applied, commits what waits for the log, and waits for both workers.
    async fn finish(self) {
        self.flusher.finish();
        // The last flush still tells the log how far it goes.
        if let Some(worker) = self.flush_worker {
            worker.join().await;
        }
        self.log_writer.finish();
        if let Some(worker) = self.log_worker {
            worker.join().await;
        }
    }
}

async fn run(
    parts: NodeParts,
    opened: oneshot::Sender<Result<NodeHandles, OpenError>>,
    stopped: mpsc::Receiver<()>,
) {
    let mut storage = StorageThreads {
        log_writer: LogWriter::new(),
        flusher: Flusher::new(None),
        log_worker: None,
        flush_worker: None,
    };
    match open(&parts, &mut storage).await {
        Ok(handles) => {
            let tasks = spawn_tasks(&parts, &handles);
            let parted = Handles::part(&handles);
            if opened.send(Ok(handles)).is_ok() {
                parted.serve(&parts.failure, stopped, tasks).await;
            } else {
                parted.consensus.shutdown().await;
            }
            storage.finish().await;
        }
        Err(error) => {
            storage.finish().await;
            drop(opened.send(Err(error)));
        }
    }
    // The lock goes last: nobody else opens the directory before everything is written.
    drop(parts);
}

async fn open(parts: &NodeParts, storage: &mut StorageThreads) -> Result<NodeHandles, OpenError> {
    let directory = &parts.directory;
    let stored_log = parts.stores.log.snapshot().map_err(OpenError::LogStore)?;
    let state = LedgerState::load(Arc::clone(&parts.stores.state)).map_err(OpenError::StateStore)?;
    for (vault, fence) in state.fenced_vaults() {
        let (height, what) = (fence.height, &fence.what);
        tracing::error!(%vault, height, %what, "the vault is fenced: it is not served until it is recovered");
    }
    let cluster_id = parts.options.cluster.as_ref().map(|cluster| cluster.cluster_id);
    check_identity(&state, directory.ledger_id(), cluster_id)?;
    let durable = parts.stores.state.applied().map_err(|error| OpenError::StateStore(error.into()))?;
    check_same_time(&stored_log, durable.as_ref())?;
    storage.flusher = Flusher::new(durable);
    let ledger = Arc::new(AppliedLedger::new(state));
    let desk = SnapshotDesk::default();
    let blocking = BlockingWork(parts.options.threads);
    let installer = Arc::new(Installer {
        store: Arc::clone(&parts.stores.state),
        ledger: Arc::clone(&ledger),
        flusher: storage.flusher.clone(),
        log_writer: storage.log_writer.clone(),
        ledger_id: directory.ledger_id(),
        key: directory.signing_key().verifier_key(),
        blocking,
    });
    let consensus = start_consensus(parts, storage, &ledger, (desk.clone(), Arc::clone(&installer))).await?;
    let recovered = recover(parts, &consensus, &ledger, &stored_log.signed);
    if let Err(error) = guarded(&parts.failure, &consensus, recovered).await {
        consensus.shutdown().await;
        return Err(error);
    }
    // A member asks a quorum until it knows better.
    let electorate =
        if parts.options.cluster.is_some() { Electorate::Quorum } else { Electorate::ThisNodeAlone };
    let barrier = ReadBarrier::new(Arc::clone(&parts.counters), electorate);
    let queue = WriteQueue::new(&parts.options, Arc::clone(&parts.counters));
    let register = DivergenceRegister::open(directory.path(), blocking);
    let (cluster, member) =
        membership(parts, &consensus, (&barrier, &queue), (stored_log.signed.clone(), register.clone()));
    let checkpoints = LeaderCheckpoints {
        leader: cluster.leader_calls.clone(),
        ready: cluster.ready.clone(),
        ledger: Arc::clone(&ledger),
        key: directory.signing_key().verifier_key(),
    };
    let signer = CheckpointSigner::new(SignerParts {
        key: directory.signing_key().clone(),
        ledger: Arc::clone(&ledger),
        log_writer: storage.log_writer.clone(),
        counters: Arc::clone(&parts.counters),
        leader: parts.options.cluster.is_some().then(|| checkpoints.clone()),
        marks: stored_log.signed,
    });
    let snapshots = SnapshotMaker::open(
        directory.path(),
        SnapshotMakerParts {
            store: Arc::clone(&parts.stores.state),
            ledger: Arc::clone(&ledger),
            flusher: storage.flusher.clone(),
            signer: signer.clone(),
            clock: Arc::clone(&parts.options.clock),
            counters: Arc::clone(&parts.counters),
            every: parts.options.snapshot_every,
            keep: parts.options.snapshot_keep,
            threads: parts.options.threads,
        },
    );
    let received = snapshots.and_then(|maker| {
        desk.set_maker(maker.clone());
        let (taker, counters) = (Arc::new(consensus.clone()), Arc::clone(&parts.counters));
        Ok((maker.clone(), SnapshotReceiver::open(maker, installer, taker, counters, blocking)?))
    });
    let (snapshots, receiver) = match received {
        Ok(both) => both,
        Err(error) => {
            consensus.shutdown().await;
            return Err(OpenError::Snapshots(error));
        }
    };
    let collector = GarbageCollector {
        consensus: consensus.clone(),
        ledger: Arc::clone(&ledger),
        queue: queue.clone(),
        clock: Arc::clone(&parts.options.clock),
        interval: parts.options.gc_interval,
        randomness: parts.randomness.clone(),
        counters: Arc::clone(&parts.counters),
    };
    let recovery = PeerRecovery::new(PeerRecoveryParts {
        leader: cluster.leader_calls.clone(),
        ledger: Arc::clone(&ledger),
        counters: Arc::clone(&parts.counters),
        register,
        receiver: receiver.clone(),
        log_store: Arc::clone(&parts.stores.log),
        clock: Arc::clone(&parts.options.clock),
        randomness: parts.randomness.clone(),
        blocking,
    });
    let repairs = RepairSender {
        consensus: consensus.clone(),
        ledger: Arc::clone(&ledger),
        desk,
        calls: cluster.leader_calls.calls.clone(),
        counters: Arc::clone(&parts.counters),
        blocking,
        job: Arc::default(),
    };
    Ok(NodeHandles {
        ledger,
        recovery,
        repairs: Arc::new(repairs),
        consensus,
        queue,
        collector: Arc::new(collector),
        log_store: Arc::clone(&parts.stores.log),
        barrier,
        signer,
        checkpoints,
        log_writer: storage.log_writer.clone(),
        cluster: Arc::new(cluster),
        member,
        flusher: storage.flusher.clone(),
        snapshots,
        receiver,
    })
}

/// The cluster as this node sees it, and what it does for it.
fn membership(
    parts: &NodeParts,
    consensus: &Consensus,
    (barrier, queue): (&ReadBarrier, &WriteQueue),
    (marks, register): (Vec<SignedMark>, DivergenceRegister),
) -> (ClusterParts, Option<MemberTasks>) {
    let node_id = parts.directory.node_id();
    let options = parts.options.cluster.as_ref();
    let (leader, leader_known) = ordered_watch::channel(consensus.status().leader);
    let (leader_shown, leader_seen) = watch::channel(consensus.status().leader);
    // A ledger that runs alone leads since it was opened.
    let (ready, is_ready) = ordered_watch::channel(options.is_none());
    let leader_calls = LeaderCalls {
        consensus: consensus.clone(),
        calls: options.map(peer_calls),
        node_id,
        leader: leader_known.clone(),
    };
    let steward = Steward::new(StewardParts {
        node_id,
        consensus: consensus.clone(),
        barrier: barrier.clone(),
        queue: queue.clone(),
        leader: leader_known.clone(),
        voters_max: options.map_or(1, |options| options.voters_max),
        silent_after: options.and_then(|options| options.silent_after),
        alive_within: options.map_or(Duration::ZERO, |options| options.timing.election_max * 2),
    });
    let member = options.map(|options| MemberTasks {
        marks,
        ledger_id: parts.directory.ledger_id(),
        key: KeyCheck {
            present: parts.directory.signing_key().verifier_key(),
            // Without the list no key counts as retired.
            retired: parts.directory.retired_keys().unwrap_or_default(),
        },
        cluster_id: options.cluster_id,
        record: options.member.clone(),
        transport: Arc::clone(&options.transport),
        leader,
        leader_shown,
        ready,
    });
    let cluster = ClusterParts {
        node_id,
        cluster_id: options.map(|options| options.cluster_id),
        consensus: consensus.clone(),
        leader_calls,
        steward,
        leader: leader_known,
        leader_shown: leader_seen,
        ready: is_ready,
        removal: Removal::default(),
        register,
    };
    (cluster, member)
}

fn peer_calls(options: &ClusterOptions) -> PeerCalls {
    PeerCalls::new(Arc::clone(&options.transport), options.cluster_id, options.member.identity.clone())
}

/// The state is written after the log knows how far it goes, and the log is purged after the state: stores that say
/// otherwise are not of one time, and what lies between them is lost. A log that ends before the state although it
/// knows of all of it has lost nothing: the entries came with a snapshot, and a crash kept the log from being purged.
fn check_same_time(log: &LogSnapshot, state: Option<&AppliedState>) -> Result<(), OpenError> {
    let purged = log.purged.map(|id| id.index);
    let log_last = log.last.map(|id| id.index).max(purged);
    let applied = state.map(|state| state.last_applied.index);
    match (applied, purged) {
        (Some(applied), _)
            if log_last < Some(applied) && log.committed.map(|id| id.index) < Some(applied) =>
        {
            Err(OpenError::LogOlderThanState { log_last, applied })
        }
        (_, Some(purged)) if applied < Some(purged) => Err(OpenError::StateOlderThanLog { purged, applied }),
        _ => Ok(()),
    }
}

async fn start_consensus(
    parts: &NodeParts,
    storage: &mut StorageThreads,
    ledger: &Arc<AppliedLedger>,
    (desk, installer): (SnapshotDesk, Arc<Installer>),
) -> Result<Consensus, OpenError> {
    let keep_bytes = parts.options.cluster.as_ref().map(|cluster| cluster.log_keep_bytes);
    let bounds = keep_bytes.map_or(RetentionBounds::ALONE, RetentionBounds::of_member);
    let consensus_parts = ConsensusParts {
        node_id: parts.directory.node_id(),
        log_store: Arc::clone(&parts.stores.log),
        log_writer: storage.log_writer.clone(),
        ledger: Arc::clone(ledger),
        flusher: storage.flusher.clone(),
        flush_bytes: parts.options.flush_bytes,
        overlay_bytes_max: parts.options.overlay_bytes_max,
        clock: Arc::clone(&parts.options.clock),
        counters: Arc::clone(&parts.counters),
        failure: parts.failure.clone(),
        calls: parts.options.cluster.as_ref().map(peer_calls),
        timing: parts.options.cluster.as_ref().map_or_else(Timing::default, |cluster| cluster.timing),
        lease: parts.options.cluster.as_ref().and_then(ClusterOptions::lease),
        retention: Arc::new(LogRetention::new(bounds)),
        desk,
        installer,
        clocks: Arc::new(PeerClocks::new(Arc::clone(&parts.options.clock))),
    };
    let (log, on_durable) = Consensus::open_log(&consensus_parts).map_err(OpenError::LogStore)?;
    let log_parts = LogWriterParts {
        store: Arc::clone(&parts.stores.log),
        counters: Arc::clone(&parts.counters),
        failure: parts.failure.clone(),
        on_durable,
    };
    let threads = parts.options.threads;
    storage.log_worker = Some(storage.log_writer.start(log_parts, threads).map_err(OpenError::Thread)?);
    let flusher_parts = FlusherParts {
        store: Arc::clone(&parts.stores.state),
        ledger: Arc::clone(ledger),
        log_writer: storage.log_writer.clone(),
        interval: parts.options.flush_interval,
        counters: Arc::clone(&parts.counters),
        failure: parts.failure.clone(),
    };
    storage.flush_worker = Some(storage.flusher.start(flusher_parts, threads).map_err(OpenError::Thread)?);
    Consensus::start(consensus_parts, log).await.map_err(|error| start_error(&parts.failure, &error))
}

/// A storage failure says more than the engine's answer to it.
fn start_error(failure: &FailureCell, error: &ConsensusError) -> OpenError {
    match failure.get() {
        Some(failure) => OpenError::Failed(failure.clone()),
        None => OpenError::Consensus { reason: error.to_string() },
    }
}

/// Ends a wait when the node fails meanwhile.
async fn guarded(
    failure: &FailureCell,
    consensus: &Consensus,
    wait: impl Future<Output = Result<(), OpenError>>,
) -> Result<(), OpenError> {
    tokio::select! {
        biased;
        failure = failure.wait() => Err(failure.into()),
        outcome = wait => outcome,
        reason = consensus.stopped() => Err(OpenError::Consensus { reason }),
    }
}

/// A ledger that runs alone leads, applies everything that was committed before, and checks that the log is what it
/// was. A member does so when it has found its leader.
async fn recover(
    parts: &NodeParts,
    consensus: &Consensus,
    ledger: &AppliedLedger,
    marks: &[SignedMark],
) -> Result<(), OpenError> {
    let refused = |error: ConsensusError| start_error(&parts.failure, &error);
    let this = parts.directory.node_id();
    match &parts.options.bootstrap {
        Bootstrap::Single => {
            let record = parts.options.cluster.as_ref().map(|cluster| cluster.member.clone());
            consensus.bootstrap(vec![(this, record)]).await.map_err(refused)?;
        }
        Bootstrap::Members(members) => {
            let records = members.iter().map(|member| (member.identity.node_id, Some(member.clone())));
            consensus.bootstrap(records.collect()).await.map_err(refused)?;
        }
        Bootstrap::Joined => {}
    }
    if parts.options.cluster.is_some() {
        return Ok(());
    }
    consensus.wait_until_recovered().await.map_err(refused)?;
    let ledger_id = parts.directory.ledger_id();
    found(consensus, ledger, &parts.randomness, (ledger_id, None)).await.map_err(|error| match error {
        FoundError::Consensus(error) => refused(error),
        FoundError::Open(error) => error,
    })?;
    let state = ledger.read().map_err(|error| OpenError::Consensus { reason: error.to_string() })?;
    check_identity(&state, ledger_id, None)?;
    marks.iter().try_for_each(|mark| check_mark(&state, mark))
}

/// The tasks that run for as long as the node does, and the batcher, which ends when it has drained.
struct Tasks {
    forever: JoinSet<()>,
    batcher: tokio::task::JoinHandle<()>,
}

fn spawn_tasks(parts: &NodeParts, handles: &NodeHandles) -> Tasks {
    let batcher = Batcher {
        queue: handles.queue.clone(),
        consensus: handles.consensus.clone(),
        ledger: Arc::clone(&handles.ledger),
        leader: handles.cluster.leader_calls.clone(),
        barrier: handles.barrier.clone(),
        counters: Arc::clone(&parts.counters),
        batch_delay: parts.options.batch_delay,
    };
    let mut forever = JoinSet::new();
    let leader_calls = handles.cluster.leader_calls.clone();
    forever.spawn(handles.barrier.clone().run(leader_calls, Arc::clone(&handles.ledger)));
    forever.spawn(handles.signer.clone().run());
    forever.spawn(Arc::clone(&handles.collector).run());
    forever.spawn(release_log(handles.flusher.clone(), handles.consensus.clone()));
    forever.spawn(handles.snapshots.clone().run());
    if let Some(member) = handles.member.clone() {
        member_tasks::spawn(parts, handles, member, &mut forever);
    }
    Tasks { forever, batcher: tokio::spawn(batcher.run()) }
}

/// After each flush the log may be purged as far as the state store is durable.
async fn release_log(flusher: Flusher, consensus: Consensus) {
    let mut rounds = flusher.rounds();
    let mut released = None;
    while rounds.changed().await.is_ok() {
        let durable = flusher.durable_index();
        // What is held for a member is looked at again, also when nothing is written.
        if let Some(index) = durable.filter(|_| durable > released || consensus.holds_log()) {
            released = durable;
            if consensus.release_log(index).await.is_err() {
                break;
            }
        }
    }
    // The engine has stopped: whoever watches it ends the node.
    std::future::pending().await
}

/// The thread's share of the handles.
struct Handles {
    consensus: Consensus,
    queue: WriteQueue,
    barrier: ReadBarrier,
    signer: CheckpointSigner,
    snapshots: SnapshotMaker,
    receiver: SnapshotReceiver,
}

impl Handles {
    fn part(handles: &NodeHandles) -> Self {
        Self {
            consensus: handles.consensus.clone(),
            queue: handles.queue.clone(),
            barrier: handles.barrier.clone(),
            signer: handles.signer.clone(),
            snapshots: handles.snapshots.clone(),
            receiver: handles.receiver.clone(),
        }
    }

    /// Waits for an order to stop or for a failure, then stops accordingly.
    async fn serve(self, failure: &FailureCell, mut stopped: mpsc::Receiver<()>, mut tasks: Tasks) {
        tokio::select! {
            biased;
            _ = failure.wait() => {}
            _ = stopped.recv() => {}
            reason = self.consensus.stopped() => failure.report(FailedPart::Consensus, Fault::shared(reason)),
            _ = tasks.forever.join_next() => failure.report(FailedPart::Thread, Fault::shared("a task ended")),
            _ = &mut tasks.batcher => failure.report(FailedPart::Thread, Fault::shared("the batcher ended")),
        }
        self.queue.close();
        if failure.get().is_none() && !tasks.batcher.is_finished() {
            tokio::select! {
                _ = failure.wait() => {}
                _ = &mut tasks.batcher => {}
            }
        }
        self.queue.fail();
        tasks.batcher.abort();
        self.barrier.close();
        // Before the signer and the storage threads, which it waits for.
        self.receiver.stop().await;
        self.snapshots.stop().await;
        self.signer.close();
        tasks.forever.shutdown().await;
        self.consensus.shutdown().await;
    }
}
