//! A disk in memory under a node: it remembers every effect in order, and it fails when it is told to.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use ledger_core::ports::{LogChange, StateBatch};

use crate::disk_image::{Effect, Image, Place};
use crate::promises::Promise;

/// One moment of a run, in one order over all files and threads.
#[derive(Debug)]
pub enum Event {
    Effect(Place, Effect),
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
    /// After this many more writes the disk is full, and not even what is there can be written over (a file system that
    /// copies what it writes): each such call fails until there is room.
    FullAfterWrites(u64),
    /// After this many more calls that need room there is none: files neither grow nor come into being; what is there can
    /// be written over.
    NoRoomAfterGrowths(u64),
    /// After this many more syncs one fails; those behind it succeed, as they do on a real disk.
    SyncFailsAfter(u64),
}

/// What a call needs of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Overwrite,
    Room,
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
    image: Image,
    trace: Vec<Event>,
    /// The trace has ended: effects still happen, nobody writes them down.
    stopped: bool,
    fault: Fault,
    /// Calls that were made to fail.
    faults: u64,
    syncs_hang: bool,
    hanging: u64,
    sync_delay: Duration,
}

impl Disk {
    pub fn holding(image: Image) -> Self {
        let disk = Self::default();
        disk.lock().image = image;
        disk
    }

    pub fn image(&self) -> Image {
        self.lock().image.clone()
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
        state.image.clone()
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

    pub fn length(&self, place: Place) -> usize {
        self.lock().image.bytes(place).len()
    }

    pub fn read(&self, place: Place, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let start = position(offset)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let content = state.image.bytes(place);
        out.copy_from_slice(content.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// A write that fails has been done in part.
    pub fn write(&self, place: Place, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = position(offset)?;
        let mut state = self.lock();
        let grows = offset + data.len() > state.image.bytes(place).len();
        let outcome = state.take_room(if grows { Need::Room } else { Need::Overwrite });
        let written = if outcome.is_ok() { data } else { &data[..data.len() / 2] };
        state.happen(place, Effect::Write { offset, data: written.to_vec() });
        outcome
    }

    pub fn set_length(&self, place: Place, length: u64) -> io::Result<()> {
        let length = position(length)?;
        let mut state = self.lock();
        if length > state.image.bytes(place).len() {
            state.take_room(Need::Room)?;
        }
        state.happen(place, Effect::SetLength(length));
        Ok(())
    }

    /// Syncs the bytes of a file, or the names.
    pub fn sync(&self, place: Place) -> io::Result<()> {
        let mut state = self.lock();
        state.hanging += 1;
        while state.syncs_hang {
            state = self.0.gate_moved.wait(state).expect("nobody panics under this lock");
        }
        state.hanging -= 1;
        let delay = state.sync_delay;
        drop(state);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut state = self.lock();
        let outcome = state.fail_sync();
        state.happen(place, if outcome.is_ok() { Effect::Sync } else { Effect::FailedSync });
        outcome
    }

    pub fn log_names(&self) -> Vec<String> {
        self.lock().image.log_names.keys().cloned().collect()
    }

    /// Which file of the log has this name.
    pub fn log_file(&self, name: &str) -> io::Result<usize> {
        self.lock().log_file(name)
    }

    /// A new file of the log; one that has the name already is emptied.
    pub fn create(&self, name: &str) -> io::Result<usize> {
        let mut state = self.lock();
        if let Ok(number) = state.log_file(name) {
            state.happen(Place::LogFile(number), Effect::SetLength(0));
            return Ok(number);
        }
        state.take_room(Need::Room)?;
        let number = state.image.next_log_file();
        state.happen(Place::LogNames, Effect::Created { name: name.to_owned(), number });
        Ok(number)
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let number = state.log_file(from)?;
        state.take_room(Need::Room)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.happen(Place::LogNames, Effect::Renamed { from, to, number });
        Ok(())
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.log_file(name)?;
        state.happen(Place::LogNames, Effect::Removed(name.to_owned()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics under this lock")
    }
}

impl State {
    fn happen(&mut self, place: Place, effect: Effect) {
        self.image.apply(place, &effect);
        if !self.stopped {
            self.trace.push(Event::Effect(place, effect));
        }
    }

    fn log_file(&self, name: &str) -> io::Result<usize> {
        self.image.log_names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn take_room(&mut self, need: Need) -> io::Result<()> {
        let left = match (&mut self.fault, need) {
            (Fault::FullAfterWrites(left), _) | (Fault::NoRoomAfterGrowths(left), Need::Room) => left,
            _ => return Ok(()),
        };
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => {
                self.faults += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
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

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
