//! A limit changes while requests come: they wait for one commit at most, however many rows there are.
//!
//! Until November 2026 a change rebuilt all rows while nobody could be answered. With many rows that took longer than a request
//! waits for its store, so each rule decided without it: rules that stand open let everything pass meanwhile.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ratelimit_core::KeyParts;
use ratelimit_core::ports::{Charge, Policy, RateStore};
use redb::StorageBackend;
use storage_adapters::redb::StateFiles;
use storage_adapters::redb::rates::{IN_PROGRESS_MAX, MOVED_AT_ONCE, RateOptions, RedbRateStore};

use super::disk::{Disk, Syncs, Unsynced, cut};
use super::files::RedbDisk;
use super::world::{START, admits, charge, key, left, options, policy, run, window};

const SIZE: u64 = 100;
const RAISED: u64 = 150;
const ROWS: usize = 3 * MOVED_AT_ONCE + 100;

fn policies(size: u64) -> Vec<Policy> {
    vec![policy("window", window(size)), policy("other", window(7))]
}

fn client(number: usize) -> KeyParts {
    key(&number.to_string())
}

/// A disk whose syncs are let through one at a time.
#[derive(Debug, Clone)]
struct Gated {
    files: Arc<dyn StateFiles>,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    passes: u64,
    /// Somebody waits.
    is_waited_at: bool,
}

impl Gate {
    fn close(&self) {
        self.state.lock().expect("no panic").is_closed = true;
    }

    fn open(&self) {
        self.state.lock().expect("no panic").is_closed = false;
        self.changed.notify_all();
    }

    fn is_waited_at(&self) -> bool {
        self.state.lock().expect("no panic").is_waited_at
    }

    /// Lets the one pass that waits.
    fn let_one_pass(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.passes += 1;
        state.is_waited_at = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("no panic");
        while state.is_closed && state.passes == 0 {
            state.is_waited_at = true;
            state = self.changed.wait(state).expect("no panic");
        }
        state.passes = state.passes.saturating_sub(1);
        state.is_waited_at = false;
    }
}

/// Opens the gate in the end, also when a test fails: else nobody could close the store.
struct Opens<'g>(&'g Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn StorageBackend>,
    gate: Arc<Gate>,
}

impl Gated {
    fn backend(&self, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        Box::new(GatedFile { file, gate: Arc::clone(&self.gate) })
    }
}

