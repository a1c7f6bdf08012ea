//! What an import remembers between runs: the time that its keys are stamped with, and how far it came.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ledger_core::command::Receipt;
use ledger_core::transaction::IdempotencyKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::{record, state_home};

const FORMAT: &str = "strongroom.import.v1";
/// How long the keys of a run are used again: an hour less than the ledger remembers them.
const KEYS_LIVE_MS: u64 = 23 * 3_600_000;
/// How often the file is written while chunks are acknowledged.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What is imported where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The ledger.
    pub ledger_id: [u8; 16],
    /// The vault.
    pub vault_id: [u8; 16],
    /// Digest of the whole file.
    pub file_sha256: [u8; 32],
}

impl Target {
    fn digest(&self, domain: &[u8], number: u64, base_ms: u64) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(domain);
        digest.update(self.ledger_id);
        digest.update(self.vault_id);
        digest.update(self.file_sha256);
        digest.update(base_ms.to_be_bytes());
        digest.update(number.to_be_bytes());
        digest.finalize().into()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    /// The ledger's time when the first run began, unix milliseconds.
    base_ms: u64,
    /// Every chunk before this one is written.
    acknowledged_chunks: u64,
    /// Results in those chunks.
    results: BTreeMap<String, u64>,
    /// Whether the import came to its end.
    complete: bool,
}

/// The journal of one import.
#[derive(Debug)]
pub struct Journal {
    target: Target,
    path: PathBuf,
    stored: Stored,
    /// Acknowledged out of order: results by chunk.
    ahead: BTreeMap<u64, BTreeMap<String, u64>>,
    saved_at: Instant,
}

impl Journal {
    /// Finds the journal of an earlier run, or begins one at `now_ms` (the ledger's time, unix milliseconds).
    pub fn open(target: Target, now_ms: u64, again: bool) -> Result<Self, Failure> {
        let directory = state_home::state_directory()
            .ok_or_else(|| {
                Failure::error("there is no place for the import's journal: set XDG_STATE_HOME or HOME")
            })?
            .join("imports");
        let name = hex::encode(target.digest(b"strongroom import journal v1", 0, 0));
        let path = directory.join(format!("{name}.json"));
        let begun = || Stored {
            format: FORMAT.to_owned(),
            base_ms: now_ms,
            acknowledged_chunks: 0,
            results: BTreeMap::new(),
            complete: false,
        };
        let mut stored = match read(&path)? {
            Some(stored) if !again => stored,
            _ => begun(),
        };
        if now_ms.saturating_sub(stored.base_ms) > KEYS_LIVE_MS {
            // The ledger forgets these keys soon. What is acknowledged stays so; the rest gets new ones.
            stored = if stored.complete { begun() } else { Stored { base_ms: now_ms, ..stored } };
        }
        if stored.complete {
            // The same file once more: every chunk is sent under its old key, and changes nothing.
            stored = Stored { base_ms: stored.base_ms, ..begun() };
        }
        let mut journal = Self { target, path, stored, ahead: BTreeMap::new(), saved_at: Instant::now() };
        // Before the first chunk: a retry needs the same times.
        journal.save()?;
        Ok(journal)
    }

    /// What is imported where.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The time that keys are stamped with and times to live count from, unix milliseconds.
    pub fn base_ms(&self) -> u64 {
        self.stored.base_ms
    }

    /// The first chunk that is not known to be written.
    pub fn resume_at(&self) -> u64 {
        self.stored.acknowledged_chunks
    }

    /// Results of the chunks before.
    pub fn results(&self) -> &BTreeMap<String, u64> {
        &self.stored.results
    }

    /// The key of a chunk: the same in every run of the same file within a day.
    pub fn idempotency_key(&self, chunk: u64) -> IdempotencyKey {
        let digest = self.target.digest(b"strongroom import key v1", chunk, self.stored.base_ms);
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        IdempotencyKey::from_parts(self.stored.base_ms, random)
    }

    /// Remembers that a chunk is written.
    pub fn acknowledge(&mut self, chunk: u64, receipt: &Receipt) -> Result<(), Failure> {
        let mut results = BTreeMap::new();
        for result in &receipt.results {
            *results.entry(record::result_name(*result).to_owned()).or_default() += 1;
        }
        self.ahead.insert(chunk, results);
        while let Some(results) = self.ahead.remove(&self.stored.acknowledged_chunks) {
            for (name, count) in results {
                *self.stored.results.entry(name).or_default() += count;
            }
            self.stored.acknowledged_chunks += 1;
        }
        if self.saved_at.elapsed() >= SAVE_INTERVAL { self.save() } else { Ok(()) }
    }

    /// Remembers that the import came to its end.
    pub fn complete(&mut self) -> Result<(), Failure> {
        self.stored.complete = true;
        self.save()
    }

    /// Writes the journal: temporary file, sync, rename.
    pub fn save(&mut self) -> Result<(), Failure> {
        let bytes =
            serde_json::to_vec_pretty(&self.stored).map_err(|error| Failure::error(error.to_string()))?;
        write(&self.path, &bytes).map_err(|error| Failure::file("write", &self.path, &error))?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Stored>, Failure> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path, &error)),
    };
    let damaged = |reason: String| {
        Failure::error(format!("the import's journal {} is damaged: {reason}", path.display()))
            .with_hint("--again begins anew")
    };
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if stored.format != FORMAT {
        return Err(damaged(format!("its format is {:?}", stored.format)));
    }
    Ok(Some(stored))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let temporary = path.with_extension("json.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}
