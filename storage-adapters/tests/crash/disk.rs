//! A disk in memory under redb: it remembers every effect in order, and it fails when it is told to.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use ledger_core::ports::{LogChange, StateBatch};
use redb::StorageBackend;

use crate::promises::Promise;

/// The three files of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFile {
    Raft,
    Blocks,
    State,
}

impl DiskFile {
    /// The order of an [`Image`].
    pub const ALL: [Self; 3] = [Self::Raft, Self::Blocks, Self::State];

    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft.db",
            Self::Blocks => "blocks.db",
            Self::State => "state.db",
        }
    }
}

/// What the three files hold, in the order of [`DiskFile::ALL`].
pub type Image = [Vec<u8>; 3];

/// What redb did to a file.
#[derive(Debug, Clone)]
pub enum Effect {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    SetLength(usize),
    Sync,
    /// A sync that failed: what it should have made durable may be gone, whatever later syncs say.
    FailedSync,
}

/// One moment of a run, in one order over all files and threads.
#[derive(Debug)]
pub enum Event {
    Effect(DiskFile, Effect),
    LogCommitStarted(Vec<LogChange>),
    LogCommitDone,
    StateCommitStarted(StateBatch),
    StateCommitDone,
    /// Somebody outside was told.
    Promised(Promise),
}

/// Which call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// After this many more writes the disk is full: writes and growth fail until there is room.
    FullAfterWrites(u64),
    /// After this many more syncs one fails; those behind it succeed, as they do on a real disk.
    SyncFailsAfter(u64),
}

/// The disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    gate_moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: Image,
    trace: Vec<Event>,
    /// How many files are under a trace that has ended: effects still happen, nobody writes them down.
    stopped: bool,
    fault: Fault,
    /// Calls that were made to fail.
    faults: u64,
    syncs_hang: bool,
    hanging: u64,
    sync_delay: Duration,
}

impl Disk {
    pub fn holding(files: Image) -> Self {
        let disk = Self::default();
        disk.lock().files = files;
        disk
    }

    pub fn file(&self, file: DiskFile) -> RecordedFile {
        RecordedFile { disk: self.clone(), file }
    }

    pub fn image(&self) -> Image {
        self.lock().files.clone()
    }

    pub fn note(&self, event: Event) {
        let mut state = self.lock();
        if !state.stopped {
            state.trace.push(event);
        }
    }

    /// Ends the recording and returns it.
    pub fn take_trace(&self) -> Vec<Event> {
        let mut state = self.lock();
        state.stopped = true;
        std::mem::take(&mut state.trace)
    }

    /// Forgets what was recorded so far; the files stay.
    pub fn restart_trace(&self) -> Image {
        let mut state = self.lock();
        state.trace.clear();
        state.files.clone()
    }

    pub fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// Calls that were made to fail.
    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    /// From now on each sync takes this long.
    pub fn slow_down_syncs(&self, delay: Duration) {
        self.lock().sync_delay = delay;
    }

    /// From now on syncs do not return.
    pub fn hang_syncs(&self) {
        self.lock().syncs_hang = true;
    }

    pub fn release_syncs(&self) {
        self.lock().syncs_hang = false;
        self.0.gate_moved.notify_all();
    }

    /// Syncs that do not return now.
    pub fn hanging(&self) -> u64 {
        self.lock().hanging
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics under this lock")
    }
}

impl State {
    fn record(&mut self, file: DiskFile, effect: impl FnOnce() -> Effect) {
        if !self.stopped {
            self.trace.push(Event::Effect(file, effect()));
        }
    }

    fn refuse_when_full(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Fault::FullAfterWrites(0) => {
                self.faults += 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            Fault::FullAfterWrites(left) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fail_sync(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Fault::SyncFailsAfter(0) => {
                self.fault = Fault::None;
                self.faults += 1;
                Err(io::Error::other("input/output error"))
            }
            Fault::SyncFailsAfter(left) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// One file of a [`Disk`], as redb sees it.
#[derive(Debug)]
pub struct RecordedFile {
    disk: Disk,
    file: DiskFile,
}

impl StorageBackend for RecordedFile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.disk.lock().files[self.file as usize].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.disk.lock();
        let start = position(offset)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let content = &state.files[self.file as usize];
        out.copy_from_slice(content.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = position(len)?;
        let mut state = self.disk.lock();
        if length > state.files[self.file as usize].len() {
            state.refuse_when_full()?;
        }
        state.record(self.file, || Effect::SetLength(length));
        state.files[self.file as usize].resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.disk.lock();
        state.hanging += 1;
        while state.syncs_hang {
            state = self.disk.0.gate_moved.wait(state).expect("nobody panics under this lock");
        }
        state.hanging -= 1;
        let delay = state.sync_delay;
        drop(state);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut state = self.disk.lock();
        let outcome = state.fail_sync();
        state.record(self.file, || if outcome.is_ok() { Effect::Sync } else { Effect::FailedSync });
        outcome
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let start = position(offset)?;
        let mut state = self.disk.lock();
        state.refuse_when_full()?;
        state.record(self.file, || Effect::Write { offset: start, data: data.to_vec() });
        put(&mut state.files[self.file as usize], start, data);
        Ok(())
    }
}

fn position(offset: u64) -> Result<usize, io::Error> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Writes into a file that grows when the write ends behind it, as files do.
pub fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}
