//! Everything that happened in a run, folded into one number: two runs of a seed must have the same.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a run tells what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Only folds.
    Quiet,
    /// Prints every line to standard error too: for a failing seed.
    Aloud,
    /// Keeps every line: for a seed that does not repeat itself.
    Kept,
}

/// The record of one run. Clones share it.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Mutex<Record>>);

#[derive(Debug)]
struct Record {
    telling: Telling,
    folded: DefaultHasher,
    kept: Vec<String>,
    lines: u64,
    now_us: u64,
}

impl Trace {
    /// An empty record.
    pub fn new(telling: Telling) -> Self {
        // A fresh hasher has fixed keys: the number depends on what is told alone.
        let record = Record { telling, folded: DefaultHasher::new(), kept: Vec::new(), lines: 0, now_us: 0 };
        Self(Arc::new(Mutex::new(record)))
    }

    /// Sets the time of what is told next.
    pub fn set_now_us(&self, now_us: u64) {
        self.lock().now_us = now_us;
    }

    /// Records that something happened: `what` in words, `bytes` what they stand for.
    pub fn tell(&self, what: fmt::Arguments<'_>, bytes: &[u8]) {
        let mut record = self.lock();
        record.lines += 1;
        let now_us = record.now_us;
        now_us.hash(&mut record.folded);
        // Formatting into the hasher: no allocation for a line that nobody reads.
        let mut sink = Folding(&mut record.folded);
        let _ = fmt::write(&mut sink, what);
        bytes.hash(&mut record.folded);
        if record.telling == Telling::Quiet {
            return;
        }
        let (ms, mut digest) = (now_us / 1_000, DefaultHasher::new());
        bytes.hash(&mut digest);
        // Lines that differ in their bytes alone differ here too.
        let line = format!("{:6}.{:03} {what} [{:08x}]", ms / 1_000, ms % 1_000, digest.finish() >> 32);
        match record.telling {
            Telling::Kept => record.kept.push(line),
            _ => eprintln!("{line}"),
        }
    }

    /// The number that everything so far was folded into.
    pub fn hash(&self) -> u64 {
        self.lock().folded.finish()
    }

    /// What was told, when it is kept.
    pub fn kept(&self) -> Vec<String> {
        self.lock().kept.clone()
    }

    /// How many things were told.
    pub fn lines(&self) -> u64 {
        self.lock().lines
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken record.
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Folding<'a>(&'a mut DefaultHasher);

impl fmt::Write for Folding<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
