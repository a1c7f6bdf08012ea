//! What is on a disk, and what can be done to it.

use std::collections::BTreeMap;

/// Where an effect happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    State,
    Blocks,
    /// The names in the log's directory.
    LogNames,
    /// A file of the log, by its number in the image: it has one whatever its names are.
    LogFile(usize),
}

/// What is synced together, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The content of the log's files.
    LogFiles,
    LogNames,
    Blocks,
    State,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::LogFiles, Self::LogNames, Self::Blocks, Self::State];
}

impl Place {
    pub fn part(self) -> Part {
        match self {
            Self::State => Part::State,
            Self::Blocks => Part::Blocks,
            Self::LogNames => Part::LogNames,
            Self::LogFile(_) => Part::LogFiles,
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::State => "state.db".to_owned(),
            Self::Blocks => "blocks.db".to_owned(),
            Self::LogNames => "raft.wal".to_owned(),
            Self::LogFile(number) => format!("file {number} of raft.wal"),
        }
    }
}

/// What was done to a file, or to the names in the log's directory.
#[derive(Debug, Clone)]
pub enum Effect {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    SetLength(usize),
    /// A new file, by its number, got a name.
    Created {
        name: String,
        number: usize,
    },
    Renamed {
        from: String,
        to: String,
        number: usize,
    },
    Removed(String),
    Sync,
    /// A sync that failed: what it should have made durable may be gone, whatever later syncs say.
    FailedSync,
}

/// All that a node stores, but for the small files that never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    state: Vec<u8>,
    blocks: Vec<u8>,
    log_files: Vec<Vec<u8>>,
    pub log_names: BTreeMap<String, usize>,
}

impl Image {
    /// The bytes of a file; none of one that has a name and was never written.
    pub fn bytes(&self, place: Place) -> &[u8] {
        match place {
            Place::State => &self.state,
            Place::Blocks => &self.blocks,
            Place::LogFile(number) => self.log_files.get(number).map_or(&[], Vec::as_slice),
            Place::LogNames => panic!("a directory has no bytes"),
        }
    }

    pub fn bytes_mut(&mut self, place: Place) -> &mut Vec<u8> {
        match place {
            Place::State => &mut self.state,
            Place::Blocks => &mut self.blocks,
            Place::LogFile(number) => {
                if self.log_files.len() <= number {
                    self.log_files.resize(number + 1, Vec::new());
                }
                &mut self.log_files[number]
            }
            Place::LogNames => panic!("a directory has no bytes"),
        }
    }

    /// The number of the next file of the log.
    pub fn next_log_file(&self) -> usize {
        let named = self.log_names.values().max().map_or(0, |last| last + 1);
        self.log_files.len().max(named)
    }

    pub fn apply(&mut self, place: Place, effect: &Effect) {
        match effect {
            Effect::Write { offset, data } => self.put(place, *offset, data),
            Effect::SetLength(length) => self.bytes_mut(place).resize(*length, 0),
            Effect::Created { name, number } => drop(self.log_names.insert(name.clone(), *number)),
            Effect::Renamed { from, to, number } => {
                self.log_names.remove(from);
                self.log_names.insert(to.clone(), *number);
            }
            Effect::Removed(name) => drop(self.log_names.remove(name)),
            Effect::Sync | Effect::FailedSync => {}
        }
    }

    /// Writes into a file that grows when the write ends behind it, as files do.
    pub fn put(&mut self, place: Place, offset: usize, data: &[u8]) {
        let content = self.bytes_mut(place);
        let end = offset + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(data);
    }
}