impl StateFiles for Gated {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.files.exists(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(self.backend(self.files.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(self.backend(self.files.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }
}

impl StorageBackend for GatedFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.gate.pass();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write(offset, data)
    }
}

/// A store on a disk of its own, with a row of every client; each has used one cell.
struct Busy {
    disk: Disk,
    gate: Arc<Gate>,
    store: RedbRateStore,
}

fn roomy() -> RateOptions {
    RateOptions { keys_max: 4 * ROWS, ..options() }
}

fn busy() -> Busy {
    let (disk, gate) = (Disk::default(), Arc::new(Gate::default()));
    let files = Gated { files: RedbDisk(disk.clone()).files(), gate: Arc::clone(&gate) };
    let store = RedbRateStore::with_files(Arc::new(files), "rates.db", policies(SIZE), roomy(), START);
    let store = store.expect("it opens");
    let clients: Vec<KeyParts> = (0..ROWS).map(client).collect();
    for some in clients.chunks(32) {
        let charges: Vec<_> = some.iter().map(|client| charge(0, client, 1)).collect();
        assert!(run(store.check(&charges, START)).expect("it decides").0.is_allowed());
    }
    Busy { disk, gate, store }
}

impl Busy {
    /// As whoever comes after a crash finds it.
    fn after_a_crash(self, size: u64) -> RedbRateStore {
        drop(self.store);
        reopened(&self.disk, size)
    }
}

fn reopened(disk: &Disk, size: u64) -> RedbRateStore {
    let files = RedbDisk(disk.clone()).files();
    RedbRateStore::with_files(files, "rates.db", policies(size), roomy(), START).expect("it opens")
}

/// A decision that is waited for: whether it admits.
type Call<'s> = Pin<Box<dyn Future<Output = bool> + 's>>;

fn polled<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn run_check(store: &RedbRateStore, charges: &[Charge<'_>]) -> bool {
    store.check(charges, START).await.expect("it decides").0.is_allowed()
}

/// What a decision without a wait says; `None` when there is one.
fn at_once(store: &RedbRateStore, policy: u32, client: &KeyParts, cost: u64) -> Option<(bool, u64)> {
    let charges = [charge(policy, client, cost)];
    match polled(Box::pin(store.check(&charges, START)).as_mut()) {
        Poll::Ready(decided) => {
            let verdict = decided.expect("it decides").0;
            let limit = verdict.decisions().first().expect("one decision").limit();
            Some((verdict.is_allowed(), limit))
        }
        Poll::Pending => None,
    }
}

#[test]
fn decisions_are_made_between_any_two_steps_of_a_reload_and_none_waits_for_more_than_four_commits() {
    let Busy { disk: _, gate, store } = &busy();
    let commits = store.commits();
    // New ones: their first cell is written when it is taken.
    let new: Vec<KeyParts> = (0..3).map(|number| key(&format!("new {number}"))).collect();
    gate.close();
    let _opens = Opens(gate);
    let (mut at_once_before, mut held_up, mut durable) = (0_u64, 0_u64, Vec::new());
    let mut raised = 0;
    {
        let mut reload = Box::pin(store.reopen(policies(RAISED), START));
        let deadline = Instant::now() + Duration::from_secs(60);
        // Some that need the disk, begun at different steps: how many commits each has seen pass.
        let mut waiting: Vec<(u64, Call<'_>)> = Vec::new();
        let (mut steps, mut is_over) = (0_u64, false);
        loop {
            assert!(Instant::now() < deadline, "the reload gets on");
            is_over = is_over || polled(reload.as_mut()).is_ready();
            waiting.retain_mut(|(begun, future)| match polled(future.as_mut()) {
                Poll::Ready(admitted) => {
                    assert!(admitted);
                    durable.push(store.commits() - *begun);
                    false
                }
                Poll::Pending => true,
            });
            if is_over && waiting.is_empty() {
                break;
            }
            if !gate.is_waited_at() {
                std::thread::yield_now();
                continue;
            }
            // The writer is in the middle of a commit: who needs none is answered all the same.
            match at_once(store, 0, &client(usize::try_from(steps).expect("few")), 1) {
                Some((true, SIZE)) => at_once_before += 1,
                Some((true, RAISED)) => raised += 1,
                Some(other) => panic!("{other:?}"),
                // Nothing is written ahead under the new limit yet.
                None if is_over => {}
                None => held_up += 1,
            }
            if steps % 2 == 0 && durable.len() + waiting.len() < 3 {
                let charges = [charge(1, &new[durable.len() + waiting.len()], 1)];
                let call = async move { run_check(store, &charges).await };
                let mut call: Call<'_> = Box::pin(call);
                assert!(polled(call.as_mut()).is_pending(), "it needs the disk");
                waiting.push((store.commits(), call));
            }
            gate.let_one_pass();
            steps += 1;
        }
    }
    gate.open();
    assert!(store.commits() - commits >= (ROWS / MOVED_AT_ONCE) as u64, "in steps");
    assert!(at_once_before >= 3, "{at_once_before} were decided at once, {raised} by the new limit");
    assert!(held_up <= 3, "{held_up} steps held decisions up");
    assert_eq!(durable.len(), 3);
    // The one under way, one that clears away and its own; the last one of the reload is not counted, and may come between.
    assert!(durable.iter().all(|commits| *commits <= 3), "{durable:?}");
}

#[test]
fn what_is_used_while_rows_move_is_used_under_the_new_limit_and_after_a_crash() {
    for size in [RAISED, SIZE / 2] {
        let busy = busy();
        let store = &busy.store;
        let takes = |number: usize| u64::try_from(number % 9).expect("few");
        std::thread::scope(|scope| {
            let reload = scope.spawn(|| run(store.reopen(policies(size), START)).expect("it is durable"));
            // Before the reload reaches them, behind it, and after it.
            for number in (0..ROWS).step_by(37) {
                assert!(admits(store, 0, &client(number), takes(number), START));
            }
            reload.join().expect("no panic");
        });
        let expected = |number: usize| {
            let used = if number.is_multiple_of(37) { 1 + takes(number) } else { 1 };
            SIZE - used
        };
        for number in 0..ROWS {
            let left = left(store, 0, &client(number), START);
            // Charged under the old limit or under the new one, which then has had at most its own size.
            let taken = SIZE - expected(number);
            let most = expected(number).min(size);
            assert!((most.saturating_sub(taken)..=most).contains(&left), "client {number}: {left}, {most}");
        }
        let before: Vec<u64> = (0..ROWS).map(|number| left(store, 0, &client(number), START)).collect();
        let store = busy.after_a_crash(size);
        for (number, before) in before.into_iter().enumerate() {
            assert!(left(&store, 0, &client(number), START) <= before, "client {number}");
        }
    }
}

#[test]
fn a_reload_that_nobody_waits_for_any_more_leaves_the_limits_of_before() {
    let busy = busy();
    let Busy { gate, store, .. } = &busy;
    gate.close();
    let opens = Opens(gate);
    {
        let mut reload = Box::pin(store.reopen(policies(RAISED), START));
        for _ in 0..2 {
            assert!(polled(reload.as_mut()).is_pending());
            while !gate.is_waited_at() {
                std::thread::yield_now();
            }
            gate.let_one_pass();
        }
    }
    drop(opens);
    assert_eq!(left(store, 0, &client(5), START), SIZE - 1);
    assert!(admits(store, 0, &client(5), SIZE - 1, START));
    run(store.reopen(policies(SIZE), START)).expect("nothing is in the way");
    run(store.reopen(policies(RAISED), START)).expect("nothing is in the way");
    assert_eq!(left(store, 0, &client(5), START), 0, "what was left, which is nothing");
    assert_eq!(left(store, 0, &client(6), START), SIZE - 1);
    assert_eq!(left(&busy.after_a_crash(RAISED), 0, &client(5), START), 0);
}

#[test]
fn rows_of_before_go_from_the_file_some_with_each_commit() {
    let Busy { disk, store, .. } = busy();
    run(store.reopen(policies(RAISED), START)).expect("it is durable");
    run(store.reopen(vec![policy("other", window(7))], START)).expect("it is durable");
    for _ in 0..2 * ROWS / MOVED_AT_ONCE + 4 {
        run(store.probe(START)).expect("a sound disk");
    }
    drop(store);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("rates.db");
    std::fs::write(&path, disk.image().bytes("rates.db")).expect("a copy");
    type Bytes = &'static [u8];
    let db = redb::Database::open(&path).expect("a database");
    let read = redb::ReadableDatabase::begin_read(&db).expect("it reads");
    let count = |table: &str| {
        let table = read.open_table(redb::TableDefinition::<Bytes, Bytes>::new(table)).expect("a table");
        redb::ReadableTableMetadata::len(&table).expect("it counts")
    };
    assert_eq!((count("policies"), count("rates")), (1, 0));
}

/// The power is cut in the middle of a reload: whoever opens with the old limits or with the new ones finds at most what was left.
#[test]
fn a_power_cut_in_a_reload_leaves_the_old_limits_or_the_new_ones() {
    let Busy { disk, store, .. } = busy();
    let begin = disk.effects().len();
    let mut used = Vec::new();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| run(store.reopen(policies(RAISED), START)).expect("it is durable"));
        for number in [3, 1_000, 2_000, 3_000] {
            assert!(admits(&store, 0, &client(number), 50, START));
            used.push((number, disk.effects().len()));
        }
        reload.join().expect("no panic");
    });
    drop(store);
    let effects = disk.effects();
    assert!(effects.len() - begin > 20, "{} effects", effects.len() - begin);
    for count in (begin..=effects.len()).step_by((effects.len() - begin) / 12) {
        let image =
            cut(&super::disk::Image::default(), &effects[..count], Syncs::Work, Unsynced::Torn(count as u64));
        for size in [SIZE, RAISED] {
            let store = reopened(&Disk::of(&image), size);
            for (number, answered_at) in &used {
                let taken = if *answered_at <= count { 51 } else { 1 };
                let left = left(&store, 0, &client(*number), START);
                assert!(left + taken <= SIZE, "client {number} behind effect {count}: {left} are left");
            }
            assert!(left(&store, 0, &client(7), START) < SIZE);
        }
    }
}

#[test]
fn beyond_so_many_requests_in_progress_others_wait_to_be_asked_and_all_are_answered() {
    let Busy { gate, store, .. } = &busy();
    gate.close();
    let opens = Opens(gate);
    let few = key("few");
    let charges = [charge(0, &few, 0)];
    let needs_disk: Vec<KeyParts> =
        (0..IN_PROGRESS_MAX).map(|number| key(&format!("new {number}"))).collect();
    let charges_of: Vec<_> = needs_disk.iter().map(|key| [charge(0, key, 1)]).collect();
    let mut waiting: Vec<_> =
        charges_of.iter().map(|charges| Box::pin(store.check(charges, START))).collect();
    for call in &mut waiting {
        assert!(polled(call.as_mut()).is_pending());
    }
    let mut beyond = Box::pin(store.peek(&charges, START));
    assert!(polled(beyond.as_mut()).is_pending(), "a look that needs no disk");
    // One that goes away makes room for one.
    drop(waiting.pop());
    assert!(polled(beyond.as_mut()).is_ready());
    drop(opens);
    for call in waiting {
        assert!(run(call).expect("it decides").0.is_allowed());
    }
}
