//! A disk that fails: what is told of a commit is true, then and after a restart.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth_core::Millis;
use auth_core::ports::{AuthStore, AuthStoreError, Expect, Position, ReadSet};
use redb::StorageBackend;
use storage_adapters::redb::StateFiles;
use storage_adapters::redb::auth::{RECOVERY_PAUSE, RedbAuthError, RedbAuthStore};

use super::disk::{Disk, Effect, Image, Syncs, Unsynced, cut};
use super::files::RedbDisk;
use super::world::{START, commit, key, options, record, run, try_commit, value};

const COMMITS: u64 = 10;

fn open(disk: &Disk) -> Result<RedbAuthStore, RedbAuthError> {
    RedbAuthStore::with_files(RedbDisk(disk.clone()).files(), "auth.db", options())
}

/// What was told of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Applied(Position),
    NotApplied,
    Unknown,
}

/// Each claims two names, so that half of a commit shows.
fn claim(number: u64) -> auth_core::ports::Commit {
    let names = [key(2 * number), key(2 * number + 1)];
    let value = vec![number.to_le_bytes()[0]; 2_000];
    names
        .iter()
        .fold(commit(number), |commit, name| commit.expect(name, Expect::Absent).put(name, &value, None))
}

fn told(answer: Result<Position, AuthStoreError>) -> Told {
    match answer {
        Ok(position) => Told::Applied(position),
        Err(AuthStoreError::Full { .. } | AuthStoreError::Unavailable { .. }) => Told::NotApplied,
        Err(AuthStoreError::UnknownOutcome { .. }) => Told::Unknown,
        Err(error) => panic!("no failure of a disk: {error}"),
    }
}

/// Commits one after the other, some seconds apart, so that a store has the time to come back.
fn work(store: &RedbAuthStore) -> BTreeMap<u64, Told> {
    let at = |number: u64| START.after(2 * RECOVERY_PAUSE * u32::try_from(number).expect("few"));
    (0..COMMITS).map(|number| (number, told(run(store.commit(&claim(number), at(number)))))).collect()
}

/// Whether both names of a commit are there; it is a failure when one is.
fn is_there(store: &RedbAuthStore, number: u64) -> bool {
    let found =
        [2 * number, 2 * number + 1].map(|name| record(store, &key(name)).map(|record| record.version));
    assert_eq!(found[0], found[1], "half of commit {number}");
    found[0].is_some()
}

/// Opens a disk again: what was told was true, and each commit that comes again has one effect.
fn check(image: &Image, answers: &BTreeMap<u64, Told>, place: &str) {
    let disk = Disk::of(image);
    let store = open(&disk).unwrap_or_else(|error| panic!("{place}: it opens again: {error}"));
    for (number, told) in answers {
        let there = is_there(&store, *number);
        match told {
            Told::Applied(position) => {
                assert!(there, "{place}: commit {number} was told to be applied");
                assert_eq!(try_commit(&store, &claim(*number)).expect("it is known"), *position, "{place}");
            }
            Told::NotApplied => assert!(!there, "{place}: commit {number} was told not to be applied"),
            Told::Unknown => {}
        }
    }
    for number in answers.keys() {
        let position = try_commit(&store, &claim(*number)).expect("it is applied, then or now");
        assert_eq!(
            record(&store, &key(2 * number)).map(|record| record.version.0),
            Some(position.0),
            "{place}"
        );
    }
    let page = run(store.changes(Position::START, 1_000)).expect("the feed is read");
    assert_eq!(page.changes.len() as u64, COMMITS, "{place}: one effect each");
}

fn new_image() -> Image {
    let disk = Disk::default();
    drop(open(&disk).expect("a sound disk"));
    disk.image()
}

/// Each operation of a run fails once, as a full disk does and as a broken one does.
#[test]
fn whichever_operation_fails_what_is_told_of_each_commit_is_true() {
    let base = new_image();
    let recorded = Disk::of(&base);
    let store = open(&recorded).expect("a sound disk");
    assert!(work(&store).values().all(|told| matches!(told, Told::Applied(_))));
    drop(store);
    let operations = recorded.operations();
    assert!(operations > 50, "{operations} operations");
    let mut counts = BTreeMap::<&str, u64>::new();
    for operation in 0..operations {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let disk = Disk::of(&base);
            disk.fail(operation, kind);
            let place = format!("operation {operation}, {kind:?}");
            let answers = match open(&disk) {
                Ok(store) => work(&store),
                Err(_) => (0..COMMITS).map(|number| (number, Told::NotApplied)).collect(),
            };
            for told in answers.values() {
                let name = match told {
                    Told::Applied(_) => "applied",
                    Told::NotApplied => "not applied",
                    Told::Unknown => "unknown",
                };
                *counts.entry(name).or_default() += 1;
            }
            check(&disk.image(), &answers, &place);
            let effects = disk.effects();
            for unsynced in [Unsynced::Lost, Unsynced::Torn(operation), Unsynced::Torn(!operation)] {
                let image = cut(&base, &effects, Syncs::Work, unsynced);
                check(&image, &answers, &format!("{place}, then a power cut, {unsynced:?}"));
            }
        }
    }
    println!("{operations} operations, {counts:?}");
    assert!(counts.values().all(|count| *count > 10) && counts.len() == 3, "{counts:?}");
}

