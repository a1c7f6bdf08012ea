//! A disk that is full, fails to sync, or takes its time: the node refuses, stops, and loses nothing.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use ledger_node::{Consistency, FailedPart, Ledger, Options, WriteError};
use storage_adapters::wal::Upkeep;

use crate::campaign::{contents, is_exhaustive, seeds};
use crate::disk::{Disk, Event, Fault};
use crate::disk_image::{Effect, Image};
use crate::power_cut::{Dice, Loss, Moment, Syncs};
use crate::promises::{History, Progress, Promise};
use crate::recovery::{Expected, Retries, Rows, Violation, recover};
use crate::tally::Tally;
use crate::workload::{
    DiskStores, Home, PATIENCE, Plan, actor, drive, new_disk, options, own_key, plan, record, runtime,
    transaction, vault,
};

const ROUNDS: usize = 20;
/// Files grow seldom: a longer run has more of it.
const GROWING_ROUNDS: usize = 60;
/// Faults of one run in the bounded campaigns.
const FAULTS: usize = 40;
/// Number of the write that comes after the fault.
const LATE: u64 = 1 << 40;

/// A run that met its fault.
struct Faulted {
    before: Image,
    /// What the files held when the node had stopped.
    after: Image,
    trace: Vec<Event>,
    faults: u64,
    stopped: bool,
}

/// Runs the workload until the fault stops it, and holds the stopped node to its silence.
fn run(home: &Home, fault: Fault, plan: Plan) -> Faulted {
    let disk = new_disk();
    let before = disk.restart_trace();
    disk.set_fault(fault);
    let stores = DiskStores::open(&disk, plan.upkeep);
    let stopped = match &stores {
        Ok(stores) => runtime().block_on(async {
            match Ledger::open(home.directory(), stores.ports(), options()).await {
                Ok(ledger) => {
                    let driven = drive(&ledger, &disk, plan).await;
                    if driven.is_err() {
                        check_stopped(&ledger, &disk).await;
                    }
                    ledger.shutdown().await.is_err() || driven.is_err()
                }
                Err(_) => true,
            }
        }),
        Err(_) => true,
    };
    // Taken before the stores are closed: a node that failed is killed, and writes nothing any more.
    let (faults, after) = (disk.faults(), disk.image());
    Faulted { before, after, trace: disk.take_trace(), faults, stopped }
}

/// A node that met a fault names it, and answers no more.
async fn check_stopped(ledger: &Ledger, disk: &Disk) {
    let failure = tokio::time::timeout(PATIENCE, ledger.failure()).await.expect("the failure is told");
    assert!(matches!(failure.part, FailedPart::LogStore | FailedPart::StateStore), "{failure}");
    // A write or read that slips in while the node closes is refused, or as right as those before it.
    let deadline = Instant::now() + PATIENCE;
    let late = transaction(LATE, &mut Dice::new(1));
    loop {
        match ledger.write(&vault(), &actor(), late.clone()).await {
            Err(WriteError::Stopped) => break,
            Ok(receipt) => disk.note(Event::Promised(Promise::Written(LATE, late.clone(), receipt))),
            Err(refused) => assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}"),
        }
        assert!(Instant::now() < deadline, "a node that failed goes on writing");
        tokio::task::yield_now().await;
    }
    while ledger.get(&vault(), &own_key(0), Consistency::Linearizable).await.is_ok() {
        assert!(Instant::now() < deadline, "a node that failed goes on reading");
        tokio::task::yield_now().await;
    }
}

/// With room again and a new process everything is there: from the files as they are, and after a power cut.
fn check_recoveries(home: &Home, faulted: Faulted, seed: u64, tally: &mut Tally) -> Result<(), Violation> {
    let (log, state) = contents(&faulted.before);
    let history = History::of(log, state, &Default::default(), &faulted.trace);
    let mut moment = Moment::before(faulted.before, Syncs::Honoured);
    let mut progress = Progress::default();
    for event in &faulted.trace {
        moment.pass(event);
        progress.pass(event);
    }
    let expected = Expected {
        history: &history,
        progress: &progress,
        chain: None,
        retries: Retries::Newest,
        rows: Rows::Compared,
    };
    let cuts = [Loss::Everything, Loss::Random(seed)].map(|loss| moment.cut(loss).0);
    for image in cuts.into_iter().chain([faulted.after]) {
        recover(home, image, &expected, tally)?;
    }
    Ok(())
}

