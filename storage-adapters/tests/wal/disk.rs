//! A disk in memory that records every effect, fails on demand, and loses what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use storage_adapters::wal::{WalFile, WalFiles};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Random numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// What is on a disk: files by number, and their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub files: Vec<Vec<u8>>,
    pub names: BTreeMap<String, usize>,
}

impl Image {
    pub fn bytes(&self, name: &str) -> &[u8] {
        &self.files[self.names[name]]
    }

    pub fn content(&mut self, name: &str) -> &mut Vec<u8> {
        let file = self.names[name];
        &mut self.files[file]
    }

    fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        self.files.resize(self.files.len().max(file + 1), Vec::new());
        let content = &mut self.files[file];
        content.resize(content.len().max(offset + bytes.len()), 0);
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn set_length(&mut self, file: usize, length: usize) {
        self.files.resize(self.files.len().max(file + 1), Vec::new());
        self.files[file].resize(length, 0);
    }

    fn rename(&mut self, changes: &[(String, Option<usize>)]) {
        for (name, file) in changes {
            match file {
                Some(file) => drop(self.names.insert(name.clone(), *file)),
                None => drop(self.names.remove(name)),
            }
        }
    }
}

#[derive(Debug, Clone)]
pub enum Effect {
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLength {
        file: usize,
        length: usize,
    },
    Sync(usize),
    /// The worst that it can mean: the pages are clean now, and were never written.
    FailedSync(usize),
    Names(Vec<(String, Option<usize>)>),
    SyncNames,
    /// A commit returned.
    Acknowledged,
}

/// Whether the disk does as it is told when it syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Work,
    Lie,
}

/// What becomes of writes that were not synced when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    Lost,
    Kept,
    /// Any subset of their sectors and of the changes of names is lost.
    Torn(u64),
}

/// The disk after a power cut behind the first `count` effects.
pub fn cut(base: &Image, effects: &[Effect], syncs: Syncs, unsynced: Unsynced) -> Image {
    let mut image = base.clone();
    // A file that was never synced has its name and no content.
    let made = effects.iter().filter_map(|effect| match effect {
        Effect::Names(changes) => changes.iter().filter_map(|(_, file)| *file).max(),
        _ => None,
    });
    let files = made.max().map_or(0, |last| last + 1).max(image.files.len());
    image.files.resize(files, Vec::new());
    let mut writes: BTreeMap<usize, Vec<&Effect>> = BTreeMap::new();
    let mut names: Vec<&[(String, Option<usize>)]> = Vec::new();
    for effect in effects {
        match effect {
            Effect::Write { file, .. } | Effect::SetLength { file, .. } => {
                writes.entry(*file).or_default().push(effect);
            }
            Effect::Names(changes) => names.push(changes),
            Effect::Sync(_) | Effect::SyncNames if syncs == Syncs::Lie => {}
            Effect::Sync(file) => {
                for effect in writes.remove(file).unwrap_or_default() {
                    tear(&mut image, effect, None);
                }
            }
            Effect::FailedSync(file) => drop(writes.remove(file)),
            Effect::SyncNames => names.drain(..).for_each(|changes| image.rename(changes)),
            Effect::Acknowledged => {}
        }
    }
    let mut dice = match unsynced {
        Unsynced::Lost => return image,
        Unsynced::Kept => None,
        Unsynced::Torn(seed) => Some(Dice(seed)),
    };
    for effect in writes.into_values().flatten() {
        tear(&mut image, effect, dice.as_mut());
    }
    for changes in names {
        if dice.as_mut().is_none_or(Dice::coin) {
            image.rename(changes);
        }
    }
    image
}

/// What becomes of a write or a change of the length: all of it without dice.
fn tear(image: &mut Image, effect: &Effect, dice: Option<&mut Dice>) {
    let (file, offset, bytes) = match effect {
        Effect::Write { file, offset, bytes } => (*file, *offset, bytes),
        Effect::SetLength { file, length } => {
            if dice.is_none_or(Dice::coin) {
                image.set_length(*file, *length);
            }
            return;
        }
        _ => return,
    };
    let Some(dice) = dice else { return image.write(file, offset, bytes) };
    // All, nothing, or each sector for itself.
    match dice.below(4) {
        0 => {}
        1 => image.write(file, offset, bytes),
        _ => {
            let mut from = 0;
            while from < bytes.len() {
                let to = bytes.len().min(from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES);
                if dice.coin() {
                    image.write(file, offset + from, &bytes[from..to]);
                }
                from = to;
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    image: Image,
    effects: Vec<Effect>,
    operations: u64,
    /// The operation that fails, once, and how.
    fault: Option<(u64, io::ErrorKind)>,
}

impl Disk {
    pub fn of(image: &Image) -> Self {
        let state = State { image: image.clone(), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn files(&self) -> Arc<dyn WalFiles> {
        Arc::new(self.clone())
    }

    pub fn set_length(&self, file: usize, length: usize) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.image.set_length(file, length);
        state.effects.push(Effect::SetLength { file, length });
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked with the lock")
    }

    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Image)) {
        change(&mut self.state().image);
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.state().effects.clone()
    }

    pub fn acknowledge(&self) {
        self.state().effects.push(Effect::Acknowledged);
    }

    /// Operations so far that can fail.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    pub fn fail(&self, operation: u64, kind: io::ErrorKind) {
        self.state().fault = Some((operation, kind));
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        match self.fault {
            Some((failing, kind)) if failing == operation => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn names(&mut self, changes: Vec<(String, Option<usize>)>) {
        self.image.rename(&changes);
        self.effects.push(Effect::Names(changes));
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.image.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl WalFiles for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().image.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let mut state = self.state();
        state.operate()?;
        let file = state.image.files.len();
        state.image.files.push(Vec::new());
        state.names(vec![(name.to_owned(), Some(file))]);
        Ok(Arc::new(DiskFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let file = self.state().file(name)?;
        Ok(Arc::new(DiskFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let file = state.file(from)?;
        state.names(vec![(from.to_owned(), None), (to.to_owned(), Some(file))]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.file(name)?;
        state.names(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.effects.push(Effect::SyncNames);
        Ok(())
    }
}

#[derive(Debug)]
pub struct DiskFile {
    pub disk: Disk,
    pub file: usize,
}

impl WalFile for DiskFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().image.files.get(self.file).map_or(0, Vec::len) as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let content = state.image.files.get(self.file).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(offset).expect("the disk is small");
        let bytes = content.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let offset = usize::try_from(offset).expect("the disk is small");
        let result = state.operate();
        // What fails has been done in part.
        let written = if result.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        state.image.write(self.file, offset, written);
        state.effects.push(Effect::Write { file: self.file, offset, bytes: written.to_vec() });
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.operate();
        let effect = if result.is_ok() { Effect::Sync } else { Effect::FailedSync };
        state.effects.push(effect(self.file));
        result
    }
}