/// An fsync that failed once may seem to succeed later: nothing is believed of that file any more.
#[test]
fn after_a_failed_sync_nothing_is_answered_and_the_commit_is_found_by_its_id_after_a_restart() {
    let base = new_image();
    let recorded = Disk::of(&base);
    let store = open(&recorded).expect("a sound disk");
    try_commit(&store, &claim(0)).expect("it is applied");
    // Which operation of the next commit is its fsync.
    let before = recorded.operations();
    let known = recorded.effects().len();
    try_commit(&store, &claim(1)).expect("it is applied");
    let sync = recorded.effects()[known..].iter().position(|effect| matches!(effect, Effect::Sync(_)));
    let sync = sync.expect("a commit syncs") as u64;
    drop(store);

    let disk = Disk::of(&base);
    let store = open(&disk).expect("a sound disk");
    try_commit(&store, &claim(0)).expect("it is applied");
    assert_eq!(disk.operations(), before, "the same operations as before");
    disk.fail(before + sync, io::ErrorKind::Other);
    let unknown = try_commit(&store, &claim(1));
    assert!(matches!(unknown, Err(AuthStoreError::UnknownOutcome { .. })), "{unknown:?}");
    for later in 0..5 {
        let now = START.after(Duration::from_secs(10 * later));
        let refused = run(store.commit(&claim(2), now));
        assert!(matches!(refused, Err(AuthStoreError::Unavailable { .. })), "{refused:?}");
        let read = run(store.read(&ReadSet::of([key(0)]), now));
        assert!(matches!(read, Err(AuthStoreError::Unavailable { .. })), "{read:?}");
        let feed = run(store.changes(Position::START, 1));
        assert!(matches!(feed, Err(AuthStoreError::Unavailable { .. })), "{feed:?}");
    }
    assert!(matches!(store.failure(), Some(RedbAuthError::NotSynced { .. })), "{:?}", store.failure());
    drop(store);
    let lost = cut(&base, &disk.effects(), Syncs::Work, Unsynced::Lost);
    let store = open(&Disk::of(&lost)).expect("it opens");
    assert!(is_there(&store, 0));
    let position = try_commit(&store, &claim(1)).expect("it is sent again");
    assert_eq!(record(&store, &key(2)).map(|record| record.version.0), Some(position.0));
}

/// A disk on which files cannot grow while it is full.
#[derive(Debug, Clone)]
struct Roomless {
    disk: RedbDisk,
    full: Arc<AtomicBool>,
}

#[derive(Debug)]
struct RoomlessFile {
    inner: Box<dyn StorageBackend>,
    full: Arc<AtomicBool>,
}

impl Roomless {
    fn wrapped(&self, inner: io::Result<Box<dyn StorageBackend>>) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(RoomlessFile { inner: inner?, full: Arc::clone(&self.full) }))
    }
}

impl StateFiles for Roomless {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.wrapped(self.disk.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.wrapped(self.disk.open(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

impl StorageBackend for RoomlessFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if len > self.inner.len()? && self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.inner.write(offset, data)
    }
}

#[test]
fn a_full_disk_refuses_commits_by_name_serves_reads_and_goes_on_when_there_is_room() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = RedbDisk(Disk::default());
    let files = Arc::new(Roomless { disk: disk.clone(), full: Arc::clone(&full) });
    let store = RedbAuthStore::with_files(files, "auth.db", options()).expect("a sound disk");
    try_commit(&store, &commit(1_000).put(&key(1_000), b"before", None)).expect("there is room");
    full.store(true, Ordering::Relaxed);
    let large = |number: u64| commit(number).put(&key(number), vec![7; 60_000], None);
    // What is in the file already has some room.
    let mut applied = Vec::new();
    let refused = (0..200).find_map(|number| match try_commit(&store, &large(number)) {
        Ok(_) => {
            applied.push(number);
            None
        }
        Err(error) => Some((number, error)),
    });
    let (number, error) = refused.expect("the room ends");
    assert!(matches!(error, AuthStoreError::Full { .. }), "{error:?}");
    for again in 0..3 {
        let error = try_commit(&store, &large(number)).expect_err("there is no room");
        assert!(matches!(error, AuthStoreError::Full { .. }), "attempt {again}: {error:?}");
        assert_eq!(value(&store, &key(1_000)), Some(b"before".to_vec()), "reads are served");
        assert_eq!(value(&store, &key(number)), None);
    }
    full.store(false, Ordering::Relaxed);
    try_commit(&store, &large(number)).expect("there is room again");
    applied.push(number);
    drop(store);
    let store = open(&disk.0).expect("it opens");
    for number in applied {
        assert_eq!(value(&store, &key(number)).map(|value| value.len()), Some(60_000), "commit {number}");
    }
}

/// A read that fails brings the file back as well: nobody has to commit for that.
#[test]
fn a_store_comes_back_by_itself_when_the_disk_works_again() {
    let disk = Disk::default();
    let store = open(&disk).expect("a sound disk");
    try_commit(&store, &claim(0)).expect("it is applied");
    // The second operation is one of opening anew.
    disk.fail(disk.operations(), io::ErrorKind::Other);
    let refused = try_commit(&store, &claim(1));
    assert!(refused.is_err(), "{refused:?}");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut now = START;
    while run(store.read(&ReadSet::of([key(0)]), now)).is_err() {
        assert!(std::time::Instant::now() < deadline, "it comes back");
        now = Millis(now.0 + 500);
        std::thread::yield_now();
    }
    assert!(is_there(&store, 0) && !is_there(&store, 1));
    try_commit(&store, &claim(1)).expect("it is applied now");
}