/// Makes the disk fail at each of `places` in turn.
fn fail_at_each(places: &[Fault], plan: Plan, tally: &mut Tally) -> Vec<String> {
    let home = Home::new();
    let mut told = Vec::new();
    for fault in places {
        let faulted = run(&home, *fault, plan);
        // Threads make each run a little different: the last places may lie behind its end.
        if faulted.faults == 0 {
            continue;
        }
        tally.crash_points += 1;
        tally.faults += faulted.faults;
        tally.stops += u64::from(faulted.stopped);
        tally.outlived += u64::from(!faulted.stopped);
        if !faulted.stopped && is_commit_under_way(&faulted.trace) {
            told.push(format!("{fault:?}: a commit failed and the node went on"));
        }
        if let Err(violation) = check_recoveries(&home, faulted, plan.seed, tally) {
            told.push(format!("{fault:?}: {violation}"));
        }
    }
    tally.violations += told.len() as u64;
    told
}

/// Whether a commit of either store failed. What only makes a later commit ready, or tidies up behind one, may fail and
/// never be needed: a node that ends in order before that has lost nothing.
fn is_commit_under_way(trace: &[Event]) -> bool {
    let mut under_way = 0;
    for event in trace {
        match event {
            Event::LogCommitStarted(_) | Event::StateCommitStarted(_) => under_way += 1,
            Event::LogCommitDone | Event::StateCommitDone => under_way -= 1,
            _ => {}
        }
    }
    under_way > 0
}

/// As many places as the campaign may take, over the whole run.
fn places(count: usize, fault: fn(u64) -> Fault) -> Vec<Fault> {
    let step = if is_exhaustive() { 1 } else { count.div_ceil(FAULTS) };
    (0..count as u64).step_by(step).map(fault).collect()
}

/// `calls` says how many of the calls that may fail an effect stands for.
fn campaign(name: &str, rounds: usize, calls: fn(&Effect) -> usize, fault: fn(u64) -> Fault) {
    let (mut tally, mut runs, mut told) = (Tally::default(), 0, Vec::new());
    for seed in seeds(1) {
        let plan = plan(seed, rounds);
        let trace = record(plan).trace;
        let effects =
            trace.iter().map(|event| if let Event::Effect(_, effect) = event { calls(effect) } else { 0 });
        let count = effects.sum();
        told.extend(fail_at_each(&places(count, fault), plan, &mut tally));
        runs += 1;
    }
    tally.report(name, runs);
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert!(tally.faults >= 10 && tally.stops >= 10, "too little failed: {tally:?}");
    assert!(tally.acknowledged > 200 && tally.recoveries >= 30, "too little happened: {tally:?}");
}

#[test]
fn campaign_a_disk_that_is_full_at_any_write_stops_the_node_and_loses_nothing() {
    let calls = |effect: &Effect| usize::from(!matches!(effect, Effect::Sync | Effect::Removed(_)));
    campaign("disk full at every write", ROUNDS, calls, Fault::FullAfterWrites);
}

/// What was filled in advance can still be written: the log goes on to the end of its prepared segment.
#[test]
fn campaign_a_disk_without_room_at_any_growth_stops_the_node_and_loses_nothing() {
    let calls = |effect: &Effect| match effect {
        // The file, and the write that fills it.
        Effect::Created { .. } => 2,
        Effect::Renamed { .. } | Effect::SetLength(_) => 1,
        _ => 0,
    };
    campaign("no room at every growth", GROWING_ROUNDS, calls, Fault::NoRoomAfterGrowths);
}

#[test]
fn campaign_any_failed_sync_stops_the_node_and_loses_nothing() {
    let calls = |effect: &Effect| usize::from(matches!(effect, Effect::Sync));
    campaign("every fsync fails once", ROUNDS, calls, Fault::SyncFailsAfter);
}

/// A disk on which syncs do not return: nobody is told that a write is durable, nobody waits without bound, and
/// whoever pulls the plug loses nothing.
#[test]
fn a_hung_sync_acknowledges_nothing_bounds_what_waits_and_goes_on_when_it_returns() {
    const QUEUE: usize = 8;
    let home = Home::new();
    let disk = new_disk();
    let before = disk.restart_trace();
    let stores = DiskStores::open(&disk, Upkeep::default()).expect("the stores open");
    let options = Options { queue_transactions_max: QUEUE, batch_size: 1, ..options() };
    let (log, state) = contents(&before);
    runtime().block_on(async {
        let ledger = Ledger::open(home.directory(), stores.ports(), options).await.expect("it opens");
        drive(&ledger, &disk, plan(3, 4)).await.expect("a sound disk refuses nothing");
        disk.hang_syncs();
        let number = |write: usize| (1 << 20) + write as u64;
        let target = (vault(), actor());
        let mut writes: Vec<_> = (0..4 * QUEUE)
            .map(|write| {
                let transaction = transaction(number(write), &mut Dice::new(write as u64));
                let (ledger, (vault, actor)) = (&ledger, &target);
                async move { ledger.write(vault, actor, transaction).await }.boxed_local()
            })
            .collect();
        let mut refused = 0;
        let deadline = Instant::now() + PATIENCE;
        while disk.hanging() == 0 || refused == 0 {
            assert!(Instant::now() < deadline, "no sync hangs, or nothing is refused");
            let mut waiting = Vec::new();
            for mut write in writes {
                match futures::poll!(write.as_mut()) {
                    std::task::Poll::Pending => waiting.push(write),
                    std::task::Poll::Ready(Err(WriteError::Overloaded { .. })) => refused += 1,
                    std::task::Poll::Ready(other) => panic!("answered without a sync: {other:?}"),
                }
            }
            writes = waiting;
            tokio::task::yield_now().await;
        }
        let known = ledger.get(&vault(), &own_key(0), Consistency::Eventual).await.expect("reads go on");
        assert!(known.value.is_some());
        check_cut_now(&home, &disk, &before, (log, state));
        disk.release_syncs();
        let waited = writes.len();
        for answer in join_all(writes).await {
            answer.expect("what waited is written");
        }
        assert!(waited >= QUEUE && refused > 0, "{waited} waited, {refused} were refused");
        ledger.shutdown().await.expect("it ends in order");
    });
}

/// Somebody pulls the plug now.
fn check_cut_now(
    home: &Home,
    disk: &Disk,
    before: &Image,
    (log, state): (
        std::sync::Arc<crate::promises::LogContent>,
        std::sync::Arc<crate::promises::StateContent>,
    ),
) {
    let trace = disk.take_trace();
    let history = History::of(log, state, &Default::default(), &trace);
    let (mut moment, mut progress) = (Moment::before(before.clone(), Syncs::Honoured), Progress::default());
    for event in &trace {
        moment.pass(event);
        progress.pass(event);
    }
    assert!(moment.pending() > 0, "something waits for the sync");
    assert!(progress.promises.iter().any(|promise| matches!(promise, Promise::Written(..))));
    let (twin, mut tally) = (home.twin(), Tally::default());
    let expected = Expected {
        history: &history,
        progress: &progress,
        chain: None,
        retries: Retries::Newest,
        rows: Rows::Compared,
    };
    for loss in Loss::all(moment.pending(), 9, 2) {
        let image = moment.cut(loss).0;
        std::thread::scope(|scope| {
            // A runtime of its own: this one is in use.
            let recovery = scope.spawn(|| recover(&twin, image, &expected, &mut tally).map(drop));
            recovery.join().expect("no panic").expect("nothing is lost");
        });
    }
    assert!(tally.acknowledged > 0);
}

/// On a slow disk writes share syncs: more wait, none is answered before its sync.
#[test]
fn slow_syncs_are_shared_and_every_answer_comes_after_its_own() {
    const WRITES: u64 = 64;
    const DELAY: Duration = Duration::from_millis(20);
    let home = Home::new();
    let disk = new_disk();
    let stores = DiskStores::open(&disk, Upkeep::default()).expect("the stores open");
    runtime().block_on(async {
        let ledger = Ledger::open(home.directory(), stores.ports(), options()).await.expect("it opens");
        drive(&ledger, &disk, plan(4, 1)).await.expect("a sound disk refuses nothing");
        disk.slow_down_syncs(DELAY);
        let before = stores.log.inner.syncs();
        let target = (vault(), actor());
        let writes = (0..WRITES).map(async |write| {
            let started = Instant::now();
            let transaction = transaction((1 << 20) + write, &mut Dice::new(write));
            ledger.write(&target.0, &target.1, transaction).await.expect("a slow disk refuses nothing");
            started.elapsed()
        });
        let shortest = join_all(writes).await.into_iter().min().expect("there were writes");
        assert!(shortest >= DELAY, "an answer after {shortest:?} came before its sync");
        let syncs = stores.log.inner.syncs() - before;
        assert!(syncs <= WRITES / 4, "{WRITES} writes took {syncs} syncs");
        ledger.shutdown().await.expect("it ends in order");
    });
}
